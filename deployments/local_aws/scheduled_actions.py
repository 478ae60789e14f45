"""Scheduled actions: limits of a scalable target that change at a time."""

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from deployments.local_aws.account import Account
from deployments.local_aws.records import invalid
from deployments.local_aws.scalable_targets import DIMENSION, NAMESPACE, ScalableTarget
from deployments.local_aws.schedules import Schedule

_LIMITS = ("MinCapacity", "MaxCapacity")
_OPTIONAL = ("Timezone", "StartTime", "EndTime")


@dataclass
class ScheduledAction:
    """An action of a scalable target.

    https://docs.aws.amazon.com/autoscaling/application/APIReference/API_PutScheduledAction.html
    """

    name: str
    arn: str
    target: ScalableTarget
    request: dict[str, Any]
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    due: datetime | None = None

    def plan(self, after: datetime) -> None:
        """Find out when it is due next.

        Raises:
            AwsError: ValidationException: its schedule is none.
        """
        begin = _aware(self.request.get("StartTime"), after)
        end = _aware(self.request.get("EndTime"), datetime.max.replace(tzinfo=UTC))
        schedule = Schedule(self.request["Schedule"], self.request.get("Timezone", "UTC"))
        due = schedule.next_after(max(begin, after))
        self.due = due if due is not None and due <= end else None

    def is_due(self, now: datetime) -> bool:
        """Whether it should have run by now."""
        return self.due is not None and now >= self.due

    @property
    def limits(self) -> dict[str, int]:
        """The limits that it sets."""
        return dict(self.request.get("ScalableTargetAction", {}))

    def described(self) -> dict[str, Any]:
        """Return what DescribeScheduledActions says of it."""
        return {
            "ScheduledActionName": self.name,
            "ScheduledActionARN": self.arn,
            "ServiceNamespace": NAMESPACE,
            "Schedule": self.request["Schedule"],
            "ResourceId": self.target.resource_id,
            "ScalableDimension": DIMENSION,
            "ScalableTargetAction": self.limits,
            "CreationTime": self.created,
            **{member: self.request[member] for member in _OPTIONAL if member in self.request},
        }


def new_action(
    account: Account, target: ScalableTarget, request: dict[str, Any], before: ScheduledAction | None
) -> ScheduledAction:
    """Return the action that a PutScheduledAction asks for; what it does not name stays as it was before.

    Raises:
        AwsError: ValidationException: it lacks something, or has a schedule that is none.
    """
    asked = {**(before.request if before else {}), **request}
    if "Schedule" not in asked or not asked.get("ScalableTargetAction"):
        message = "A scheduled action needs a Schedule, and MinCapacity or MaxCapacity in its ScalableTargetAction"
        raise invalid(message)
    name = request["ScheduledActionName"]
    arn = (
        f"arn:aws:autoscaling:{account.region}:{account.account_id}:scheduledAction:{uuid.uuid4()}:"
        f"resource/{NAMESPACE}/{target.resource_id}:scheduledActionName/{name}"
    )
    action = ScheduledAction(name, before.arn if before else arn, target, asked)
    action.plan(datetime.now(UTC))
    return action


def _aware(moment: datetime | None, otherwise: datetime) -> datetime:
    if moment is None:
        return otherwise
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
