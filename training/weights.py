"""Where a network starts from: weights out of a file, or ImageNet's. Nothing is ever unpickled."""

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.architectures import SMALL_CNN, Network, Preprocessing, imagenet_preprocessing, imagenet_state
from training.errors import WeightsError
from training.hyperparameters import Hyperparameters
from training.serving.preprocessing import Resize

_METADATA_KEY = "model"
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class StartingWeights:
    """Tensors by name, what pictures must look like for them, and the classes of their head where that is known."""

    tensors: dict[str, Tensor]
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None = None


def read_starting_weights(chosen: Hyperparameters, file: Path | None) -> StartingWeights:
    """Return the weights that the hyperparameters ask for; none at all for a network that starts from nothing.

    Raises:
        WeightsError: The file holds no weights that can be read without unpickling.
    """
    if file is not None:
        return _from_file(file, chosen)
    if chosen.weights == "none":
        return StartingWeights({}, Preprocessing(Resize(chosen.image_size)))
    preprocessing = imagenet_preprocessing(chosen.architecture, chosen.image_size)
    return StartingWeights(imagenet_state(chosen.architecture), preprocessing)


def load_into(network: Network, weights: StartingWeights, classes: tuple[str, ...]) -> str:
    """Put the weights into the network, and return a sentence on what its head starts from.

    Raises:
        WeightsError: The weights are another network's.
    """
    own = network.module.state_dict()
    head = {name for name in own if name.startswith(f"{network.head_name}.")}
    fresh = _fresh_head_reason(own, weights, head, classes)
    given = {name: tensor for name, tensor in weights.tensors.items() if not (fresh and name in head)}
    _check_fit(own, given, head if fresh else set())
    network.module.load_state_dict(given, strict=False)
    return f"{fresh}: the head starts fresh" if fresh else "The head starts from the weights too"


def save_weights(path: Path, tensors: dict[str, Tensor], description: dict[str, Any]) -> None:
    """Write weights with what they need to be used again."""
    from safetensors.torch import save  # noqa: PLC0415 - only where it is needed

    # One key: several would be written in any order, and equal models be unequal files.
    path.write_bytes(save(tensors, metadata={_METADATA_KEY: json.dumps(description, sort_keys=True)}))


def _from_file(file: Path, chosen: Hyperparameters) -> StartingWeights:
    tensors, described = _read_safetensors(file) if file.suffix == ".safetensors" else (_read_torch(file), "")
    if described:
        return _described(file, tensors, described, chosen.image_size)
    if chosen.architecture == SMALL_CNN:
        return StartingWeights(tensors, Preprocessing(Resize(chosen.image_size)))
    return StartingWeights(tensors, imagenet_preprocessing(chosen.architecture, chosen.image_size))


def _described(file: Path, tensors: dict[str, Tensor], description: str, image_size: int) -> StartingWeights:
    """Return weights that a training of ours wrote: with them comes what pictures must look like."""
    try:
        model = json.loads(description)
        resize = Resize(image_size, float(model["resize"]["crop"]), str(model["resize"]["interpolation"]))
        mean, std = tuple(map(float, model["mean"])), tuple(map(float, model["std"]))
        classes = tuple(map(str, model["classes"]))
    except (KeyError, TypeError, ValueError) as error:
        msg = f"the weights in {file} say of themselves what cannot be understood: {error!r}"
        raise WeightsError(msg) from error
    return StartingWeights(tensors, Preprocessing(resize, mean, std), classes)


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], str]:
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - only where it is needed

    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no dict
    except (SafetensorError, OSError) as error:
        msg = f"the weights in {file} cannot be read: {error}"
        raise WeightsError(msg) from error
    return tensors, metadata.get(_METADATA_KEY, "")


def _read_torch(file: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, LookupError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        msg = f"the weights in {file} cannot be read as tensors alone: {reason}"
        raise WeightsError(msg) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        msg = f"{file} holds no weights: it should map names to tensors"
        raise WeightsError(msg)
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def _fresh_head_reason(
    own: dict[str, Tensor], weights: StartingWeights, head: set[str], classes: tuple[str, ...]
) -> str | None:
    given = {name: weights.tensors[name] for name in head & set(weights.tensors)}
    if set(given) != head:
        return "The weights have no head"
    if any(given[name].shape != own[name].shape for name in head):
        count = next(iter(given.values())).shape[0]
        return f"The weights know {count} classes, this dataset has {len(classes)}"
    if weights.classes is not None and weights.classes != classes:
        return "The weights know other classes than this dataset has"
    return None


def _check_fit(own: dict[str, Tensor], given: dict[str, Tensor], fresh: set[str]) -> None:
    missing = [name for name in own if name not in given and name not in fresh and "num_batches_tracked" not in name]
    wrong = [name for name, tensor in given.items() if name not in own or own[name].shape != tensor.shape]
    strange = missing + wrong
    if strange:
        shown = ", ".join(strange[:_SHOWN])
        counts = f"{len(missing)} tensors are missing and {len(wrong)} do not fit"
        msg = f"the weights are another network's: {counts} ({shown})"
        raise WeightsError(msg)
