"""How good a network is: means per picture, whatever the batch size."""

from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.architectures import Network
from training.datasets import Pictures
from training.ranks import ALONE, Ranks
from training.report import Prediction, TestEvaluation
from training.serving.preprocessing import normalise

# Sums, not means: those of several batches and of several ranks add up.
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
    network: Network,
    pictures: Pictures,
    normalisation: Normalisation,
    batch_size: int,
    device: torch.device,
    *,
    ranks: Ranks = ALONE,
) -> tuple[float, float, NDArray[np.float32]]:
    """Return loss and accuracy per picture of all ranks, and the probabilities, (N, classes), of this rank's."""
    network.set_evaluation()
    sums, probabilities = no_sums(device), []
    for start in range(0, len(pictures) or 1, batch_size):  # of no pictures, one empty batch
        part = slice(start, start + batch_size)
        # The very function that serving uses.
        batch = normalise(pictures.images[part], normalisation.mean, normalisation.std)
        logits = network.module(torch.from_numpy(batch).to(device))
        sums += sums_of(logits, torch.from_numpy(pictures.labels[part]).to(device))
        probabilities.append(logits.softmax(dim=1).cpu().numpy())
    ranks.add_up(sums)
    return *means_of(sums), np.concatenate(probabilities)


def describe_test(
    pictures: Pictures,
    classes: tuple[str, ...],
    loss: float,
    accuracy: float,
    probabilities: NDArray[np.float32],
    *,
    ranks: Ranks = ALONE,
) -> TestEvaluation:
    """Return the evaluation on test, of all ranks' pictures, as the report holds it: sorted as one rank reads them."""
    predicted = probabilities.argmax(axis=1)
    own = [
        (int(label), file, int(guess), float(row[guess]))
        for file, label, guess, row in zip(pictures.files, pictures.labels, predicted, probabilities, strict=True)
    ]
    everywhere = [tuple(one) for rank in ranks.gather(own) for one in rank]
    everywhere.sort(key=lambda one: (one[0], PurePosixPath(one[1])))
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    for label, _, guess, _ in everywhere:
        confusion[label, guess] += 1
    predictions = [Prediction(file, classes[label], classes[guess], share) for label, file, guess, share in everywhere]
    return TestEvaluation(loss, accuracy, confusion.tolist(), predictions)
