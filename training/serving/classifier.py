"""A model package, loaded: labels, preprocessing and network together."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from .engine import Engine, OnnxEngine
from .errors import ModelError
from .preprocessing import Resize, decode, normalise

FORMAT = 1


class Candidate(TypedDict):
    """A class, and how probable it is in 0..1."""

    label: str
    probability: float


class Answer(TypedDict):
    """What the model says of a picture: the most probable class, and the runners-up, most probable first."""

    label: str
    probability: float
    top_k: list[Candidate]
    model_version: str


@dataclass(frozen=True, slots=True)
class Classifier:
    """Says what is on a picture."""

    engine: Engine
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Resize
    model_version: str

    def classify(self, data: bytes, top_k: int) -> Answer:
        """Answer for the bytes of one picture.

        Raises:
            ImageError: The bytes are no picture that can be read.
        """
        batch = normalise(decode(data, self.resize)[None], self.mean, self.std)
        probabilities = self.engine.predict(batch)[0]
        best = probabilities.argsort(kind="stable")[::-1][:top_k]
        candidates: list[Candidate] = [
            {"label": self.classes[index], "probability": float(probabilities[index])} for index in best
        ]
        return {**candidates[0], "top_k": candidates, "model_version": self.model_version}


def load_classifier(folder: Path) -> Classifier:
    """Load a model package.

    Raises:
        ModelError: The package is not complete, or not one of ours.
    """
    description = _description(folder / "model.json")
    try:
        classes = tuple(map(str, description["classes"]))
        resize = Resize(int(description["image_size"]), **description["resize"])
        mean, std = tuple(map(float, description["mean"])), tuple(map(float, description["std"]))
        version = str(description["model_version"])
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{folder / 'model.json'} is not as this serving code wants it: {error!r}"
        raise ModelError(msg) from error
    return Classifier(OnnxEngine(folder / "model.onnx", len(classes)), classes, mean, std, resize, version)


def _description(file: Path) -> Mapping[str, Any]:
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"the model package has no {file.name}: {file} cannot be read ({error.strerror})"
        raise ModelError(msg) from error
    except ValueError as error:
        msg = f"{file} is not JSON: {error}"
        raise ModelError(msg) from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        msg = f"{file} is not of format {FORMAT}, the one this serving code reads"
        raise ModelError(msg)
    return description
