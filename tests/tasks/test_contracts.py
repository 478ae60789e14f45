"""What a person may ask for: what makes no sense is refused with one sentence, before anything is created."""

from typing import Any

import pytest
from pydantic import ValidationError

from tasks.contracts import Ec2Compute, FloatRange, SearchSpace, TuningConfig


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"low": 0.01, "high": 0.001}, "low=0.01 must be less than high=0.001"),
        ({"low": 0.01, "high": 0.01}, "must be less than"),
        ({"low": 0, "high": 1, "scale": "log"}, "must be greater than 0 on a log scale"),
    ],
)
def test_a_range_goes_from_low_to_high(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        FloatRange(**wrong)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"strategy": "Hyperband", "early_stopping": True}, "Hyperband stops weak trials itself"),
        ({"strategy": "Grid", "trials": 8}, "the grid has 12 combinations"),
        ({"search": {"learning_rate": None, "batch_size": ()}}, "nothing is searched"),
        ({"search": {"batch_size": (32, 32)}}, "batch_size names a value twice"),
        ({"warm_start_from": "a name"}, "warm_start_from"),
    ],
)
def test_a_tuning_that_makes_no_sense_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TuningConfig(**wrong)


def test_a_grid_has_every_combination() -> None:
    space = SearchSpace(learning_rate=FloatRange(low=1, high=2, steps=5), batch_size=(1, 2), trainable=("head", "all"))
    assert space.grid_size == 20
    assert FloatRange(low=1, high=2, steps=5).grid() == pytest.approx((1, 1.25, 1.5, 1.75, 2))
    assert FloatRange(low=1, high=2, steps=1).grid() == (1,)


def test_sagemakers_machines_are_not_ec2s() -> None:
    with pytest.raises(ValidationError, match="instance_type"):
        Ec2Compute(instance_type="ml.m5.xlarge")
