"""The tags of SageMaker's resources, by their ARN.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_AddTags.html
"""

import threading
from typing import Any

from deployments.local_aws.protocol import Operation
from deployments.local_aws.records import invalid

_MOST_TAGS = 50


class Tags:
    """Kept with a resource from its creation to its end; safe to use from several threads."""

    def __init__(self) -> None:
        self._tags: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()

    def operations(self) -> dict[str, Operation]:
        """Return its operations by their API names."""
        return {"AddTags": self.add, "ListTags": self.list, "DeleteTags": self.delete}

    def keep(self, arn: str, request: dict[str, Any]) -> None:
        """Keep the tags of a request that made a resource."""
        with self._lock:
            self._tags[arn] = {tag["Key"]: tag["Value"] for tag in request.get("Tags", [])}

    def forget(self, arn: str) -> None:
        """Forget the tags of what is no more."""
        with self._lock:
            self._tags.pop(arn, None)

    def find(self, arn: str) -> dict[str, str]:
        """Return the tags of a resource; none if there is none."""
        with self._lock:
            return dict(self._tags.get(arn, {}))

    def add(self, request: dict[str, Any]) -> dict[str, Any]:
        """Add tags to a resource, or change them."""
        with self._lock:
            tags = self._of(request["ResourceArn"])
            changed = tags | {tag["Key"]: tag["Value"] for tag in request["Tags"]}
            if len(changed) > _MOST_TAGS:
                message = f"A resource can have {_MOST_TAGS} tags, and this one would have {len(changed)}"
                raise invalid(message)
            tags |= changed
            return {"Tags": _listed(tags)}

    def list(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the tags of a resource, all of them at once: a page takes more than there can be."""
        with self._lock:
            return {"Tags": _listed(self._of(request["ResourceArn"]))}

    def delete(self, request: dict[str, Any]) -> dict[str, Any]:
        """Remove tags from a resource."""
        with self._lock:
            tags = self._of(request["ResourceArn"])
            for key in request["TagKeys"]:
                tags.pop(key, None)
        return {}

    def _of(self, arn: str) -> dict[str, str]:
        if arn not in self._tags:
            message = f"Could not find resource {arn}"
            raise invalid(message)
        return self._tags[arn]


def _listed(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
