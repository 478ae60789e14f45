"""The forms of the Prefect UI, which it makes from the schema of a flow's parameters: usable without reading code."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NO_FLOWS = ("__init__", "command_line", "steps")
FLOWS = sorted(path.stem for path in (ROOT / "flows").glob("*.py") if path.stem not in NO_FLOWS)
# What only the user knows; all else has a default.
KNOWN_TO_THE_USER = {
    "endpoint",
    "manifest",
    "model",
    "scaling",
    "scaling.schedule[].max_instances",
    "scaling.schedule[].min_instances",
    "scaling.schedule[].name",
    "scaling.schedule[].schedule",
    "scaling.target",
    "traffic",
    "traffic.peak_requests_per_second",
    "traffic.requests_per_second",
}

Schema = dict[str, Any]


@cache
def schema_of(name: str) -> Schema:
    """What Prefect makes of a flow when it is deployed."""
    from prefect.flows import load_flow_from_entrypoint
    from prefect.utilities.callables import parameter_schema

    flow = load_flow_from_entrypoint(str(ROOT / "flows" / f"{name}.py:{name}"), use_placeholder_flow=False)
    return dict(parameter_schema(flow).model_dump())


def resolved(node: Schema, schema: Schema) -> Schema:
    """A node with what it refers to; what it says itself goes before, as in the form."""
    if "$ref" not in node:
        return node
    return {**schema["definitions"][node["$ref"].rsplit("/", 1)[-1]], **node}


def alternatives(node: Schema, schema: Schema) -> list[Schema]:
    """The tabs of an optional field, or the one field that it is; without the empty tab."""
    nodes = [resolved(one, schema) for one in node.get("anyOf", [node])]
    return [one for one in nodes if one.get("type") != "null"]


def fields(node: Schema, schema: Schema, path: str = "") -> Iterator[tuple[str, Schema, bool]]:
    """Every field of a form at any depth: its path, its schema, and whether it must be filled in."""
    for name, value in node.get("properties", {}).items():
        field, where = resolved(value, schema), f"{path}{name}"
        yield where, field, name in node.get("required", ())
        for one in alternatives(field, schema):
            yield from fields(one, schema, f"{where}.")
            yield from fields(resolved(one.get("items", {}), schema), schema, f"{where}[].")


def leaves(node: Schema, schema: Schema) -> Iterator[Schema]:
    """What is typed or chosen in a field: itself, each tab, the items of a list."""
    for one in alternatives(node, schema):
        yield from leaves(resolved(one["items"], schema), schema) if one.get("type") == "array" else (one,)


@pytest.mark.parametrize("name", FLOWS)
def test_every_field_says_what_it_is(name: str) -> None:
    schema = schema_of(name)
    assert schema["properties"]
    for path, field, _ in fields(schema, schema):
        title, leaf = field.get("title", ""), path.rsplit(".", 1)[-1]
        assert title[:1].isupper(), path
        assert "_" not in title, path
        assert field.get("description"), path
        assert not leaf.endswith(("_seconds", "_gb", "_mb", "_ms", "_usd", "_percent", "_hours", "_days")) or (
            title.endswith(")")
        ), f"{path}: no unit in {title!r}"


@pytest.mark.parametrize("name", FLOWS)
def test_what_is_typed_has_limits(name: str) -> None:
    """Numbers have a least value; texts have a pattern or a least length, and a choice has its values."""
    schema = schema_of(name)
    for path, field, _ in fields(schema, schema):
        for leaf in leaves(field, schema):
            if leaf.get("type") in ("integer", "number"):
                assert {"enum", "minimum", "exclusiveMinimum"} & set(leaf), path
            elif leaf.get("type") == "string":
                assert {"enum", "pattern", "minLength", "const"} & set(leaf), path
            else:
                assert leaf.get("type") in ("boolean", "object"), path


@pytest.mark.parametrize("name", FLOWS)
def test_nothing_is_typed_as_json(name: str) -> None:
    """An object without fields of its own is a JSON editor in the form, and an open one takes misspelled keys."""
    schema = schema_of(name)
    objects = [leaf for _, field, _ in fields(schema, schema) for leaf in leaves(field, schema)]
    for one in (*objects, *schema["definitions"].values()):
        if one.get("type") == "object":
            assert one["properties"], one
            assert one["additionalProperties"] is False, one


@pytest.mark.parametrize("name", FLOWS)
def test_a_form_is_filled_in_but_for_what_only_the_user_knows(name: str) -> None:
    from prefect.utilities.schema_tools import validate

    schema, filled_in = schema_of(name), {}
    for path, field, required in fields(schema, schema):
        assert required == ("default" not in field), path
        assert not required or path in KNOWN_TO_THE_USER, path
        if not required:
            filled_in[path] = field
    form = {"type": "object", "properties": filled_in, "definitions": schema["definitions"]}
    validate({path: field["default"] for path, field in filled_in.items()}, form, raise_on_error=True)


def test_units_are_in_titles() -> None:
    from tasks.contracts import Value

    class Disk(Value):
        volume_gb: int
        most_usd: float
        idle_seconds: int
        seconds: int
        learning_rate: float

    titles = [one["title"] for one in Disk.model_json_schema()["properties"].values()]
    assert titles == ["Volume (GB)", "Most (dollars)", "Idle (seconds)", "Seconds", "Learning rate"]
