"""Flows' results where Prefect keeps them: JSON that says which contract it is, and nothing that runs when it is read.

Prefect's own JSON forgets what a StepResult is the result of, and its default is a pickle.
"""

import json
from collections.abc import Sequence
from types import ModuleType
from typing import Any, TypeVar
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterId
from prefect.serializers import JSONSerializer

from tasks import contracts
from tasks.aws import errors
from tasks.aws.errors import FlowsError, sentence_for
from tasks.contracts import Section, StepResult, Value

# By the name of this module, which Prefect writes beside each result: any process that has this project can read it.
_AS_JSON: JSONSerializer[Any] = JSONSerializer(jsonlib=__name__, object_encoder=None, object_decoder=None)
_Flow = TypeVar("_Flow", bound=Flow[..., Any])


def kept_as_json(flow: _Flow) -> _Flow:
    """Have a flow's result kept as JSON, where Prefect is told to keep results.

    Given to `@flow` itself, a serializer would also turn keeping on.
    """
    flow.result_serializer = _AS_JSON
    return flow


def dumps(value: object) -> str:
    """Return a result, or the error that there is instead, as JSON."""
    return json.dumps(_described(value))


def loads(text: str) -> Any:
    """Return what `dumps` was given; sections without their text, pictures without their bytes."""
    return _made(json.loads(text))


def restored(sections: Sequence[Section]) -> tuple[Section, ...]:
    """Return sections with their text: those of a kept result have left it in their artifacts."""
    lost = [one.artifact_id for one in sections if not one.markdown and one.artifact_id]
    if not lost:
        return tuple(sections)
    with get_client(sync_client=True) as api:
        found = api.read_artifacts(artifact_filter=ArtifactFilter(id=ArtifactFilterId(any_=lost)))
    below_title: dict[UUID | None, str] = {one.id: str(one.data).partition("\n\n")[2] for one in found}
    return tuple(
        one if one.markdown else one.model_copy(update={"markdown": below_title.get(one.artifact_id, "")})
        for one in sections
    )


def _described(value: object) -> dict[str, Any]:
    if isinstance(value, StepResult):
        sections = [one.model_dump(mode="json") for one in value.sections]
        return {"step": _described(value.result), "sections": sections}
    if isinstance(value, Value):
        return {"contract": type(value).__name__, "value": value.model_dump(mode="json", by_alias=True)}
    if isinstance(value, Exception):
        error = value if isinstance(value, FlowsError) else FlowsError(sentence_for(value))
        return {"error": type(error).__name__, "args": error.args}
    return {"plain": value}


def _made(described: dict[str, Any]) -> Any:
    if "step" in described:
        return StepResult(result=_made(described["step"]), sections=described["sections"])
    if "contract" in described:
        contract: type[Value] = _class(contracts, described["contract"], Value)
        return contract.model_validate(described["value"])
    if "error" in described:
        error: type[FlowsError] = _class(errors, described["error"], FlowsError)
        return error(*map(_frozen, described["args"]))
    return described["plain"]


def _class(module: ModuleType, name: str, base: type[Any]) -> Any:
    """Return the class of that name, if it is of the kind: whatever else a file may name is not called."""
    found = getattr(module, name, None)
    if isinstance(found, type) and issubclass(found, base):
        return found
    msg = f"A kept result names {name}, which is no {base.__name__} of this version: read it with the one that kept it"
    raise ValueError(msg)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
