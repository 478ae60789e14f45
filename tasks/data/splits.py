"""Split the pictures of one class into train, valid and test."""

import hashlib
from collections.abc import Iterable

from tasks.contracts import DatasetSpec, Split

_FEWEST_TO_SPLIT = 3


def assign_splits(keys: Iterable[str], spec: DatasetSpec) -> dict[str, Split]:
    """Return the split of each key of one class.

    Keys are ranked by a hash of seed and key, and the ranking is cut at the fractions. So every class keeps its shares
    exactly, the order of files does not matter, and a file that is added moves at most one other file over each cut.
    A class of three pictures or more has at least one in every split; a smaller one may be in train alone.
    """
    ranked = sorted(set(keys), key=lambda key: hashlib.sha256(f"{spec.seed}:{key}".encode()).digest())
    test, valid = _shares(len(ranked), spec)
    return {
        key: "test" if rank < test else "valid" if rank < test + valid else "train" for rank, key in enumerate(ranked)
    }


def _shares(total: int, spec: DatasetSpec) -> tuple[int, int]:
    fewest = 1 if total >= _FEWEST_TO_SPLIT else 0
    test = max(round(total * spec.test_fraction), fewest)
    valid = max(round(total * spec.valid_fraction), fewest)
    while test + valid >= total > 0:
        test, valid = (test - 1, valid) if test >= valid else (test, valid - 1)
    return test, valid
