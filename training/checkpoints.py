"""Checkpoints: what a killed training needs to go on as if nothing had been."""

import hashlib
import json
import pickle
import time
from pathlib import Path
from typing import Any

import torch

from training.console import say
from training.files import replacing

_FILE = "checkpoint.pt"
_FORMAT = 1


def fingerprint_of(*contents: Any) -> str:
    """Return the digest of what must be equal for a checkpoint to fit."""
    return hashlib.sha256(json.dumps(contents, sort_keys=True, default=str).encode()).hexdigest()


class Checkpoints:
    """The one checkpoint in a folder, replaced as a whole every so many seconds; without a folder, none."""

    def __init__(self, folder: Path | None, every_seconds: float, fingerprint: str) -> None:
        self._file = folder / _FILE if folder else None
        self._every_seconds = every_seconds
        self._fingerprint = fingerprint
        self._last = time.monotonic()

    def due(self) -> bool:
        """Tell whether it is time for another."""
        return self._file is not None and time.monotonic() - self._last >= self._every_seconds

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint of tensors, numbers and text."""
        if self._file is None:
            return
        with replacing(self._file) as scratch:
            torch.save({"format": _FORMAT, "fingerprint": self._fingerprint, "state": state}, scratch)
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Return the state of the checkpoint if there is one for this very training; if not, say why not."""
        if self._file is None or not self._file.exists():
            return None
        try:
            held = torch.load(self._file, map_location="cpu", weights_only=True)
            state: dict[str, Any] = held["state"]
            fits = held["format"] == _FORMAT and held["fingerprint"] == self._fingerprint
        except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, LookupError, TypeError, ValueError) as error:
            say(f"The checkpoint {self._file} cannot be read ({type(error).__name__}): starting afresh")
            return None
        if not fits:
            say(f"The checkpoint {self._file} is of other hyperparameters or data: starting afresh")
        return state if fits else None
