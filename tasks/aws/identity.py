"""Names that follow from content: the same work has the same name, so it is asked for once and found again."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from tasks.contracts import Value

PROJECT = "sagemaker-flows"
PROJECT_TAG = "project"
DIGEST_TAG = f"{PROJECT}:digest"
FLOW_RUN_TAG = f"{PROJECT}:flow-run"
ADOPTED_TAG = f"{PROJECT}:adopted-by"
EXPIRES_TAG = f"{PROJECT}:expires-at"
NEVER = "never"  # greater than every date, as text

_NAME_LIMIT = 63
_DIGEST_SHOWN = 12
_BY_CONTENT = re.compile(rf"-[0-9a-f]{{{_DIGEST_SHOWN}}}(-\d+)?$")


_ADOPTERS_KEPT = 6  # a tag's value holds 256 characters, a flow run's id is 36


class Owner(Value):
    """Who asks for a resource, and when it may be taken away (a time in ISO 8601, or never); becomes its tags."""

    flow_run_id: str
    expires_at: str


def digest_of(content: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hex, of a JSON-able content; the order of keys does not matter."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def resource_name(step: str, digest: str, attempt: int = 1, limit: int = _NAME_LIMIT) -> str:
    """Return `flows-<step>-<digest>`, and from the second attempt on its number behind it.

    Raises:
        ValueError: The step is so long that the name would not fit SageMaker's limit.
    """
    name = f"flows-{step}-{digest[:_DIGEST_SHOWN]}" + (f"-{attempt}" if attempt > 1 else "")
    if len(name) > limit:
        msg = f"the name {name} has {len(name)} characters, SageMaker takes {limit}: use a shorter step"
        raise ValueError(msg)
    return name


def is_named_by_content(name: str) -> bool:
    """Tell whether a name is one that `resource_name` has made, and not one that a person has chosen to last."""
    return _BY_CONTENT.search(name) is not None


def is_project(tags: Mapping[str, str]) -> bool:
    """Tell whether what carries these tags is this project's."""
    return tags.get(PROJECT_TAG) == PROJECT


def adoption_tag(theirs: Mapping[str, str], owner_run_id: str) -> dict[str, str]:
    """Return the tag of what is adopted: who waits for it besides the run that asked for it."""
    adopters = [*theirs.get(ADOPTED_TAG, "").split(), owner_run_id]
    return {"Key": ADOPTED_TAG, "Value": " ".join(adopters[-_ADOPTERS_KEPT:])}


def tags_of(owner: Owner, digest: str) -> list[dict[str, str]]:
    """Return the tags that every resource of ours carries: whose it is, what it is, when it is past due."""
    tags = {
        PROJECT_TAG: PROJECT,
        DIGEST_TAG: digest,
        FLOW_RUN_TAG: owner.flow_run_id,
        EXPIRES_TAG: owner.expires_at,
    }
    return [{"Key": key, "Value": value} for key, value in tags.items()]
