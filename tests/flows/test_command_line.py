"""Flows as commands: help that is quick, one clear sentence for what cannot be done, an exit code that says so."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NO_FLOWS = ("__init__", "command_line", "steps")
FLOWS = sorted(path.stem for path in (ROOT / "flows").glob("*.py") if path.stem not in NO_FLOWS)
HEAVY = ["torch", "torchvision", "sklearn", "matplotlib", "moto", "sagemaker", "numpy"]


def command(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


# What runs a flow's module as the interpreter would, and says then what of the heavy packages has been loaded.
AS_MODULE = """
import runpy, sys
sys.argv = ["flows", "--help"]
try:
    runpy.run_module("flows.{flow}", run_name="__main__")
except SystemExit as end:
    print(end.code, [name for name in {heavy} if name in sys.modules])
"""


@pytest.mark.parametrize("flow", FLOWS)
def test_every_flow_has_help_for_which_nothing_heavy_is_loaded(flow: str) -> None:
    said = command("-c", AS_MODULE.format(flow=flow, heavy=HEAVY)).stdout
    assert f"Usage: python -m flows.{flow}" in said
    assert said.endswith("0 []\n")


def test_a_flow_is_a_script_too(tmp_path: Path) -> None:
    as_module = command("-m", "flows.teardown", "--help")
    as_script = command(str(ROOT / "flows" / "teardown.py"), "--help", cwd=tmp_path)
    assert (as_module.returncode, as_script.returncode) == (0, 0)
    assert as_script.stdout == as_module.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["operationalize", "--hyperparameters.learning-rate", "7"], "learning"),
        (["operationalize", "--hyperparameters.epochs", "0"], "epochs"),
        (["operationalize", "--dataset.valid-fraction", "0.9", "--dataset.test-fraction", "0.9"], "nothing is left"),
        (["train_single_instance", "not-a-uri"], "s3://"),
        (["train_single_instance"], "--manifest"),
        (
            [
                *("tune_hyperparameters", "s3://a-bucket/dataset.json"),
                *("--tuning.search.learning-rate.low", "0.1", "--tuning.search.learning-rate.high", "0.01"),
            ],
            "low=0.1 must be less than high=0.01",
        ),
        (
            [
                *("tune_hyperparameters", "s3://a-bucket/dataset.json"),
                *("--tuning.strategy", "Hyperband", "--tuning.early-stopping"),
            ],
            "Hyperband stops weak trials itself",
        ),
        (["tune_hyperparameters", "s3://a-bucket/dataset.json", "--tuning.strategy", "Grid"], "12 combinations"),
        (
            ["tune_hyperparameters", "s3://a-bucket/dataset.json", "--tuning.search.learning-rate.high", "50"],
            "search.learning_rate.high: Input should be less than or equal to 1, not '50'",
        ),
        (
            ["tune_hyperparameters", "s3://a-bucket/dataset.json", "--tuning.search.learning-rate.low", "0.1"],
            "search.learning_rate: low=0.1 must be less than high=0.01",
        ),
        (
            ["tune_hyperparameters", "s3://a-bucket/dataset.json", "--tuning.search.batch-size", "32", "-5"],
            "search.batch_size.1: Input should be greater than or equal to 1, not '-5'",
        ),
        (["train_on_ec2", "s3://a-bucket/dataset.json", "--compute.instance-type", "ml.m5.xlarge"], "instance_type"),
        (["operationalize", "--no-such-option"], "no-such-option"),
    ],
)
def test_a_value_out_of_range_is_refused_before_anything_runs(arguments: list[str], words: str) -> None:
    result = command("-m", f"flows.{arguments[0]}", *arguments[1:])
    assert result.returncode != 0
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
