"""Who used which action on which resource: recorded as it happens, and told as the smallest policy that would do."""

import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deployments.local_aws.policy_conditions import like
from deployments.local_aws.policy_documents import statements_of

RECORD_FILE = "access.jsonl"

# What is different in every run, by the resource that it is part of.
_GENERATED = (
    (re.compile(r"^(arn:aws:s3:::[^/]+/[^/]+/).+$"), r"\1*"),
    (re.compile(r"^(arn:aws:sagemaker:[^/]+/).+$"), r"\1*"),
    (re.compile(r"^(arn:aws:ec2:[^:]*:[^:]*:(?!security-group/)[^:/]+/).+$"), r"\1*"),
    (re.compile(r"^(arn:aws:logs:.+:log-group:/aws/sagemaker/Endpoints)/.+$"), r"\1/*"),
    (re.compile(r"^(arn:aws:logs:.+:log-group:[^:]+):log-stream:.*$"), r"\1:*"),
    (re.compile(r"^(arn:aws:ssm:.+:parameter/aws/service/[^/]+/).+$"), r"\1*"),
)


@dataclass(frozen=True)
class Use:
    """One action of one principal on one resource, and whether it was allowed."""

    principal: str
    action: str
    resource: str
    allowed: bool


class UseRecord:
    """The uses of a run, each once: in memory, and as lines of JSON in a file that begins with the run."""

    def __init__(self, path: Path) -> None:
        self._uses: set[Use] = set()
        self._lock = threading.Lock()
        path.unlink(missing_ok=True)
        # Kept open, and written line by line: every object of a dataset is a use of its own.
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def add(self, principal: str, action: str, resource: str, *, allowed: bool) -> None:
        """Record a use."""
        use = Use(principal, action, resource, allowed)
        with self._lock:
            if use not in self._uses:
                self._uses.add(use)
                self._file.write(f"{json.dumps(asdict(use))}\n")

    @property
    def uses(self) -> frozenset[Use]:
        """Everything recorded so far."""
        with self._lock:
            return frozenset(self._uses)


def read_uses(path: Path) -> frozenset[Use]:
    """Return the uses in a file; none when there is no file."""
    if not path.exists():
        return frozenset()
    return frozenset(Use(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())


def principals_like(uses: Iterable[Use], part: str) -> list[str]:
    """Return the principals whose names have the text in them, whatever its case."""
    return sorted({use.principal for use in uses if part.lower() in use.principal.lower()})


def minimal_policy(uses: Iterable[Use], principal: str) -> dict[str, Any]:
    """Return the policy that allows what the principal was allowed and used, and nothing else.

    Names that every run makes anew become wildcards; conditions are for a person to add.
    """
    actions_by_resource: dict[str, set[str]] = defaultdict(set)
    for use in uses:
        if use.principal == principal and use.allowed:
            actions_by_resource[_without_generated_names(use.resource)].add(use.action)
    resources_by_actions: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for resource, actions in sorted(actions_by_resource.items()):
        resources_by_actions[tuple(sorted(actions))].append(resource)
    statements = [
        {"Effect": "Allow", "Action": list(actions), "Resource": resources}
        for actions, resources in sorted(resources_by_actions.items())
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def unused_actions(document: Mapping[str, Any], uses: Iterable[Use], part: str) -> set[str]:
    """Return the actions that a policy allows and no principal with this in its name ever used."""
    used = {use.action for use in uses if part in use.principal and use.allowed}
    return {
        pattern
        for statement in statements_of(json.dumps(document))
        if statement.effect == "Allow"
        for pattern in statement.actions.patterns
        if not any(like(action, pattern, ignore_case=True) for action in used)
    }


def _without_generated_names(resource: str) -> str:
    for pattern, replacement in _GENERATED:
        resource = pattern.sub(replacement, resource)
    return resource
