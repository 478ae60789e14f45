"""Training where there is a GPU; there, the other tests of this folder train on it too."""

from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU"),
]


def test_it_is_used_without_being_asked_for_and_named_in_the_report(trained: dict[str, Any]) -> None:
    assert trained["report"]["device"] == f"cuda ({torch.cuda.get_device_name()})"
    assert trained["report"]["test"]["accuracy"] >= 0.985


def test_a_training_begun_on_it_goes_on_on_a_processor(some_colours: Path, tmp_path: Path, run_train: Any) -> None:
    """A spot instance of another kind takes over."""
    flags = ("--data", some_colours, "--image-size", 16, "--epochs", 3, "--patience", 9)
    kept = ("--checkpoint-dir", tmp_path / "checkpoints", "--checkpoint-seconds", 0)
    begun = run_train(*flags, *kept, "--model-dir", tmp_path / "begun")
    assert begun.returncode == 0, begun.stderr
    resumed = run_train(*flags, *kept, "--model-dir", tmp_path / "resumed", CUDA_VISIBLE_DEVICES="")
    assert resumed.returncode == 0, resumed.stderr
    assert "Training on cpu" in resumed.stdout
    assert "Resuming from the checkpoint" in resumed.stdout


def test_more_processes_than_gpus_are_refused(some_colours: Path, tmp_path: Path, run_train: Any) -> None:
    gpus = torch.cuda.device_count()
    flags = ("--processes-per-instance", gpus + 1, "--model-dir", tmp_path / "model")
    refused = run_train("--data", some_colours, *flags)
    assert refused.returncode == 1
    assert f"{gpus + 1} processes on an instance need as many GPUs, there are {gpus}" in refused.stderr
    assert not (tmp_path / "model").exists()
