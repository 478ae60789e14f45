"""Requests for a plain EC2 instance and its command, built from specs: pure, as requests.py is for SageMaker."""

import json
import math
import shlex
from datetime import datetime
from typing import Any

from tasks.aws.identity import Owner, digest_of, resource_name, tags_of
from tasks.aws.requests import METRIC_DEFINITIONS, checkpoints_uri, encoded, input_channels, outputs_uri
from tasks.aws.settings import Settings
from tasks.contracts import Ec2TrainingSpec

DOCUMENT = "AWS-RunShellScript"
COMMANDS_PREFIX = "commands"
# Longest time from launch to the command's start: boot, agent, waiting. After it and the command's own, it ends itself.
BOOT_SECONDS = 900
_DELIVERY_SECONDS = 600
_STEP = "train-ec2"


def instance_digest(spec: Ec2TrainingSpec, owner: Owner) -> str:
    """Return the digest of all that decides a training's outcome; not of how the machine is paid for."""
    return digest_of(
        {
            "dataset": spec.dataset.digest,
            "channels": {split: channel.model_dump() for split, channel in spec.dataset.channels.items()},
            "hyperparameters": spec.hyperparameters.model_dump(),
            "program": spec.program_s3_uri,
            "image": spec.image_id,
            "instance": spec.compute.instance_type,
            "fresh": owner.flow_run_id if spec.fresh else None,
        }
    )


def instance_name(spec: Ec2TrainingSpec, owner: Owner) -> str:
    """Return the name of a training: its Name tag, and the folder of its results."""
    return resource_name(_STEP, instance_digest(spec, owner))


def run_instances_request(
    spec: Ec2TrainingSpec, settings: Settings, owner: Owner, *, instance_type: str, spot: bool, attempt: int
) -> dict[str, Any]:
    """Return the request for the instance: no way in, an encrypted disk, and its own end at its time limit.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html
    """
    name = instance_name(spec, owner)
    tags = [{"Key": "Name", "Value": name}, *tags_of(owner, instance_digest(spec, owner))]
    disk = {
        "VolumeSize": spec.compute.volume_gb,
        "VolumeType": "gp3",
        "Encrypted": True,
        "DeleteOnTermination": True,
    }
    request: dict[str, Any] = {
        "ClientToken": client_token(name, instance_type, spot=spot, attempt=attempt),
        "ImageId": spec.image_id,
        "InstanceType": instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        "IamInstanceProfile": {"Name": settings.instance_profile},
        "SecurityGroupIds": [settings.instance_security_group_id],
        "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "BlockDeviceMappings": [{"DeviceName": spec.root_device, "Ebs": disk}],
        "InstanceInitiatedShutdownBehavior": "terminate",
        "UserData": user_data(spec.compute.max_runtime_seconds),
        "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
    }
    if spot:
        options = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
        request["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": options}
    return request


def client_token(name: str, instance_type: str, *, spot: bool, attempt: int) -> str:
    """Return the token under which an instance is asked for once: the same content and attempt give the same one."""
    return digest_of({"name": name, "type": instance_type, "spot": spot, "attempt": attempt})[:64]


def user_data(max_runtime_seconds: int) -> str:
    """Return what the instance does at boot: plan its own end, for when nobody is left to end it."""
    minutes = math.ceil((max_runtime_seconds + BOOT_SECONDS) / 60)
    return f"#!/bin/bash\nshutdown -h +{minutes}\n"


def command_request(
    spec: Ec2TrainingSpec, settings: Settings, name: str, instance: dict[str, Any], venv: str
) -> dict[str, Any]:
    """Return the request for the command that trains; its output goes to S3 and CloudWatch Logs, whole.

    https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_SendCommand.html
    """
    return {
        "InstanceIds": [instance["InstanceId"]],
        "DocumentName": DOCUMENT,
        "Comment": name,
        "Parameters": {
            "commands": training_script(spec, settings, name, instance, venv),
            "executionTimeout": [str(spec.compute.max_runtime_seconds)],
        },
        "TimeoutSeconds": _DELIVERY_SECONDS,
        "OutputS3BucketName": settings.bucket,
        "OutputS3KeyPrefix": COMMANDS_PREFIX,
        "CloudWatchOutputConfig": {
            "CloudWatchOutputEnabled": True,
            "CloudWatchLogGroupName": settings.command_log_group,
        },
    }


def training_script(
    spec: Ec2TrainingSpec, settings: Settings, name: str, instance: dict[str, Any], venv: str
) -> list[str]:
    """Return the lines of the shell script: the program from S3, what it requires, and its run.

    The program is the one that training jobs run, with the same hyperparameters; `training.instance_job` does around it
    what SageMaker does around a job.
    """
    python = shlex.quote(f"{venv}/bin/python")
    job = json.dumps(_job(spec, settings, name, instance))
    return [
        "set -eu",
        f"export AWS_DEFAULT_REGION={shlex.quote(settings.region)}",
        'cd "${HOME:-/root}"',
        f"mkdir -p {name}",
        f"cd {name}",
        f"aws s3 cp --only-show-errors {shlex.quote(spec.program_s3_uri)} program.tar.gz",
        "tar -xzf program.tar.gz",
        f"{python} -m pip install --quiet --disable-pip-version-check --requirement requirements.txt",
        f"exec {python} -m training.instance_job {shlex.quote(job)}",
    ]


def results_uri(settings: Settings, name: str) -> str:
    """Return where a training on an instance leaves its results, as a training job would."""
    return f"{outputs_uri(settings)}/{name}/output"


def _job(spec: Ec2TrainingSpec, settings: Settings, name: str, instance: dict[str, Any]) -> dict[str, Any]:
    launched: datetime = instance["LaunchTime"]
    return {
        "name": name,
        "channels": {
            channel_name: channel.model_dump()
            for channel_name, channel in input_channels(spec.dataset, spec.hyperparameters).items()
        },
        "hyperparameters": encoded(spec.hyperparameters),
        "metrics": METRIC_DEFINITIONS,
        "output_s3_uri": results_uri(settings, name),
        "checkpoints_s3_uri": checkpoints_uri(settings, name),
        "machine": {
            "instance_id": instance["InstanceId"],
            "instance_type": instance["InstanceType"],
            "spot": instance.get("InstanceLifecycle") == "spot",
            "launched_at": launched.timestamp(),
        },
    }
