"""The conditions of a policy: does what a request carries fulfil them?

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-logic-multiple-context-keys-or-values.html
"""

import ipaddress
import operator as operators
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, TypeVar

from deployments.local_aws.policy_documents import Condition

Context = Mapping[str, tuple[str, ...]]
"""What a request carries, by condition key in lower case. No values: the request has none under that key. A key that
ends with a slash says the same of every key that begins so. A key that is not here at all is not known."""

_Comparison = Callable[[str, str], bool]
_Value = TypeVar("_Value")
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_ARN_PARTS = 6
# What a variable brought stands for itself. No policy can hold these: IAM takes characters up to U+00FF.
_PLAIN = str.maketrans({"*": "\ue000", "?": "\ue001"})
_TOKENS = {"*": ".*", "?": ".", "\ue000": r"\*", "\ue001": r"\?"}


class CannotEvaluateError(Exception):
    """The local AWS does not know an operator, or what a key's value is."""


class NoValueError(Exception):
    """A policy variable stands for a key that the request does not carry: its statement is not about this request."""


def holds(condition: Condition, context: Context, *, has_variables: bool = True) -> bool:
    """Return whether the request fulfils the condition.

    Raises:
        CannotEvaluateError: Its operator or its key is not known here.
        NoValueError: It has a variable without a value.
    """
    quantifier, name, if_exists = _parts(condition.operator)
    actual = values_of(condition.key, context)
    if name == "null":
        return any((value.lower() == "true") == (not actual) for value in condition.values)
    if name not in _OPERATORS:
        msg = f"the condition operator {condition.operator}"
        raise CannotEvaluateError(msg)
    compare, negated, takes_wildcards = _OPERATORS[name]
    expected = condition.values
    if has_variables:
        expected = tuple(resolved(value, context, in_pattern=takes_wildcards) for value in expected)

    def fits(value: str) -> bool:
        return any(compare(value, one) for one in expected) != negated

    return _quantified(quantifier, condition.key, actual, fits, if_missing=if_exists or negated)


def _quantified(
    quantifier: str, key: str, actual: tuple[str, ...], fits: Callable[[str], bool], *, if_missing: bool
) -> bool:
    if quantifier == "forallvalues":
        return all(fits(value) for value in actual)
    if quantifier == "foranyvalue":
        return any(fits(value) for value in actual)
    if not actual:
        return if_missing
    if len(actual) > 1:
        msg = f"the condition key {key}, which has several values, without ForAllValues or ForAnyValue"
        raise CannotEvaluateError(msg)
    return fits(actual[0])


def _parts(operator: str) -> tuple[str, str, bool]:
    """Return quantifier, operator and whether IfExists of such as ForAllValues:StringLikeIfExists, in lower case."""
    quantifier, colon, name = operator.lower().rpartition(":")
    if colon and quantifier not in ("forallvalues", "foranyvalue"):
        msg = f"the condition operator {operator}"
        raise CannotEvaluateError(msg)
    return quantifier, name.removesuffix("ifexists"), name.endswith("ifexists")


def values_of(key: str, context: Context) -> tuple[str, ...]:
    """Return what the request carries under the key; nothing where it is known to carry nothing.

    Raises:
        CannotEvaluateError: The key is not known here.
    """
    name = key.lower()
    family = f"{name.partition('/')[0]}/"
    if name in context:
        return context[name]
    if family in context and len(name) > len(family):
        return ()
    msg = f"the condition key {key}"
    raise CannotEvaluateError(msg)


def resolved(pattern: str, context: Context, *, in_pattern: bool) -> str:
    """Return the text with its policy variables replaced; in a pattern, their values stand for themselves.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html

    Raises:
        CannotEvaluateError: A variable is not known here.
        NoValueError: The request has no value for one, and the policy no default.
    """

    def value(found: re.Match[str]) -> str:
        text = found[1] if found[1] in ("*", "?", "$") else _variable(found[1], context)
        return text.translate(_PLAIN) if in_pattern else text

    return _VARIABLE.sub(value, pattern)


def _variable(text: str, context: Context) -> str:
    key, comma, default = (part.strip() for part in text.partition(","))
    values = values_of(key, context)
    if len(values) == 1:
        return values[0]
    if comma and not values:
        return default.strip("'")
    raise NoValueError(key)


def like(value: str, pattern: str, *, ignore_case: bool = False) -> bool:
    """Return whether the text is as the pattern says: * for any characters, ? for one."""
    return _compiled(pattern, ignore_case).fullmatch(value) is not None


@lru_cache(maxsize=4096)
def _compiled(pattern: str, ignore_case: bool) -> re.Pattern[str]:  # noqa: FBT001 - cached by position
    translated = "".join(_TOKENS.get(character) or re.escape(character) for character in pattern)
    return re.compile(translated, re.DOTALL | (re.IGNORECASE if ignore_case else 0))


def arn_like(arn: str, pattern: str) -> bool:
    """Return whether an ARN is as the pattern says, part by part: no wildcard reaches over into the next.

    The last part is all that comes after the fifth colon. A wildcard at the very end of a pattern with fewer parts
    stands for all that comes then.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_resource.html
    """
    wanted, given = (text.split(":", _ARN_PARTS - 1) for text in (pattern, arn))
    if len(wanted) < len(given) and pattern.endswith("*"):
        return all(map(like, [*given[: len(wanted) - 1], ":".join(given[len(wanted) - 1 :])], wanted))
    return len(wanted) == len(given) and all(map(like, given, wanted))


def _converted(convert: Callable[[str], _Value], compare: Callable[[_Value, _Value], bool]) -> _Comparison:
    def compare_converted(value: str, expected: str) -> bool:
        try:
            return compare(convert(value), convert(expected))
        except (ValueError, ArithmeticError, OSError):  # what is no number, or no time, equals none
            return False

    return compare_converted


def _time(text: str) -> datetime:
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return datetime.fromtimestamp(float(text), UTC)
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _in_network(address: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


_ORDERS: dict[str, tuple[Callable[[Any, Any], bool], bool]] = {
    "equals": (operators.eq, False),
    "notequals": (operators.eq, True),
    "lessthan": (operators.lt, False),
    "lessthanequals": (operators.le, False),
    "greaterthan": (operators.gt, False),
    "greaterthanequals": (operators.ge, False),
}
# By name: how the request's value is compared with the policy's, whether negated, whether the policy's is a pattern.
_OPERATORS: dict[str, tuple[_Comparison, bool, bool]] = {
    "stringequals": (operators.eq, False, False),
    "stringnotequals": (operators.eq, True, False),
    "stringequalsignorecase": (lambda value, expected: value.lower() == expected.lower(), False, False),
    "stringnotequalsignorecase": (lambda value, expected: value.lower() == expected.lower(), True, False),
    "stringlike": (like, False, True),
    "stringnotlike": (like, True, True),
    # ArnEquals and ArnLike behave identically.
    "arnequals": (arn_like, False, True),
    "arnlike": (arn_like, False, True),
    "arnnotequals": (arn_like, True, True),
    "arnnotlike": (arn_like, True, True),
    "bool": (lambda value, expected: value.lower() == expected.lower(), False, False),
    "ipaddress": (_in_network, False, False),
    "notipaddress": (_in_network, True, False),
    **{f"numeric{name}": (_converted(Decimal, order), negated, False) for name, (order, negated) in _ORDERS.items()},
    **{f"date{name}": (_converted(_time, order), negated, False) for name, (order, negated) in _ORDERS.items()},
}
