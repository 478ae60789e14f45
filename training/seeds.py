"""Where chance comes from: the state at any step follows from the seed and the step alone.

So a resumed run draws what the uninterrupted one drew, and no random state has to be in a checkpoint.
"""

import hashlib

import torch


def seed_everything(*where: int | str) -> None:
    """Set torch's generators, of every device, to what belongs to this place in the run."""
    torch.manual_seed(_derived(*where))


def order_of_epoch(count: int, seed: int, epoch: int, *holder: int) -> torch.Tensor:
    """Return the order in which an epoch goes through `count` pictures, the same on every machine.

    Args:
        count: How many pictures there are.
        seed: The training's.
        epoch: From 1.
        holder: The rank that has these pictures for itself, if one has.
    """
    return torch.randperm(count, generator=torch.Generator().manual_seed(_derived(seed, "order", epoch, *holder)))


def _derived(*where: int | str) -> int:
    digest = hashlib.sha256("/".join(map(str, where)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
