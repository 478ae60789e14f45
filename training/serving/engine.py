"""What computes: a small seam, so that a faster engine can take this one's place."""

import os
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from .errors import ModelError


class Engine(Protocol):
    """Anything that turns a batch of pictures into probabilities."""

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return probabilities, (N, classes), for normalised pictures, (N, 3, H, W)."""


class OnnxEngine:
    """ONNX Runtime on the processor."""

    def __init__(self, file: Path, classes: int) -> None:
        """Load the network.

        Raises:
            ModelError: The file is missing or no network, or it knows another number of classes.
        """
        if not file.is_file():
            msg = f"the model package has no {file.name}: {file} is missing"
            raise ModelError(msg)
        self._session = _session(file)
        outputs = self._session.get_outputs()
        if len(outputs) != 1 or outputs[0].shape[-1] != classes:
            msg = f"{file} does not give one probability for each of the {classes} classes in model.json"
            raise ModelError(msg)
        self._input = self._session.get_inputs()[0].name

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return probabilities, (N, classes), for normalised pictures, (N, 3, H, W)."""
        (probabilities,) = self._session.run(None, {self._input: batch})
        answer: NDArray[np.float32] = probabilities
        return answer


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = processors()
    options.inter_op_num_threads = 1
    # Threads that spin while they wait take the processor away from the decoding of the next picture.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no base of their own
        msg = f"{file} is not a network that ONNX Runtime can load: {' '.join(str(error).split())}"
        raise ModelError(msg) from error
