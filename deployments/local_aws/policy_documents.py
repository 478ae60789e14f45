"""IAM policy documents: JSON in, statements out.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_VERSIONS = ("2012-10-17", "2008-10-17")
_ELEMENTS = frozenset({"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"})


class PolicyError(Exception):
    """A document that is no identity policy."""


@dataclass(frozen=True)
class Condition:
    """One operator on one key: ``values`` are what the policy names."""

    operator: str
    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Patterns:
    """Action or Resource, or their Not-: what a statement is about, or all but that."""

    patterns: tuple[str, ...]
    negated: bool = False


@dataclass(frozen=True)
class Statement:
    """One statement of a document; ``has_variables`` as the document's version has."""

    effect: str
    actions: Patterns
    resources: Patterns
    conditions: tuple[Condition, ...] = ()
    sid: str = ""
    has_variables: bool = True


@lru_cache(maxsize=512)
def statements_of(document: str) -> tuple[Statement, ...]:
    """Return the statements of an identity policy.

    Raises:
        PolicyError: It is not one. What is not understood is never left out: it could be what denies.
    """
    try:
        policy = json.loads(document)
        version = policy.get("Version", "2008-10-17")
        if version not in _VERSIONS:
            msg = f"the version {version!r} is unknown"
            raise PolicyError(msg)
        statements = policy["Statement"]
        listed = [statements] if isinstance(statements, Mapping) else statements
        return tuple(_statement(one, has_variables=version == _VERSIONS[0]) for one in listed)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"the document is no policy: {error!r}"
        raise PolicyError(msg) from error


def _statement(statement: Mapping[str, Any], *, has_variables: bool) -> Statement:
    unknown = sorted(set(statement) - _ELEMENTS)
    if unknown:
        msg = f"an identity policy has no {', '.join(unknown)}"
        raise PolicyError(msg)
    if statement["Effect"] not in ("Allow", "Deny"):
        msg = f"the effect {statement['Effect']!r} is neither Allow nor Deny"
        raise PolicyError(msg)
    return Statement(
        effect=statement["Effect"],
        actions=_patterns(statement, "Action"),
        resources=_patterns(statement, "Resource"),
        conditions=tuple(
            Condition(operator, key, tuple(_text(value) for value in listed(values)))
            for operator, keys in statement.get("Condition", {}).items()
            for key, values in keys.items()
        ),
        sid=statement.get("Sid", ""),
        has_variables=has_variables,
    )


def _patterns(statement: Mapping[str, Any], element: str) -> Patterns:
    names = [name for name in (element, f"Not{element}") if name in statement]
    if len(names) != 1:
        msg = f"a statement has either {element} or Not{element}"
        raise PolicyError(msg)
    patterns = tuple(listed(statement[names[0]]))
    if not patterns or not all(isinstance(one, str) for one in patterns):
        msg = f"{names[0]} must be one or more strings"
        raise PolicyError(msg)
    return Patterns(patterns, negated=names[0] != element)


def listed(value: Any) -> Iterable[Any]:
    """Return one or many as many: JSON policies may leave the brackets of one out."""
    return value if isinstance(value, list) else [value]


def _text(value: object) -> str:
    """Return a condition's value as the text that it is compared as; JSON may hold true and 1."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    msg = f"a condition's value must be a string, not {value!r}"
    raise PolicyError(msg)
