"""Pictures and trained packages for the tests of the training program; made once, and small."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.arguments import parse_arguments

# As train.py does for itself; read when torch is imported, which no test file may do before this one.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

ROOT = Path(__file__).parents[2]
TRAIN = (sys.executable, str(ROOT / "training" / "train.py"))

Run = Callable[..., subprocess.CompletedProcess[str]]
Job = Callable[..., dict[str, Any]]


def clean_environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SM_", "SAGEMAKER_", "PYTHON"))}
    return kept | more


@pytest.fixture(scope="session")
def run_train() -> Run:
    """Run the program as a job does: by the script's path, in a process of its own."""

    def run(*flags: object, cwd: Path = ROOT, timeout: float = 120, **environ: str) -> subprocess.CompletedProcess[str]:
        command = [*TRAIN, *map(str, flags)]
        return subprocess.run(
            command,
            cwd=cwd,
            env=clean_environment(**environ),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Run a training in this process and return its report, as read from report.json."""
    from training.job import run_job

    def run(data: Path, *flags: object, name: str = "model") -> dict[str, Any]:
        folder = tmp_path / name
        run_job(parse_arguments(["--data", str(data), "--model_dir", str(folder), *map(str, flags)], {}), 0.0)
        report: dict[str, Any] = json.loads((folder / "report.json").read_text())
        return report

    return run


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of scikit-learn's handwritten digits as PNGs of 8 x 8 pixels, 60/20/20, stratified."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    folder, data = tmp_path_factory.mktemp("digits"), load_digits()
    train, rest = train_test_split(np.arange(len(data.target)), test_size=0.4, stratify=data.target, random_state=7)
    valid, test = train_test_split(rest, test_size=0.5, stratify=data.target[rest], random_state=7)
    for split, places in {"train": train, "valid": valid, "test": test}.items():
        for place in places:
            path = folder / split / str(data.target[place]) / f"{place:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((data.images[place] * (255 / 16)).round().astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="session")
def trained(digits: Path, tmp_path_factory: pytest.TempPathFactory, run_train: Run) -> dict[str, Any]:
    """The default training on the digits: its model package, report and output."""
    folder = tmp_path_factory.mktemp("trained")
    done = run_train("--data", digits, "--model_dir", folder / "model", "--output_data_dir", folder / "output")
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "output" / "report.json").read_text())
    return {"package": folder / "model", "report": report, "stdout": done.stdout, "stderr": done.stderr}


def write_colours(folder: Path, per_class: int = 12, side: int = 24) -> Path:
    """Write noisy red, green and blue pictures: a dataset that a network learns in two epochs."""
    random = np.random.default_rng(3)
    for split, count in {"train": per_class, "valid": per_class // 2, "test": per_class // 2}.items():
        for channel, label in enumerate(("red", "green", "blue")):
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 90, (side, side, 3))
                pixels[..., channel] += 120
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / label / f"{number}.png")
    return folder


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    return write_colours(tmp_path / "colours")


@pytest.fixture(scope="session")
def some_colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """39 pictures to train with, no two alike, that two ranks cannot share evenly; not to be written to."""
    return write_colours(tmp_path_factory.mktemp("some") / "colours", per_class=13, side=16)


@pytest.fixture(scope="session")
def many_colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that takes long enough to be killed on the way; not to be written to."""
    return write_colours(tmp_path_factory.mktemp("many") / "colours", per_class=64)
