"""What Application Auto Scaling keeps: targets, and the policies and scheduled actions of each."""

import threading

from deployments.local_aws.alarms import Alarms
from deployments.local_aws.scalable_targets import ScalableTarget
from deployments.local_aws.scaling_activities import ScalingActivities
from deployments.local_aws.scheduled_actions import ScheduledAction
from deployments.local_aws.target_tracking import TargetTrackingPolicy


class ScalingState:
    """The state of an account; whoever changes it, or acts on it, holds the lock."""

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms
        self.lock = threading.RLock()
        self.targets: dict[str, ScalableTarget] = {}  # by resource
        self.policies: dict[tuple[str, str], TargetTrackingPolicy] = {}  # by resource and name
        self.actions: dict[tuple[str, str], ScheduledAction] = {}
        self.activities = ScalingActivities()

    def forget(self, target: ScalableTarget) -> None:
        """Forget a target with all that it has; its activities are still told."""
        for key in [key for key in self.policies if key[0] == target.resource_id]:
            self.forget_policy(key)
        for key in [key for key in self.actions if key[0] == target.resource_id]:
            del self.actions[key]
        del self.targets[target.resource_id]

    def forget_endpoint(self, endpoint: str) -> None:
        """Deregister what was of an endpoint that is deleted, without a word, as AWS does.

        https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-delete-with-scaling.html
        """
        with self.lock:
            for target in [one for one in self.targets.values() if one.endpoint == endpoint]:
                self.forget(target)

    def forget_policy(self, key: tuple[str, str]) -> None:
        """Forget a policy, and delete its alarms."""
        self.policies.pop(key).delete_alarms(self._alarms)
