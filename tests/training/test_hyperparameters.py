"""Hyperparameters: the contract of those who ask and the program that is asked are one."""

import dataclasses
from typing import get_args

import annotated_types
import pytest

from tasks import contracts
from training.arguments import parse_arguments
from training.errors import ArgumentError
from training.hyperparameters import ARCHITECTURES, Hyperparameters, read_hyperparameters

PROGRAM = {one.name: one for one in dataclasses.fields(Hyperparameters)}
CONTRACT = contracts.Hyperparameters.model_fields
KINDS = {"ge": annotated_types.Ge, "gt": annotated_types.Gt, "le": annotated_types.Le, "lt": annotated_types.Lt}


def test_program_and_contract_have_the_same_names_in_the_same_order() -> None:
    assert list(PROGRAM) == list(CONTRACT)


@pytest.mark.parametrize("name", PROGRAM)
def test_program_and_contract_have_the_same_default(name: str) -> None:
    assert PROGRAM[name].default == CONTRACT[name].default
    assert type(PROGRAM[name].default) is type(CONTRACT[name].default)


@pytest.mark.parametrize("name", PROGRAM)
def test_program_and_contract_have_the_same_range(name: str) -> None:
    bounds = {
        word: getattr(limit, word)
        for limit in CONTRACT[name].metadata
        for word, kind in KINDS.items()
        if isinstance(limit, kind)
    }
    assert dict(PROGRAM[name].metadata.get("bounds", {})) == bounds


def test_program_and_contract_have_the_same_choices() -> None:
    assert get_args(contracts.Architecture) == ARCHITECTURES
    assert PROGRAM["trainable"].metadata["choices"] == get_args(CONTRACT["trainable"].annotation)


@pytest.mark.parametrize(
    "impossible",
    [{"trainable": "head", "weights": "none"}, {"architecture": "small_cnn", "weights": "imagenet"}],
)
def test_program_and_contract_refuse_the_same_combinations(impossible: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="weights"):
        contracts.Hyperparameters.model_validate(impossible)
    with pytest.raises(ArgumentError, match="weights"):
        read_hyperparameters(impossible)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("epochs", "0", "epochs=0 is out of range: it must be at least 1 and at most 1000"),
        ("epochs", "2.5", "epochs=2.5 is no whole number: it must be at least 1 and at most 1000"),
        ("learning_rate", "0", "learning_rate=0 is out of range: it must be more than 0 and at most 1"),
        ("learning_rate", "nan", "learning_rate=nan is out of range: it must be more than 0 and at most 1"),
        ("learning_rate", "fast", "learning_rate=fast is no number: it must be more than 0 and at most 1"),
        ("trainable", "tail", "trainable=tail is none of head, all"),
    ],
)
def test_a_value_out_of_range_is_refused_in_one_sentence(name: str, value: str, sentence: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        read_hyperparameters({name: value})
    assert str(refused.value) == sentence


@pytest.mark.parametrize("value", ["3", 3])
def test_a_number_is_read_from_text_and_from_json(value: object) -> None:
    assert read_hyperparameters({"epochs": value}).epochs == 3


def test_every_hyperparameter_is_a_flag_in_both_spellings() -> None:
    for name, one in PROGRAM.items():
        for spelling in (f"--{name}", f"--{name.replace('_', '-')}"):
            flags = [spelling, str(one.default), "--data", "/"]
            with pytest.raises(ArgumentError, match="the folder of train pictures does not exist"):
                parse_arguments(flags, {})
