"""What a person may ask for: what makes no sense is refused with one sentence, before anything is created."""

from typing import Any

import pytest
from pydantic import ValidationError

from tasks.contracts import Ec2Compute, FloatRange, LearningRateRange, SearchSpace, TuningConfig


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


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"learning_rate": {"high": 50}}, r"learning_rate\.high\s+Input should be less than or equal to 1"),
        ({"learning_rate": {"low": 0, "scale": "linear"}}, r"learning_rate\.low\s+Input should be greater than 0"),
        ({"weight_decay": {"high": 1.5}}, r"weight_decay\.high\s+Input should be less than or equal to 1"),
        ({"augmentation": {"low": -1}}, r"augmentation\.low\s+Input should be greater than or equal to 0"),
        ({"augmentation": {"high": 9}}, r"augmentation\.high\s+Input should be less than or equal to 1"),
        ({"batch_size": (32, 0)}, r"batch_size\.1\s+Input should be greater than or equal to 1"),
        ({"batch_size": (100_000,)}, r"batch_size\.0\s+Input should be less than or equal to 8192"),
    ],
)
def test_what_no_training_takes_is_not_searched(wrong: dict[str, Any], words: str) -> None:
    """Each such trial would be launched, billed, and fail."""
    with pytest.raises(ValidationError, match=words):
        SearchSpace.model_validate(wrong)


def test_a_range_needs_no_more_than_what_is_different() -> None:
    space = SearchSpace.model_validate({"learning_rate": {"high": 0.5}, "weight_decay": {}, "augmentation": {}})
    assert {name: (one.low, one.high, one.scale) for name, one in space.ranges.items()} == {
        "learning_rate": (0.0005, 0.5, "log"),
        "weight_decay": (0.00001, 0.1, "log"),
        "augmentation": (0, 0.5, "linear"),
    }
    assert SearchSpace.model_validate({"learning_rate": None}).names == ("batch_size",)


def test_the_form_shows_where_a_range_may_lie() -> None:
    """Prefect's forms are made of this schema, and its server checks parameters against it."""
    ranges = TuningConfig.model_json_schema()["$defs"]
    limits = {name: ranges["LearningRateRange"]["properties"]["high"][name] for name in ("exclusiveMinimum", "maximum")}
    assert limits == {"exclusiveMinimum": 0, "maximum": 1}
    assert "required" not in ranges["LearningRateRange"]
    assert ranges["SearchSpace"]["properties"]["learning_rate"]["anyOf"][1] == {"type": "null"}


def test_a_grid_has_every_combination() -> None:
    space = SearchSpace(learning_rate=LearningRateRange(steps=5), batch_size=(1, 2), trainable=("head", "all"))
    assert space.grid_size == 20
    assert FloatRange(low=1, high=2, steps=5).grid() == pytest.approx((1, 1.25, 1.5, 1.75, 2))
    assert FloatRange(low=1, high=2, steps=1).grid() == (1,)


def test_sagemakers_machines_are_not_ec2s() -> None:
    with pytest.raises(ValidationError, match="instance_type"):
        Ec2Compute(instance_type="ml.m5.xlarge")
