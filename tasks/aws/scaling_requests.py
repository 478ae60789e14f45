"""Requests to Application Auto Scaling for the instances of an endpoint, built from specs: pure."""

from typing import Any

from tasks.aws.requests import VARIANT
from tasks.contracts import Scaling, ScheduledCapacity

POLICY = "flows-target-tracking"


def resource_of(endpoint: str) -> dict[str, str]:
    """Return how Application Auto Scaling names an endpoint's instances."""
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint}/variant/{VARIANT}",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }


def target_request(endpoint: str, scaling: Scaling) -> dict[str, Any]:
    """Return the request that registers an endpoint's instances, or changes their limits.

    https://docs.aws.amazon.com/autoscaling/application/APIReference/API_RegisterScalableTarget.html
    """
    return {
        **resource_of(endpoint),
        "MinCapacity": scaling.min_instances,
        "MaxCapacity": scaling.max_instances,
    }


def policy_request(endpoint: str, scaling: Scaling) -> dict[str, Any]:
    """Return the request for the policy that holds the target.

    https://docs.aws.amazon.com/autoscaling/application/APIReference/API_PutScalingPolicy.html
    """
    return {
        **resource_of(endpoint),
        "PolicyName": POLICY,
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": scaling.target,
            "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
            "ScaleOutCooldown": scaling.scale_out_cooldown_seconds,
            "ScaleInCooldown": scaling.scale_in_cooldown_seconds,
        },
    }


def action_request(endpoint: str, planned: ScheduledCapacity) -> dict[str, Any]:
    """Return the request for a scheduled change of limits.

    https://docs.aws.amazon.com/autoscaling/application/APIReference/API_PutScheduledAction.html
    """
    return {
        **resource_of(endpoint),
        "ScheduledActionName": planned.name,
        "Schedule": planned.schedule,
        "Timezone": planned.timezone,
        "ScalableTargetAction": {"MinCapacity": planned.min_instances, "MaxCapacity": planned.max_instances},
    }
