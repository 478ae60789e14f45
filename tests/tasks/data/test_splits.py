from collections import Counter

import pytest

from tasks.contracts import DatasetSpec
from tasks.data.splits import assign_splits

KEYS = [f"file-{index}" for index in range(100)]


def test_a_class_is_cut_at_the_fractions() -> None:
    counts = Counter(assign_splits(KEYS, DatasetSpec(valid_fraction=0.15, test_fraction=0.25)).values())
    assert counts == {"train": 60, "valid": 15, "test": 25}


def test_the_order_of_files_does_not_matter() -> None:
    assert assign_splits(KEYS, DatasetSpec()) == assign_splits(reversed(KEYS), DatasetSpec())


def test_another_seed_splits_otherwise() -> None:
    assert assign_splits(KEYS, DatasetSpec(seed=1)) != assign_splits(KEYS, DatasetSpec(seed=2))


def test_an_added_file_moves_at_most_one_other_over_each_cut() -> None:
    """Who adds a picture does not want yesterday's training pictures in today's test."""
    before = assign_splits(KEYS, DatasetSpec())
    after = assign_splits([*KEYS, "new"], DatasetSpec())
    assert sum(before[key] != after[key] for key in KEYS) <= 2


@pytest.mark.parametrize("total", range(3, 12))
@pytest.mark.parametrize(("valid", "test"), [(0.01, 0.01), (0.2, 0.2), (0.5, 0.49), (0.05, 0.9)])
def test_three_pictures_are_enough_for_every_split(total: int, valid: float, test: float) -> None:
    spec = DatasetSpec(valid_fraction=valid, test_fraction=test)
    assert set(assign_splits(KEYS[:total], spec).values()) == {"train", "valid", "test"}


@pytest.mark.parametrize("total", [1, 2])
def test_a_tiny_class_is_always_in_train(total: int) -> None:
    spec = DatasetSpec(valid_fraction=0.09, test_fraction=0.9)
    assert "train" in assign_splits(KEYS[:total], spec).values()
