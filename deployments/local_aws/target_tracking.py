"""Target tracking: two alarms on the invocations per instance and minute, and how many instances they ask for.

https://docs.aws.amazon.com/autoscaling/application/userguide/target-tracking-scaling-policy-overview.html
"""

import math
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from deployments.local_aws import alarms
from deployments.local_aws.clock import Clock
from deployments.local_aws.cloudwatch import CloudWatch
from deployments.local_aws.endpoint_metrics import NAMESPACE as METRIC_NAMESPACE
from deployments.local_aws.metric_statistics import Metric
from deployments.local_aws.scalable_targets import DIMENSION, NAMESPACE, ScalableTarget

_METRIC = "InvocationsPerInstance"
_HIGH_PERIODS, _LOW_PERIODS = 3, 15  # one-minute data points, all of which must be over or under: out fast, in slowly
_LOW_SHARE = 0.9  # of the target
_DEFAULT_COOLDOWN_SECONDS = 300
_ROUNDING_SECONDS = 1e-4


@dataclass(frozen=True)
class Decision:
    """How many instances there should be, and which alarm says so."""

    capacity: int
    alarm: str


@dataclass
class TargetTrackingPolicy:
    """A policy of a scalable target."""

    name: str
    arn: str
    target: ScalableTarget
    configuration: dict[str, Any]
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    alarm_arns: dict[str, str] = field(default_factory=dict)
    _id: str = field(default_factory=lambda: str(uuid.uuid4()))
    _out_until: float = 0.0  # cooldowns, in monotonic time
    _in_until: float = 0.0
    _added: int = 0  # by the scaling out whose cooldown lasts

    @property
    def high_alarm(self) -> str:
        """The alarm that scales out."""
        return f"TargetTracking-{self.target.resource_id}-AlarmHigh-{self._id}"

    @property
    def low_alarm(self) -> str:
        """The alarm that scales in."""
        return f"TargetTracking-{self.target.resource_id}-AlarmLow-{self._id}"

    def put_alarms(self, kept: alarms.Alarms) -> None:
        """Create its alarms, or change them to its target value."""
        target = self.configuration["TargetValue"]
        high = self._alarm(self.high_alarm, "GreaterThanThreshold", target, _HIGH_PERIODS)
        wanted = {self.high_alarm: high}
        if not self.configuration.get("DisableScaleIn"):
            wanted[self.low_alarm] = self._alarm(self.low_alarm, "LessThanThreshold", target * _LOW_SHARE, _LOW_PERIODS)
        self.delete_alarms(kept, set(self.alarm_arns) - set(wanted))
        self.alarm_arns = {name: kept.put(request) for name, request in wanted.items()}

    def delete_alarms(self, kept: alarms.Alarms, names: set[str] | None = None) -> None:
        """Delete its alarms, all or some."""
        kept.delete(list(self.alarm_arns if names is None else names))

    def decide(self, cloudwatch: CloudWatch, current: int, now: float) -> Decision | None:
        """Return what its alarms ask for at the end of a minute (a POSIX time), None for no change.

        The capacity is in proportion to the metric, rounded up. Without data nothing is decided: SageMaker publishes no
        zeros, so on AWS, too, a variant that nobody calls at all stays as large as it was.
        https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling-edit.html
        """
        per_minute = cloudwatch.statistic(self._metric, "Sum", now - Clock.minute_seconds - _ROUNDING_SECONDS, now)
        if per_minute is None:
            return None
        wanted = math.ceil(current * per_minute / self.configuration["TargetValue"])
        states = {name: cloudwatch.alarms.state(name) for name in self.alarm_arns}
        if wanted > current and states.get(self.high_alarm) == alarms.ALARM:
            return self._out(current, wanted)
        if wanted < current and states.get(self.low_alarm) == alarms.ALARM:
            return self._in(current, wanted)
        return None

    def scaled(self, before: int, after: int) -> None:
        """Begin the cooldown after a change that it asked for."""
        if after > before:
            self._out_until, self._added = self._cooldown_end("ScaleOutCooldown"), after - before
            self._in_until = 0.0  # scaling out ends the cooldown of scaling in
        else:
            self._in_until = self._cooldown_end("ScaleInCooldown")

    def described(self) -> dict[str, Any]:
        """Return what DescribeScalingPolicies says of it."""
        return {
            "PolicyARN": self.arn,
            "PolicyName": self.name,
            "ServiceNamespace": NAMESPACE,
            "ResourceId": self.target.resource_id,
            "ScalableDimension": DIMENSION,
            "PolicyType": "TargetTrackingScaling",
            "TargetTrackingScalingPolicyConfiguration": self.configuration,
            "Alarms": self.described_alarms(),
            "CreationTime": self.created,
        }

    def described_alarms(self) -> list[dict[str, str]]:
        """Return its alarms as the API names them."""
        return [{"AlarmName": name, "AlarmARN": arn} for name, arn in self.alarm_arns.items()]

    def _out(self, current: int, wanted: int) -> Decision | None:
        """Return the scaling out; within a cooldown only what a larger one adds to the one that the cooldown is of."""
        if self.target.suspended["DynamicScalingOutSuspended"]:
            return None
        if time.monotonic() < self._out_until:
            wanted -= self._added
        wanted = self.target.clamped(wanted)
        return Decision(wanted, self.high_alarm) if wanted > current else None

    def _in(self, current: int, wanted: int) -> Decision | None:
        """Return the scaling in, for which both cooldowns must be over."""
        if self.target.suspended["DynamicScalingInSuspended"]:
            return None
        is_cool = time.monotonic() >= max(self._in_until, self._out_until)
        wanted = self.target.clamped(wanted)
        return Decision(wanted, self.low_alarm) if is_cool and wanted < current else None

    def _cooldown_end(self, member: str) -> float:
        seconds = self.configuration.get(member, _DEFAULT_COOLDOWN_SECONDS)
        return time.monotonic() + Clock.real_seconds(seconds)

    @property
    def _metric(self) -> Metric:
        return Metric(METRIC_NAMESPACE, _METRIC, frozenset(self._dimensions.items()))

    @property
    def _dimensions(self) -> Mapping[str, str]:
        return {"EndpointName": self.target.endpoint, "VariantName": self.target.variant}

    def _alarm(self, name: str, comparison: str, threshold: float, periods: int) -> dict[str, Any]:
        return {
            "AlarmName": name,
            "AlarmDescription": f"DO NOT EDIT OR DELETE. For TargetTrackingScaling policy {self.arn}.",
            "AlarmActions": [self.arn],
            "Namespace": METRIC_NAMESPACE,
            "MetricName": _METRIC,
            "Dimensions": [{"Name": key, "Value": value} for key, value in self._dimensions.items()],
            "Statistic": "Sum",
            "Period": 60,
            "EvaluationPeriods": periods,
            "Threshold": threshold,
            "ComparisonOperator": comparison,
        }
