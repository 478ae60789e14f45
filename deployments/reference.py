"""The reference of the flows, written from their own signatures: docs/reference/flows.md.

python -m deployments.reference     writes it anew (make reference); a test says when that is due
"""

import importlib
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from prefect import Flow
from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel

from deployments.catalogue import ROOT, Deployment, load_deployments
from tasks.contracts import StepResult

PAGE = ROOT / "docs" / "reference" / "flows.md"
_HEAD = """# Flows and their parameters

<!-- Written by `make reference` from the signatures of the flows. Change those, and write it again. -->

Every flow is a command, a deployment, and a function. A parameter is an option of the command (`--dataset.source` for
the field `source` of `dataset`), a field of the form in the Prefect UI, and an argument in Python. A switch that is on
is turned off by its name with `no-` before it: `--no-tune`. Whatever the way, the same limits hold. What a flow returns
is a contract of [`tasks/contracts.py`](../../tasks/contracts.py).
"""
_GROUPS = """## Groups of parameters

The fields of a group are options too: `--hyperparameters.epochs 3`. Those that are not given keep their defaults.
"""
_LIMITS = {
    "exclusiveMinimum": "more than",
    "minimum": "at least",
    "exclusiveMaximum": "less than",
    "maximum": "at most",
}
_NAMED = {"integer": "whole number", "number": "number", "string": "text", "boolean": "yes or no", "null": "none"}
_LONG_PATTERN = 40

Schema = Mapping[str, Any]


def render() -> str:
    """Return the page: each flow with its parameters and its result, and each group of parameters once."""
    groups: dict[str, Schema] = {}
    sections = [_section(deployment, groups) for deployment in load_deployments()]
    tables = [_group(name, groups[name]) for name in sorted(groups)]
    return "\n".join([_HEAD, *sections, _GROUPS, *tables])


def _section(deployment: Deployment, groups: dict[str, Schema]) -> str:
    module, _, name = deployment.entrypoint.removesuffix(".py").replace("/", ".").replace(".py:", ":").partition(":")
    flow: Flow[..., Any] = getattr(importlib.import_module(module), name)
    schema = parameter_schema(flow).model_dump()
    groups |= schema["definitions"]
    fields = schema["properties"]
    required = schema.get("required", [])
    rows = [
        _row(_option(one), _titled(fields[one.name], groups), required=one.name in required)
        for one in inspect.signature(flow.fn).parameters.values()
    ]
    parts = [
        f"## {name}",
        str(inspect.getdoc(flow.fn)).partition("\n\nArgs:")[0],
        f"    python -m {module}{''.join(f' {word}' for word in _positional(flow, required))}",
        f"Deployment `{flow.name}/{deployment.name}`.",
        _table(rows, "parameter"),
        f"Returns {_result(flow)}",
    ]
    return "\n\n".join(parts) + "\n"


def _group(name: str, schema: Schema) -> str:
    required = schema.get("required", [])
    rows = [_row(f"`{field}`", one, required=field in required) for field, one in schema["properties"].items()]
    what = str(schema.get("description", "")).strip()
    return "\n\n".join([f"### {name}", *([what] if what else []), _table(rows, "field")]) + "\n"


def _positional(flow: Flow[..., Any], required: list[str]) -> Iterator[str]:
    """Return the words of the command: what has to be said, in its order."""
    for one in inspect.signature(flow.fn).parameters.values():
        if one.kind is not inspect.Parameter.KEYWORD_ONLY:
            yield one.name.upper() if one.name in required else f"[{one.name.upper()}]"


def _option(parameter: inspect.Parameter) -> str:
    dashed = f"`--{parameter.name.replace('_', '-')}`"
    return dashed if parameter.kind is inspect.Parameter.KEYWORD_ONLY else f"`{parameter.name.upper()}` or {dashed}"


def _titled(schema: Schema, groups: Mapping[str, Schema]) -> Schema:
    """Return a parameter with the title that a form shows: its own, or that of its group."""
    group = str(schema.get("$ref", "")).rpartition("/")[2]
    return schema if "title" in schema or not group else {**schema, "title": groups[group].get("title", "")}


def _row(name: str, schema: Schema, *, required: bool) -> list[str]:
    default = "required" if required else _default(schema.get("default"))
    title, what = str(schema.get("title", "")), str(schema.get("description", ""))
    return [name, title, _kind(schema), default, " ".join(what.split())]


def _table(rows: list[list[str]], first: str) -> str:
    head = [first, "in the form", "values", "default", "what it is"]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _default(value: Any) -> str:
    """Return a default; one of a group stands with its fields."""
    if value is None or value == []:
        return "none"
    if isinstance(value, dict):
        return "as below"
    if isinstance(value, list):
        return ", ".join(f"`{one}`" for one in value)
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


def _kind(schema: Schema) -> str:
    """Return what values a parameter takes."""
    if "$ref" in schema or "allOf" in schema:
        name = (schema.get("$ref") or schema["allOf"][0]["$ref"]).rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return ", or ".join(_kind(one) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{one}`" for one in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of: {_kind(schema['items'])}"
    return ", ".join([_NAMED[schema["type"]], *_limits(schema)])


def _limits(schema: Schema) -> Iterator[str]:
    for key, words in _LIMITS.items():
        if key in schema:
            yield f"{words} {schema[key]}"
    if schema.get("minLength"):
        yield "not empty"
    if len(schema.get("pattern", "")) > _LONG_PATTERN:
        yield "of a certain form"
    elif "pattern" in schema:
        yield f"like `{schema['pattern']}`"


def _result(flow: Flow[..., Any]) -> str:
    """Return which contract a flow returns, and what is in it."""
    returned = inspect.signature(flow.fn).return_annotation
    result = _contract(returned)
    fields = ", ".join(f"`{name}`" for name in [*result.model_fields, *_properties(result)])
    kind = f"`{result.__name__}`" if returned is result else f"`StepResult[{result.__name__}]`"
    what = str(inspect.getdoc(result)).partition("\n")[0]
    where = "" if returned is result else " It is in `result`, and the parts of the report that show it in `sections`."
    return f"{kind}: {what[:1].lower()}{what[1:]}{where} Fields: {fields}."


def _contract(returned: Any) -> type[BaseModel]:
    metadata = getattr(returned, "__pydantic_generic_metadata__", {})
    if metadata.get("origin") is StepResult:
        (inner,) = metadata["args"]
        contract: type[BaseModel] = inner
        return contract
    plain: type[BaseModel] = get_args(returned)[0] if get_origin(returned) else returned
    return plain


def _properties(contract: type[BaseModel]) -> list[str]:
    return [name for name, value in vars(contract).items() if isinstance(value, property) and name[0] != "_"]


def main() -> int:
    """Write the page; return the exit code."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(render(), encoding="utf-8")
    sys.stdout.write(f"{PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
