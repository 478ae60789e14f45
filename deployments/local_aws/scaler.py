"""What really scales: at the end of every minute, schedules, limits and policies become more or fewer servers."""

from datetime import UTC, datetime
from typing import Any

from deployments.local_aws.cloudwatch import CloudWatch
from deployments.local_aws.endpoints import Endpoints
from deployments.local_aws.protocol import AwsError
from deployments.local_aws.scalable_targets import ScalableTarget
from deployments.local_aws.scaling_activities import ScalingActivity
from deployments.local_aws.scaling_state import ScalingState
from deployments.local_aws.scheduled_actions import ScheduledAction
from deployments.local_aws.target_tracking import TargetTrackingPolicy


class Scaler:
    """Acts on the scalable targets of an account."""

    def __init__(self, state: ScalingState, endpoints: Endpoints, cloudwatch: CloudWatch) -> None:
        self._state, self._endpoints, self._cloudwatch = state, endpoints, cloudwatch
        self._causes: dict[str, TargetTrackingPolicy] = {}  # the policies that activities are of, by their ids

    def end_minute(self, now: float) -> None:
        """Do what is due at the end of a minute (a POSIX time): as on AWS, nothing while an endpoint changes."""
        with self._state.lock:
            for action in list(self._state.actions.values()):
                self._run_if_due(action)
            for target in list(self._state.targets.values()):
                try:
                    endpoint = self._endpoints.describe({"EndpointName": target.endpoint})
                except AwsError:  # deleted while it was registered
                    self._state.forget(target)
                    continue
                if endpoint["EndpointStatus"] == "InService":
                    self._scale_if_due(target, endpoint, now)

    def _run_if_due(self, action: ScheduledAction) -> None:
        now = datetime.now(UTC)
        if not action.is_due(now):
            return
        action.plan(now)
        target = action.target
        if not target.suspended["ScheduledScalingSuspended"]:
            try:
                target.limit(action.limits)
            except AwsError as error:  # its minimum is over the maximum that the target has by now
                cause = f"scheduled action name {action.name} was triggered"
                failed = ScalingActivity(target, target.minimum, target.minimum, cause)
                failed.fail(error.message)
                self._state.activities.add(failed)

    def _scale_if_due(self, target: ScalableTarget, endpoint: dict[str, Any], now: float) -> None:
        current = _capacity(endpoint, target.variant)
        activity = self._state.activities.running(target)
        if activity:
            self._end_activity(activity, current, endpoint.get("FailureReason", f"There are {current} instances"))
        limited = target.clamped(current)
        if limited != current:
            side = "minimum" if limited > current else "maximum"
            self._scale(ScalingActivity(target, current, limited, f"{side} capacity was set to {limited}"))
            return
        for policy in [one for one in self._state.policies.values() if one.target is target]:
            decision = policy.decide(self._cloudwatch, current, now)
            if decision:
                cause = f"monitor alarm {decision.alarm} in state ALARM triggered policy {policy.name}"
                activity = ScalingActivity(target, current, decision.capacity, cause)
                self._causes[activity.id] = policy
                self._scale(activity)

    def _scale(self, activity: ScalingActivity) -> None:
        self._state.activities.add(activity)
        target = activity.target
        change = {"VariantName": target.variant, "DesiredInstanceCount": activity.capacity}
        request = {"EndpointName": target.endpoint, "DesiredWeightsAndCapacities": [change]}
        try:
            self._endpoints.update_capacities(request)
        except AwsError as error:  # somebody else has begun to change it
            self._causes.pop(activity.id, None)
            activity.fail(error.message)

    def _end_activity(self, activity: ScalingActivity, current: int, problem: str) -> None:
        policy = self._causes.pop(activity.id, None)
        if current != activity.capacity:
            activity.fail(problem)
            return
        activity.succeed()
        if policy:
            policy.scaled(activity.before, activity.capacity)


def _capacity(endpoint: dict[str, Any], variant: str) -> int:
    found = [one for one in endpoint["ProductionVariants"] if one["VariantName"] == variant]
    return int(found[0]["CurrentInstanceCount"]) if found else 0
