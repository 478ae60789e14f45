"""Whether identity policies allow a request: explicit deny wins, and what nobody allows is denied.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from deployments.local_aws.policy_conditions import (
    CannotEvaluateError,
    Context,
    NoValueError,
    arn_like,
    holds,
    like,
    resolved,
)
from deployments.local_aws.policy_documents import Patterns, PolicyError, Statement, statements_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Access:
    """One action on one resource, and what the request carries besides."""

    action: str
    resource: str = "*"
    context: Context = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """The outcome; ``unclear`` are the parts of the policies that the local AWS could not evaluate."""

    allowed: bool
    is_explicit: bool = False
    unclear: tuple[str, ...] = ()


def evaluate(documents: Iterable[str], access: Access) -> Decision:
    """Decide by all documents together.

    What cannot be evaluated never helps: a statement that would allow does not, one that would deny does.
    """
    allowed, unclear = False, []
    try:
        statements = [statement for document in documents for statement in statements_of(document)]
    except PolicyError as error:
        _log.error("%s: a policy cannot be read, so it denies: %s", access.action, error)
        return Decision(allowed=False, unclear=(str(error),))
    for statement in statements:
        try:
            applies = _applies(statement, access)
        except CannotEvaluateError as error:
            unclear.append(str(error))
            _log.warning(
                "%s on %s: the local AWS cannot evaluate %s, so the statement %s %s",
                access.action,
                access.resource,
                error,
                statement.sid or "without a Sid",
                "denies" if statement.effect == "Deny" else "does not allow",
            )
            applies = statement.effect == "Deny"
        if applies and statement.effect == "Deny":
            return Decision(allowed=False, is_explicit=True, unclear=tuple(unclear))
        allowed = allowed or applies
    return Decision(allowed, unclear=tuple(unclear))


def _applies(statement: Statement, access: Access) -> bool:
    if not _is_about_action(statement.actions, access.action):
        return False
    try:
        return _is_about_resource(statement, access) and all(
            holds(one, access.context, has_variables=statement.has_variables) for one in statement.conditions
        )
    except NoValueError:
        return False


def _is_about_action(actions: Patterns, action: str) -> bool:
    return any(like(action, pattern, ignore_case=True) for pattern in actions.patterns) != actions.negated


def _is_about_resource(statement: Statement, access: Access) -> bool:
    patterns = statement.resources.patterns
    if statement.has_variables:
        patterns = tuple(resolved(pattern, access.context, in_pattern=True) for pattern in patterns)
    found = any(pattern == "*" or arn_like(access.resource, pattern) for pattern in patterns)
    return found != statement.resources.negated
