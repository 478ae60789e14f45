"""The command line, and what SageMaker says through SM_* variables where no flag is given."""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

from training.cluster import Cluster, read_cluster, sharded_channels
from training.errors import ArgumentError
from training.hyperparameters import Hyperparameters, describe, read_hyperparameters

SPLITS = ("train", "valid", "test")
_BASE = "/opt/ml"
_MOST_WORKERS = 64
_OF_SEVERAL: dict[str, tuple[type, str]] = {
    "processes_per_instance": (int, "processes that train one model together (default: one for each GPU)"),
    "join_timeout_seconds": (float, "how long to wait for the other instances to start (default 600)"),
    "rank_timeout_seconds": (float, "how long a process may be silent before all give up (default 40)"),
}


@dataclass(frozen=True, slots=True)
class Arguments:
    """All that a run is told: what to learn, from which folders, and where to put the outcome."""

    hyperparameters: Hyperparameters
    splits: dict[str, Path]
    weights_file: Path | None
    model_dir: Path
    output_data_dir: Path
    checkpoint_dir: Path | None
    checkpoint_seconds: float
    workers: int
    cluster: Cluster
    sharded: frozenset[str]


class _Parser(argparse.ArgumentParser):
    """A parser that gives up with one sentence instead of the usage and a sentence."""

    def error(self, message: str) -> NoReturn:
        raise ArgumentError(message)


def parse_arguments(argv: Sequence[str], environ: Mapping[str, str]) -> Arguments:
    """Return what the flags say, and the environment where they say nothing.

    Raises:
        ArgumentError: A flag is unknown, a value is out of range, or a folder is missing.
    """
    flags = {name: value for name, value in vars(_parser().parse_args(argv)).items() if value is not None}
    hyperparameters = read_hyperparameters(_given_hyperparameters(flags, environ))
    model_dir = Path(flags.get("model_dir") or environ.get("SM_MODEL_DIR") or "TrainedModels")
    cluster, sharded = read_cluster(flags, environ), _sharded(flags, environ)
    output = flags.get("output_data_dir") or environ.get("SM_OUTPUT_DATA_DIR") or model_dir
    return Arguments(
        hyperparameters=hyperparameters,
        splits={split: _split_folder(split, flags, environ, empty=split in sharded) for split in SPLITS},
        weights_file=_weights_file(hyperparameters.weights, environ),
        model_dir=model_dir,
        output_data_dir=Path(output),
        checkpoint_dir=_checkpoint_dir(flags, environ),
        checkpoint_seconds=flags.get("checkpoint_seconds", 60.0),
        workers=min(flags.get("workers") or _processors(cluster), _MOST_WORKERS),
        cluster=cluster,
        sharded=sharded,
    )


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m training.train",
        description="Train an image classifier from class folders. Every flag may be spelled with dashes too.",
        allow_abbrev=False,
    )
    for one in fields(Hyperparameters):
        parser.add_argument(*_spellings(one.name), help=describe(one))
    parser.add_argument("--data", help="folder that holds train, valid and test")
    for split in SPLITS:
        parser.add_argument(f"--{split}", help=f"folder of class folders (default SM_CHANNEL_{split.upper()})")
    parser.add_argument(*_spellings("model_dir"), help="default SM_MODEL_DIR, else TrainedModels")
    parser.add_argument(*_spellings("output_data_dir"), help="default SM_OUTPUT_DATA_DIR, else the model's folder")
    parser.add_argument(*_spellings("checkpoint_dir"), help="default /opt/ml/checkpoints where that exists")
    parser.add_argument(*_spellings("checkpoint_seconds"), type=float, help="time between checkpoints (default 60)")
    parser.add_argument("--workers", type=int, help="threads that read pictures (default: one per processor)")
    for name, (kind, what) in _OF_SEVERAL.items():
        parser.add_argument(*_spellings(name), type=kind, help=what)
    return parser


def _spellings(name: str) -> list[str]:
    return list(dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}")))


def _given_hyperparameters(flags: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, object]:
    """Return flags over SM_HPS; names in SM_HPS that are SageMaker's own are none of ours."""
    try:
        from_environment = json.loads(environ.get("SM_HPS") or "{}")
    except json.JSONDecodeError as error:
        msg = f"SM_HPS is not JSON: {error}"
        raise ArgumentError(msg) from error
    names = {one.name for one in fields(Hyperparameters)}
    unknown = sorted(name for name in set(from_environment) - names if not name.startswith(("sagemaker_", "_")))
    if unknown:
        msg = f"SM_HPS holds unknown hyperparameters: {', '.join(unknown)}"
        raise ArgumentError(msg)
    return {name: value for name, value in (from_environment | flags).items() if name in names}


def _sharded(flags: Mapping[str, str], environ: Mapping[str, str]) -> frozenset[str]:
    """Return the splits of which every host has other files; a folder that a flag names is no channel."""
    return frozenset(split for split in SPLITS if not {"data", split} & set(flags)) & sharded_channels(environ)


def _processors(cluster: Cluster) -> int:
    return max(1, (os.cpu_count() or 1) // cluster.processes_per_host)


def _split_folder(split: str, flags: Mapping[str, str], environ: Mapping[str, str], *, empty: bool) -> Path:
    """Return where a split is; of a channel that is cut into shards a host may have none at all."""
    data, variable = flags.get("data"), f"SM_CHANNEL_{split.upper()}"
    folder = flags.get(split) or (data and str(Path(data, split))) or environ.get(variable)
    if not folder:
        msg = f"no {split} pictures: give --data FOLDER or --{split} FOLDER, or set {variable}"
        raise ArgumentError(msg)
    if not Path(folder).is_dir() and not empty:
        msg = f"the folder of {split} pictures does not exist: {folder}"
        raise ArgumentError(msg)
    return Path(folder)


def _weights_file(weights: str, environ: Mapping[str, str]) -> Path | None:
    if weights in {"none", "imagenet"}:
        return None
    if weights == "channel":
        return _only_file(Path(environ.get("SM_CHANNEL_WEIGHTS", _BASE + "/input/data/weights")))
    if not Path(weights).is_file():
        msg = f"weights={weights} is none of none, imagenet, channel, nor a file on this machine"
        raise ArgumentError(msg)
    return Path(weights)


def _only_file(folder: Path) -> Path:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    if len(files) != 1:
        msg = f"weights=channel needs exactly one file in {folder}, there are {len(files)}"
        raise ArgumentError(msg)
    return files[0]


def _checkpoint_dir(flags: Mapping[str, str], environ: Mapping[str, str]) -> Path | None:
    """Return where checkpoints go; SageMaker makes its folder only for a job that wants them."""
    if "checkpoint_dir" in flags:
        return Path(flags["checkpoint_dir"])
    folder = Path(environ.get("SAGEMAKER_BASE_DIR", _BASE), "checkpoints")
    return folder if folder.is_dir() else None
