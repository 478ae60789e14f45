"""Script mode: what the sagemaker-training toolkit of AWS's framework images tells a training script.

The toolkit compiles a C extension, so it is no dependency; tests/deployments/local_aws/test_toolkit_conformance.py runs
it on the same folder and holds command line and environment against what is built here.
https://github.com/aws/sagemaker-training-toolkit
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from deployments.local_aws.records import invalid

NETWORK_INTERFACE = "lo"
LOOPBACK = "127.0.0.1"
GROUP = "homogeneousCluster"
_RESERVED = re.compile(r"^sagemaker_")
_PROGRAM = re.compile(r"^(?![-/])(?!.*(^|/)\.\.?(/|$))[\w.+/-]+\.py$", re.ASCII)


# With these the toolkit starts the script another way, or uploads while it runs.
_REFUSED_PARAMETERS = frozenset(
    {
        "sagemaker_distributed_dataparallel_enabled",
        "sagemaker_mpi_enabled",
        "sagemaker_multi_worker_mirrored_strategy_enabled",
        "sagemaker_parameter_server_enabled",
        "sagemaker_pytorch_ddp_enabled",
        "sagemaker_pytorch_xla_multi_worker_enabled",
        "sagemaker_s3_output",
        "sagemaker_torch_distributed_enabled",
    }
)


def check_hyperparameters(hyperparameters: dict[str, str]) -> None:
    """Refuse what script mode cannot run.

    Raises:
        AwsError: No script is named, its name leaves the folder of the program, or another runner is asked for.
    """
    decoded = decode(hyperparameters)
    program, source = decoded.get("sagemaker_program"), decoded.get("sagemaker_submit_directory")
    if not program or not source:
        message = (
            "The local AWS runs no containers: it runs training in script mode only, with the hyperparameters "
            "sagemaker_program and sagemaker_submit_directory"
        )
        raise invalid(message)
    if not _PROGRAM.match(str(program)):
        message = f"sagemaker_program is {program!r}: it must be the relative path of a .py file, without '..'"
        raise invalid(message)
    if not str(source).startswith("s3://"):
        message = f"sagemaker_submit_directory is {source!r}: it must be the s3:// URI of a tar.gz"
        raise invalid(message)
    for name in sorted(_REFUSED_PARAMETERS & {name for name, value in decoded.items() if value}):
        message = f"The local AWS does not implement the hyperparameter {name} of the training toolkit"
        raise invalid(message)


def decode(hyperparameters: dict[str, str]) -> dict[str, Any]:
    """Return hyperparameters as values: they arrive as strings of JSON, and what is no JSON stays a string."""

    def value(text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            return text

    return {name: value(text) for name, text in hyperparameters.items()}


def write_configuration(base: Path, request: dict[str, Any], host: str, hosts: list[str]) -> None:
    """Write input/config as SageMaker does.

    https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html
    """
    folder = base / "input" / "config"
    folder.mkdir(parents=True, exist_ok=True)
    instance_type = request["ResourceConfig"]["InstanceType"]
    group = {"instance_group_name": GROUP, "instance_type": instance_type, "hosts": hosts}
    files = {
        "hyperparameters.json": request.get("HyperParameters", {}),
        "inputdataconfig.json": {
            channel["ChannelName"]: {
                "TrainingInputMode": "File",
                "S3DistributionType": channel["DataSource"]["S3DataSource"].get(
                    "S3DataDistributionType", "FullyReplicated"
                ),
                "RecordWrapperType": "None",
                **({"ContentType": channel["ContentType"]} if "ContentType" in channel else {}),
            }
            for channel in request.get("InputDataConfig", [])
        },
        "resourceconfig.json": {
            "current_host": host,
            "current_instance_type": instance_type,
            "current_group_name": GROUP,
            "hosts": hosts,
            "instance_groups": [group],
            "network_interface_name": NETWORK_INTERFACE,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def command(base: Path) -> list[str]:
    """Return the command line of the script, for a folder whose configuration is written."""
    hyperparameters = decode(_config(base, "hyperparameters"))
    own, framework = _divide(hyperparameters)
    return [sys.executable, framework["sagemaker_program"], *_arguments(own)]


def environment(base: Path, job_name: str) -> dict[str, str]:
    """Return the variables of the script, for a folder whose configuration is written."""
    own, framework = _divide(decode(_config(base, "hyperparameters")))
    described = _described(base, own, framework)
    variables = {f"SM_{name.upper()}": _text(value) for name, value in described.items()}
    variables["SM_TRAINING_ENV"] = _text(_training_env(described, own, framework, job_name))
    variables |= {f"SM_CHANNEL_{name.upper()}": path for name, path in _channels(base).items()}
    variables |= {f"SM_HP_{name.upper()}": _text(value) for name, value in own.items()}
    return {
        **variables,
        "PYTHONPATH": str(base / "code"),
        "SAGEMAKER_BASE_DIR": str(base),
        "SAGEMAKER_JOB_NAME": str(framework.get("sagemaker_job_name", "")),
        "SAGEMAKER_REGION": str(framework.get("sagemaker_region", "")),
        "TRAINING_JOB_NAME": job_name,
        "CURRENT_HOST": described["current_host"],
    }


def process_group(master_port: int) -> dict[str, str]:
    """Return what the PyTorch image tells a script of its process group, with one host or with several.

    There the first host's name and always 7777; here all hosts of all jobs are one machine.
    https://github.com/aws/sagemaker-pytorch-training-toolkit
    """
    return {
        "MASTER_ADDR": LOOPBACK,
        "MASTER_PORT": str(master_port),
        "NCCL_SOCKET_IFNAME": NETWORK_INTERFACE,
        "NCCL_IB_DISABLE": "1",
        "NCCL_DEBUG": "WARN",
    }


def _described(base: Path, own: dict[str, Any], framework: dict[str, Any]) -> dict[str, Any]:
    resources = _config(base, "resourceconfig")
    groups = {group["instance_group_name"]: group for group in resources["instance_groups"]}
    return {
        "hosts": resources["hosts"],
        "network_interface_name": resources["network_interface_name"],
        "hps": own,
        "user_entry_point": framework["sagemaker_program"],
        "framework_params": {},
        "resource_config": resources,
        "input_data_config": _config(base, "inputdataconfig"),
        "output_data_dir": str(base / "output" / "data"),
        "channels": sorted(_channels(base)),
        "current_host": resources["current_host"],
        "current_instance_type": resources["current_instance_type"],
        "current_instance_group": resources["current_group_name"],
        "current_instance_group_hosts": groups[resources["current_group_name"]]["hosts"],
        "instance_groups": list(groups),
        "instance_groups_dict": groups,
        "distribution_instance_groups": [],
        "is_hetero": False,
        "module_name": framework["sagemaker_program"].removesuffix(".py"),
        "log_level": framework.get("sagemaker_container_log_level", 20),
        "framework_module": None,
        "input_dir": str(base / "input"),
        "input_config_dir": str(base / "input" / "config"),
        "output_dir": str(base / "output"),
        "num_cpus": os.cpu_count(),
        "num_gpus": 0,
        "num_neurons": 0,
        "model_dir": str(base / "model"),
        "module_dir": framework["sagemaker_submit_directory"],
        "user_args": _arguments(own),
        "output_intermediate_dir": str(base / "output" / "intermediate"),
    }


def _training_env(
    described: dict[str, Any], own: dict[str, Any], framework: dict[str, Any], job_name: str
) -> dict[str, Any]:
    """Return SM_TRAINING_ENV: all of the above as one object, under the toolkit's names of its properties."""
    left_out = {"hps", "framework_params", "channels", "user_args"}
    base = Path(described["input_dir"]).parent
    return {name: value for name, value in described.items() if name not in left_out} | {
        "additional_framework_parameters": {
            name: value for name, value in framework.items() if name not in _KNOWN_FRAMEWORK_PARAMETERS
        },
        "channel_input_dirs": _channels(base),
        "distribution_hosts": [],
        "hyperparameters": own,
        "is_master": described["current_host"] == described["hosts"][0],
        "is_modelparallel_enabled": None,
        "is_smddpmprun_installed": False,
        "is_smddprun_installed": False,
        "job_name": job_name,
        "master_hostname": described["hosts"][0],
        "topology": [],
    }


