"""The hyperparameters: their names, ranges and defaults, and how they are read from text."""

import json
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from training.errors import ArgumentError

ARCHITECTURES = (
    "small_cnn",
    "resnet18",
    "resnet50",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "convnext_tiny",
)


def _one_of(default: str, choices: tuple[str, ...], what: str) -> Any:
    return field(default=default, metadata={"what": what, "choices": choices})


def _number(default: float, what: str, **bounds: float) -> Any:
    return field(default=default, metadata={"what": what, "bounds": bounds})


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What decides the outcome of a training, besides the data."""

    architecture: str = _one_of("small_cnn", ARCHITECTURES, "network; small_cnn is made for tiny pictures")
    weights: str = field(
        default="none",
        metadata={"what": "starting point: none, imagenet, channel (the file in the channel `weights`), or a file"},
    )
    trainable: str = _one_of("all", ("head", "all"), "train the last layer only, or everything")
    epochs: int = _number(20, "most passes over the training data", ge=1, le=1000)
    patience: int = _number(5, "stop after so many epochs without better validation", ge=1, le=1000)
    batch_size: int = _number(64, "pictures per step, of all instances together: they share it", ge=1, le=8192)
    learning_rate: float = _number(0.003, "peak learning rate", gt=0, le=1)
    weight_decay: float = _number(0.0001, "decoupled weight decay", ge=0, le=1)
    image_size: int = _number(32, "side of the square the network sees, pixels", ge=8, le=1024)
    augmentation: float = _number(0.2, "strength of augmentation, 0 is none", ge=0, le=1)
    seed: int = _number(42, "seed of weights, order and augmentation", ge=0, lt=2**32)

    def __post_init__(self) -> None:
        if self.trainable == "head" and self.weights == "none":
            msg = "trainable=head needs weights to build on: choose weights=imagenet or trainable=all"
            raise ArgumentError(msg)
        if self.architecture == "small_cnn" and self.weights == "imagenet":
            msg = "small_cnn has no ImageNet weights: choose weights=none or another architecture"
            raise ArgumentError(msg)


_COMPARISONS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
_OUTSIDE = {
    "ge": lambda value, bound: not value >= bound,
    "gt": lambda value, bound: not value > bound,
    "le": lambda value, bound: not value <= bound,
    "lt": lambda value, bound: not value < bound,
}


def read_hyperparameters(given: Mapping[str, object]) -> Hyperparameters:
    """Return the hyperparameters; those not given have their defaults.

    Values are text of a command line or what SageMaker's JSON holds: both go the same way.

    Raises:
        ArgumentError: A value is no number, none of the choices, or out of its range.
    """
    known = {one.name: one for one in fields(Hyperparameters)}
    return Hyperparameters(**{name: _read(known[name], value) for name, value in given.items()})


def describe(one: "Field[Any]") -> str:
    """Return what a hyperparameter is, with its choices or range and its default."""
    if "choices" in one.metadata:
        extent = f"{', '.join(one.metadata['choices'])}; "
    elif "bounds" in one.metadata:
        extent = f"{_range(one)}; "
    else:
        extent = ""
    return f"{one.metadata['what']} ({extent}default {one.default})"


def _read(one: "Field[Any]", value: object) -> Any:
    text = value if isinstance(value, str) else json.dumps(value)
    if "choices" in one.metadata and text not in one.metadata["choices"]:
        msg = f"{one.name}={text} is none of {', '.join(one.metadata['choices'])}"
        raise ArgumentError(msg)
    return _read_number(one, text) if "bounds" in one.metadata else text


def _read_number(one: "Field[Any]", text: str) -> float:
    kind = int if isinstance(one.default, int) else float
    try:
        number = kind(text)
    except ValueError:
        msg = f"{one.name}={text} is no {'whole number' if kind is int else 'number'}: it must be {_range(one)}"
        raise ArgumentError(msg) from None
    if any(_OUTSIDE[comparison](number, bound) for comparison, bound in one.metadata["bounds"].items()):
        msg = f"{one.name}={text} is out of range: it must be {_range(one)}"
        raise ArgumentError(msg)
    return number


def _range(one: "Field[Any]") -> str:
    return " and ".join(f"{_COMPARISONS[how]} {bound}" for how, bound in one.metadata["bounds"].items())
