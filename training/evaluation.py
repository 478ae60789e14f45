"""How good a network is: means per picture, whatever the batch size."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.architectures import Network
from training.datasets import Pictures
from training.report import Prediction, TestEvaluation
from training.serving.preprocessing import normalise

# Sums, not means: those of several batches (and, later, of several hosts) add up.
_LOSS, _CORRECT, _COUNT = range(3)


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Mean and standard deviation of each colour, in 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def no_sums(device: torch.device) -> Tensor:
    """Return the sums over no picture."""
    return torch.zeros(3, dtype=torch.float64, device=device)


def sums_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of losses, the number of right answers and of pictures, as one tensor."""
    loss = functional.cross_entropy(logits, labels, reduction="none").double().sum()
    correct = (logits.argmax(dim=1) == labels).sum()
    return torch.stack([loss, correct.double(), torch.full_like(loss, len(labels))])


def means_of(sums: Tensor) -> tuple[float, float]:
    """Return loss and accuracy per picture."""
    loss, correct, count = sums.tolist()
    return loss / count, correct / count


@torch.inference_mode()
def evaluate(
    network: Network, pictures: Pictures, normalisation: Normalisation, batch_size: int, device: torch.device
) -> tuple[float, float, NDArray[np.float32]]:
    """Return loss and accuracy per picture, and the probabilities, (N, classes), in the order of the pictures."""
    network.set_evaluation()
    sums, probabilities = no_sums(device), []
    for start in range(0, len(pictures), batch_size):
        part = slice(start, start + batch_size)
        # The very function that serving uses.
        batch = normalise(pictures.images[part], normalisation.mean, normalisation.std)
        logits = network.module(torch.from_numpy(batch).to(device))
        sums += sums_of(logits, torch.from_numpy(pictures.labels[part]).to(device))
        probabilities.append(logits.softmax(dim=1).cpu().numpy())
    return *means_of(sums), np.concatenate(probabilities)


def describe_test(
    pictures: Pictures, classes: tuple[str, ...], loss: float, accuracy: float, probabilities: NDArray[np.float32]
) -> TestEvaluation:
    """Return the evaluation on test as the report holds it."""
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (pictures.labels, predicted), 1)
    predictions = [
        Prediction(file, classes[label], classes[guess], float(row[guess]))
        for file, label, guess, row in zip(pictures.files, pictures.labels, predicted, probabilities, strict=True)
    ]
    return TestEvaluation(loss, accuracy, confusion.tolist(), predictions)
