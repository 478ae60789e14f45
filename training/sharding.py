"""Who learns from which picture in which step: pure functions, the same answer on every rank.

The global batch is `batch_size`, whatever the number of ranks: they share it. So the learning rate belongs to the
batch and not to the number of machines, and more machines change the time that an epoch takes, not its outcome.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from training.seeds import order_of_epoch


@dataclass(frozen=True, slots=True)
class Part:
    """One rank's part of a global batch of `count` pictures.

    `places` are those of the pictures among the rank's own; `first` is the place of the first in the global batch.
    """

    places: Tensor
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Share:
    """What this rank has of a split's pictures.

    `held` says how many each rank holds. With `common` that is all of them, the same everywhere, and each rank takes
    its slice of every batch; without, each rank has its own and takes from them in proportion, however few they are.
    """

    held: tuple[int, ...]
    rank: int = 0
    common: bool = True

    @property
    def total(self) -> int:
        """Return the number of pictures, each counted once."""
        return self.held[0] if self.common else sum(self.held)

    def parts(self, batch_size: int, seed: int, epoch: int) -> list[Part]:
        """Return this rank's part of each batch of an epoch: over all ranks each picture exactly once.

        Batches are of nearly equal size: BatchNorm cannot take a last one of a single picture.
        """
        steps = math.ceil(self.total / batch_size)
        if self.common:
            batches = order_of_epoch(self.total, seed, epoch).tensor_split(steps)
            return [self._slice(batch) for batch in batches]
        own = order_of_epoch(self.held[self.rank], seed, epoch, self.rank).tensor_split(steps)
        return [self._taken(places, steps, step) for step, places in enumerate(own)]

    def taken_by_rank(self, batch_size: int) -> list[int]:
        """Return how many pictures of an epoch each rank takes."""
        if not self.common:
            return list(self.held)
        steps = math.ceil(self.total / batch_size)
        sizes = [self.total // steps + (step < self.total % steps) for step in range(steps)]
        ranks = len(self.held)
        return [sum(size // ranks + (rank < size % ranks) for size in sizes) for rank in range(ranks)]

    def _slice(self, batch: Tensor) -> Part:
        slices = batch.tensor_split(len(self.held))
        return Part(slices[self.rank], sum(map(len, slices[: self.rank])), len(batch))

    def _taken(self, places: Tensor, steps: int, step: int) -> Part:
        # As tensor_split does it: the first ones are one longer.
        taken = [held // steps + (step < held % steps) for held in self.held]
        return Part(places, sum(taken[: self.rank]), sum(taken))
