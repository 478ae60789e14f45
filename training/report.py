"""What a training says of itself: report.json in the output folder is this dataclass."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that is no readable picture: `split/class/name`, and why."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training data; losses and accuracies are means per picture.

    The training ones are taken while the network changes, with augmentation; `learning_rate` is that of the last step,
    `seconds` hold the validation too.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    valid_loss: float
    valid_accuracy: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the network says of one test picture, `class/name`."""

    file: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True, slots=True)
class TestEvaluation:
    """The one evaluation on test, with the weights that are kept; confusion has true rows and predicted columns."""

    __test__ = False  # for pytest, which takes classes named Test… for tests

    loss: float
    accuracy: float
    confusion: list[list[int]]
    predictions: list[Prediction]


@dataclass(frozen=True, slots=True)
class RanksReport:
    """Who trained together, rank by rank: `train_pictures` is how many of an epoch's pictures each took.

    The digests of the weights that each held at the end are equal, or there is no report; model_version begins them.
    """

    world_size: int
    hosts: list[str]
    processes_per_instance: int
    sharded: list[str]
    train_pictures: list[int]
    weights_digests: list[str]


@dataclass(frozen=True, slots=True)
class Report:
    """All numbers are finite, and of all ranks together; `seconds` are rank 0's.

    `images_per_second` counts training pictures over the seconds of the epochs.
    """

    classes: list[str]
    hyperparameters: dict[str, Any]
    device: str
    torch_version: str
    model_version: str
    counts: dict[str, int]
    skipped_files: list[SkippedFile]
    epochs: list[Epoch]
    best_epoch: int
    stopped_early: bool
    resumed_from_epoch: int | None
    test: TestEvaluation
    seconds: dict[str, float]
    images_per_second: float
    ranks: RanksReport
