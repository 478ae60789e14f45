"""Our runner tells a script what AWS's own toolkit tells it: the same command line, environment, folder and modules."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deployments.local_aws import script_mode

pytest.importorskip(
    "sagemaker_training", reason="AWS's toolkit compiles a C extension and is apart: make toolkit installs it"
)

DUMP = """
import json, os, sys
json.dump({"argv": sys.argv, "cwd": os.getcwd(), "env": dict(os.environ), "path": sys.path[:2]}, open("DUMP", "w"))
"""
HYPERPARAMETERS = {
    "epochs": "3",
    "learning_rate": "0.01",
    "architecture": '"small_cnn"',
    "nested": '{"b": 2, "a": 1}',
    "flag": "true",
    "nothing": "null",
    "plain": "no json",
    "k": "1",
    "sagemaker_container_log_level": "20",
    "sagemaker_region": '"us-east-1"',
    "sagemaker_program": '"training/train.py"',
    "_tuning_objective_metric": "valid_accuracy",
}
REQUEST = {
    "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2},
    "InputDataConfig": [
        {"ChannelName": name, "DataSource": {"S3DataSource": {"S3Uri": "s3://b/p"}}} for name in ("train", "valid")
    ],
}
# What differs on purpose, and why.
DIFFERENCES = {
    "PYTHONPATH": "the toolkit passes its own sys.path on; here the script gets the program's folder, as in the image",
    "SM_STUDIO_LOCAL_MODE": "spares the toolkit a look-up of host names that only exist on SageMaker",
    "SM_NUM_GPUS": "the toolkit asks nvidia-smi; jobs here are not given a GPU",
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    base = tmp_path / "ml"
    source = tmp_path / "source"
    (source / "training").mkdir(parents=True)
    (source / "training" / "train.py").write_text(DUMP.replace("DUMP", str(tmp_path / "dump.json")))
    archive = tmp_path / "source.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", source, "."], check=True)
    for name in ("model", "output/data", "code", "input/data/train", "input/data/valid"):
        (base / name).mkdir(parents=True)
    hyperparameters = HYPERPARAMETERS | {"sagemaker_submit_directory": json.dumps(str(archive))}
    request = REQUEST | {"HyperParameters": hyperparameters}
    script_mode.write_configuration(base, request, "algo-2", ["algo-1", "algo-2"])
    return base


def dump_after(command: list[str], environment: dict[str, str], base: Path) -> dict[str, Any]:
    subprocess.run(command, env=environment, cwd=base / "code", check=True, capture_output=True)
    dump: dict[str, Any] = json.loads((base.parent / "dump.json").read_text())
    return dump


def test_the_script_is_told_the_same(base: Path) -> None:
    plain = {"PATH": os.environ["PATH"], "HOME": str(base)}
    toolkit = dump_after(
        [sys.executable, "-c", "from sagemaker_training import trainer; trainer.train()"],
        plain | {"SAGEMAKER_BASE_DIR": str(base), "TRAINING_JOB_NAME": "job-1", "SM_STUDIO_LOCAL_MODE": "true"},
        base,
    )
    ours = dump_after(script_mode.command(base), plain | script_mode.environment(base, "job-1"), base)

    assert ours["argv"] == toolkit["argv"]
    assert ours["cwd"] == toolkit["cwd"]
    assert ours["path"] == toolkit["path"]
    told = {name for name in toolkit["env"] if name not in DIFFERENCES}
    assert {name: ours["env"].get(name) for name in told} == {name: toolkit["env"][name] for name in told}
    assert {name for name in ours["env"] if name.startswith("SM_")} - told <= set(DIFFERENCES)