_KNOWN_FRAMEWORK_PARAMETERS = frozenset(
    {
        "sagemaker_program",
        "sagemaker_submit_directory",
        "sagemaker_container_log_level",
        "sagemaker_region",
        "sagemaker_job_name",
        "sagemaker_enable_cloudwatch_metrics",
        "sagemaker_s3_output",
        "default_user_module_name",
        "_tuning_objective_metric",
    }
)


def _divide(hyperparameters: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the script's hyperparameters, and those that are meant for the toolkit."""
    framework = {
        name: value
        for name, value in hyperparameters.items()
        if _RESERVED.match(name) or name in _KNOWN_FRAMEWORK_PARAMETERS
    }
    return {name: value for name, value in hyperparameters.items() if name not in framework}, framework


def _arguments(own: dict[str, Any]) -> list[str]:
    arguments: list[str] = []
    for name in sorted(own):
        value = own[name]
        text = ",".join(f"{k}={v}" for k, v in sorted(value.items())) if isinstance(value, dict) else value
        arguments += [f"--{name}" if len(name) > 1 else f"-{name}", "" if text is None else str(text)]
    return arguments


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))


def _channels(base: Path) -> dict[str, str]:
    return {name: str(base / "input" / "data" / name) for name in _config(base, "inputdataconfig")}


def _config(base: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((base / "input" / "config" / f"{name}.json").read_text(encoding="utf-8"))
    return content
