"""How much faster N ranks are than one, each with one thread: `python benchmarks/ranks.py [RANKS] [EPOCHS]`.

Trains on scikit-learn's digits, three times each in turns, and prints the medians. The last line is what this machine
gives at most: N trainings side by side that have nothing to do with each other.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 3
SPLITS = {"train": slice(0, 1078), "valid": slice(1078, 1437), "test": slice(1437, None)}


def write_digits(folder: Path) -> None:
    digits = load_digits()
    order = np.random.default_rng(7).permutation(len(digits.target))
    for split, part in SPLITS.items():
        for place in order[part]:
            path = folder / split / str(digits.target[place]) / f"{place:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((digits.images[place] * (255 / 16)).round().astype(np.uint8)).save(path)


def start(data: Path, model: Path, processes: int, epochs: int) -> "subprocess.Popen[bytes]":
    flags = ["--data", data, "--model-dir", model, "--epochs", epochs, "--patience", epochs]
    command = [sys.executable, ROOT / "training" / "train.py", *flags, "--processes-per-instance", processes]
    return subprocess.Popen(  # noqa: S603 - this project's own program
        list(map(str, command)), env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL
    )


def reports_of(data: Path, folder: Path, *, trainings: int, processes: int, epochs: int) -> list[dict[str, Any]]:
    """Run trainings side by side; return their reports."""
    models = [folder / f"model-{number}" for number in range(trainings)]
    for started in [start(data, model, processes, epochs) for model in models]:
        if started.wait():
            sys.exit("a training failed")
    return [json.loads((model / "report.json").read_text()) for model in models]


def main() -> None:
    ranks, epochs = [*map(int, sys.argv[1:]), *(2, 20)[len(sys.argv) - 1 :]]
    rows = {"1 rank": (1, 1), f"{ranks} ranks, one model": (1, ranks), f"{ranks} trainings apart": (ranks, 1)}
    speeds: dict[str, list[float]] = {name: [] for name in rows}
    accuracies: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch, "digits")
        write_digits(data)
        for _ in range(ROUNDS):
            for name, (trainings, processes) in rows.items():
                options = {"trainings": trainings, "processes": processes, "epochs": epochs}
                reports = reports_of(data, Path(scratch, "models"), **options)
                speeds[name].append(sum(report["images_per_second"] for report in reports))
                accuracies[name] = reports[0]["test"]["accuracy"]
    print(f"{'':24}{'pictures/s':>12}{'speed-up':>12}{'test accuracy':>16}")
    one = statistics.median(speeds["1 rank"])
    for name, measured in speeds.items():
        median = statistics.median(measured)
        print(f"{name:24}{median:12.0f}{median / one:12.2f}{accuracies[name]:16.4f}")


if __name__ == "__main__":
    main()
