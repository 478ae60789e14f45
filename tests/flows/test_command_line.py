"""Flows as commands: help that is quick, one clear sentence for what cannot be done, an exit code that says so."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NO_FLOWS = ("__init__", "command_line", "steps")
FLOWS = sorted(path.stem for path in (ROOT / "flows").glob("*.py") if path.stem not in NO_FLOWS)
HEAVY = ["torch", "torchvision", "sklearn", "matplotlib", "moto", "sagemaker", "numpy"]


def command(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("flow", FLOWS)
def test_every_flow_has_help_as_a_module_and_as_a_script(flow: str, tmp_path: Path) -> None:
    as_module = command("-m", f"flows.{flow}", "--help")
    as_script = command(str(ROOT / "flows" / f"{flow}.py"), "--help", cwd=tmp_path)
    assert (as_module.returncode, as_script.returncode) == (0, 0)
    assert "Usage" in as_module.stdout
    assert as_script.stdout == as_module.stdout


@pytest.mark.parametrize("flow", FLOWS)
def test_asking_for_help_loads_nothing_heavy(flow: str) -> None:
    code = f"import sys, flows.{flow}; print([name for name in {HEAVY} if name in sys.modules])"
    assert command("-c", code).stdout.strip() == "[]"


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
        (["train_on_ec2", "s3://a-bucket/dataset.json", "--compute.instance-type", "ml.m5.xlarge"], "instance_type"),
        (["operationalize", "--no-such-option"], "no-such-option"),
    ],
)
def test_a_value_out_of_range_is_refused_before_anything_runs(arguments: list[str], words: str) -> None:
    result = command("-m", f"flows.{arguments[0]}", *arguments[1:])
    assert result.returncode != 0
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
