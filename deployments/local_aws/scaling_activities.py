"""What Application Auto Scaling did, and how it ended."""

import uuid
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from deployments.local_aws.scalable_targets import DIMENSION, NAMESPACE, ScalableTarget

_KEPT = 1000  # AWS keeps them for six weeks


@dataclass
class ScalingActivity:
    """One change of a target's capacity."""

    target: ScalableTarget
    before: int
    capacity: int
    cause: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended: datetime | None = None
    status: str = "InProgress"
    message: str = ""

    def __post_init__(self) -> None:
        self.message = (
            f"Successfully set desired instance count to {self.capacity}. Waiting for change to be fulfilled."
        )

    def succeed(self) -> None:
        """The capacity is what it should be."""
        words = "Change successfully fulfilled by sagemaker."
        self._end("Successful", f"Successfully set desired instance count to {self.capacity}. {words}")

    def fail(self, reason: str) -> None:
        """The capacity is not what it should be."""
        self._end("Failed", f"Failed to set desired instance count to {self.capacity}. Reason: {reason}")

    def described(self) -> dict[str, Any]:
        """Return what DescribeScalingActivities says of it."""
        return {
            "ActivityId": self.id,
            "ServiceNamespace": NAMESPACE,
            "ResourceId": self.target.resource_id,
            "ScalableDimension": DIMENSION,
            "Description": f"Setting desired instance count to {self.capacity}.",
            "Cause": self.cause,
            "StartTime": self.began,
            "StatusCode": self.status,
            "StatusMessage": self.message,
            **({"EndTime": self.ended} if self.ended else {}),
        }

    def _end(self, status: str, message: str) -> None:
        self.status, self.message, self.ended = status, message, datetime.now(UTC)


class ScalingActivities:
    """The activities of an account, those of targets that are no more too."""

    def __init__(self) -> None:
        self._activities: deque[ScalingActivity] = deque(maxlen=_KEPT)

    def add(self, activity: ScalingActivity) -> None:
        """Keep one."""
        self._activities.append(activity)

    def running(self, target: ScalableTarget) -> ScalingActivity | None:
        """Return the one that has not ended, of which a target has one at most."""
        return next((one for one in self._activities if one.target is target and one.ended is None), None)

    def described(self, resource_id: str | None) -> list[dict[str, Any]]:
        """Return all of a resource, or of every one, the latest first."""
        found = [one for one in list(self._activities) if resource_id in (None, one.target.resource_id)]
        return [one.described() for one in reversed(found)]
