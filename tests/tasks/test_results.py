"""Results as they are kept: what was returned comes back as the same contract, and reading makes nothing else."""

import importlib
import json
import pkgutil
from typing import Any

import pytest
from botocore.exceptions import ClientError
from prefect import Flow, Task

import flows
import tasks
from tasks import results
from tasks.aws.errors import CapacityError, DriftError, FlowsError, JobFailedError
from tasks.contracts import (
    EndpointAnswer,
    FrontResult,
    LabelledImage,
    PriceChange,
    PriceRefresh,
    SampleAnswer,
    Section,
    StepResult,
    TeardownResult,
)

CHANGE = PriceChange(kind="training", name="ml.m5.xlarge", old_usd=0.2, new_usd=0.23)
REFRESH = PriceRefresh(region="a", as_of="2026-11-23", before=None, listed=1, changes=(CHANGE,), added=0, gone=("b",))
SECTION = Section(key="prices", title="Prices", markdown="![a](data:image/png;base64,AAAA)")
FRONT = FrontResult(
    name="flows-front",
    arn="arn",
    version="2",
    previous_version=None,
    how="created",
    url="https://front",
    answers=(
        SampleAnswer(
            image=LabelledImage(name="a.png", label="a", body=b"picture"),
            answer=EndpointAnswer(label="a", probability=0.9, milliseconds=3, top_k=({"label": "a"},)),
        ),
    ),
)


def again(value: object) -> Any:
    return results.loads(results.dumps(value))


def members(package: Any, kind: type[Any]) -> dict[str, Any]:
    """Every object of a kind in the modules of a package, by its place."""
    modules = [
        importlib.import_module(f"{package.__name__}.{one.name}") for one in pkgutil.iter_modules(package.__path__)
    ]
    return {f"{m.__name__}.{name}": one for m in modules for name, one in vars(m).items() if isinstance(one, kind)}


@pytest.mark.parametrize("value", [REFRESH, TeardownResult(deleted=("a",), kept=()), None, "text", 1.5])
def test_what_was_returned_comes_back(value: object) -> None:
    assert again(value) == value
    assert type(again(value)) is type(value)


def test_a_step_comes_back_as_the_result_that_it_is_of() -> None:
    """Of a StepResult, Prefect's own JSON keeps only that it is one."""
    step = again(StepResult(result=REFRESH, sections=(SECTION,)))
    assert step.result == REFRESH
    assert StepResult[PriceRefresh].model_validate(step).result.changes[0].percent == pytest.approx(15)


def test_neither_pictures_nor_pages_are_in_it() -> None:
    text = results.dumps(StepResult(result=FRONT, sections=(SECTION,)))
    assert "base64" not in text
    assert "cGljdHVyZQ" not in text
    step = again(StepResult(result=FRONT, sections=(SECTION,)))
    assert (step.result.answers[0].image.name, step.result.answers[0].image.body) == ("a.png", b"")
    assert (step.sections[0].key, step.sections[0].markdown) == ("prices", "")


@pytest.mark.parametrize(
    "error",
    [
        FlowsError("a sentence"),
        CapacityError(("ml.m5.xlarge", "ml.c5.xlarge")),
        DriftError("flows-live", "slower"),
        JobFailedError("training job", "a-job", "Failed", "no memory", ("line 1", "line 2")),
    ],
)
def test_an_error_comes_back_with_its_facts(error: FlowsError) -> None:
    back = again(error)
    assert (type(back), back.args, str(back)) == (type(error), error.args, str(error))


def test_the_error_of_another_is_a_sentence() -> None:
    refused = ClientError({"Error": {"Code": "AccessDenied", "Message": "You may not"}}, "GetObject")
    back = again(refused)
    assert (type(back), str(back)) == (FlowsError, "AWS refused GetObject (AccessDenied): You may not")


@pytest.mark.parametrize(
    "described",
    [
        {"contract": "math", "value": {}},
        {"contract": "Annotated", "value": {}},
        {"contract": "no_such_thing", "value": {}},
        {"error": "ClientError", "args": ["a", "b"]},
        {"error": "sentence_for", "args": ["a"]},
    ],
)
def test_nothing_but_contracts_and_our_errors_is_made(described: dict[str, Any]) -> None:
    """Whoever can write where results are kept could otherwise have something called by who reads them."""
    with pytest.raises(ValueError, match="of this version"):
        results.loads(json.dumps(described))


def test_no_task_keeps_a_result_and_every_flow_keeps_json() -> None:
    """A job that a kept result says was started may have ended since: a run that is run again is to ask AWS."""
    every_task, every_flow = members(tasks, Task), members(flows, Flow)
    assert len(every_task) > 30
    assert [place for place, one in every_task.items() if one.persist_result is not False] == []
    assert len(every_flow) > 15
    assert [place for place, one in every_flow.items() if one.result_serializer != results._AS_JSON] == []
    assert [place for place, one in every_flow.items() if one.persist_result is not None] == []
