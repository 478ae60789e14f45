"""Endpoints that are scaled: registered with Application Auto Scaling, and taken off it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from botocore.exceptions import ClientError

from tasks.aws.clients import client
from tasks.aws.errors import RequestRefusedError, is_code, is_transient_error, sentence_for
from tasks.aws.requests import VARIANT
from tasks.aws.scaling_requests import action_request, policy_request, resource_of, target_request
from tasks.contracts import MinuteLoad, Scaling, ScalingActivity

_SERVICE = "application-autoscaling"
_COUNT = re.compile(r"instance count to (\d+)")
_LOAD_SHOWN = timedelta(hours=3)
_POLICY_MEMBERS = ("PolicyName", "PolicyType", "TargetTrackingScalingPolicyConfiguration")
_ACTION_MEMBERS = ("ScheduledActionName", "Schedule", "Timezone", "StartTime", "EndTime", "ScalableTargetAction")


def put_scaling(endpoint: str, scaling: Scaling, tags: dict[str, str]) -> Literal["registered", "changed"]:
    """Scale an endpoint as told, and no other way; safe to repeat.

    Raises:
        RequestRefusedError: AWS refused; with its reason.
    """
    aws, there = client(_SERVICE), find_target(endpoint)
    try:
        # Tags are for what is new: with them, AWS refuses to change a target.
        aws.register_scalable_target(**target_request(endpoint, scaling), **({} if there else {"Tags": tags}))
        aws.put_scaling_policy(**policy_request(endpoint, scaling))
        for planned in scaling.schedule:
            aws.put_scheduled_action(**action_request(endpoint, planned))
    except ClientError as error:
        if is_transient_error(error):
            raise
        msg = f"The endpoint {endpoint} is not scaled as asked: {sentence_for(error)}"
        raise RequestRefusedError(msg) from error
    wanted = {planned.name for planned in scaling.schedule}
    for action in _actions(endpoint):
        if action["ScheduledActionName"] not in wanted:
            aws.delete_scheduled_action(**resource_of(endpoint), ScheduledActionName=action["ScheduledActionName"])
    return "changed" if there else "registered"


def is_scaled(endpoint: str) -> bool:
    """Tell whether an endpoint is scaled."""
    return find_target(endpoint) is not None


def find_target(endpoint: str) -> dict[str, Any] | None:
    """Return an endpoint's scalable target; None when it is not scaled."""
    resource = resource_of(endpoint)
    request = {"ServiceNamespace": resource["ServiceNamespace"], "ResourceIds": [resource["ResourceId"]]}
    targets = client(_SERVICE).describe_scalable_targets(**request)["ScalableTargets"]
    return dict(targets[0]) if targets else None


def forget_target(endpoint: str) -> bool:
    """Take an endpoint off scaling, with its policies and its schedule, and tell whether it was; safe to repeat."""
    try:
        client(_SERVICE).deregister_scalable_target(**resource_of(endpoint))
    except ClientError as error:
        if is_code(error, "ObjectNotFoundException"):
            return False
        raise
    return True


@contextmanager
def off_scaling(endpoint: str) -> Iterator[None]:
    """Take an endpoint off scaling for the length of a block, and put it back as it was, whatever happens in it.

    AWS refuses to change the instance type of what is scaled:
    https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-scaling-update.html
    """
    target, policies, actions = find_target(endpoint), _policies(endpoint), _actions(endpoint)
    tags = client(_SERVICE).list_tags_for_resource(ResourceARN=target["ScalableTargetARN"])["Tags"] if target else {}
    forget_target(endpoint)
    try:
        yield
    finally:
        if target:
            limits = {"MinCapacity": target["MinCapacity"], "MaxCapacity": target["MaxCapacity"]}
            client(_SERVICE).register_scalable_target(**resource_of(endpoint), **limits, Tags=tags)
            _put_back(endpoint, policies, actions)


def _put_back(endpoint: str, policies: list[dict[str, Any]], actions: list[dict[str, Any]]) -> None:
    aws, resource = client(_SERVICE), resource_of(endpoint)
    for policy in policies:
        aws.put_scaling_policy(**resource, **{name: policy[name] for name in _POLICY_MEMBERS if name in policy})
    for action in actions:
        aws.put_scheduled_action(**resource, **{name: action[name] for name in _ACTION_MEMBERS if name in action})


def alarms_of(endpoint: str) -> tuple[str, ...]:
    """Return the names of the alarms that CloudWatch watches for an endpoint's policies."""
    return tuple(alarm["AlarmName"] for policy in _policies(endpoint) for alarm in policy.get("Alarms", []))


def activities_of(endpoint: str) -> tuple[ScalingActivity, ...]:
    """Return when instances were added and removed, the latest first."""
    found = client(_SERVICE).describe_scaling_activities(**resource_of(endpoint))["ScalingActivities"]
    return tuple(
        ScalingActivity(
            at=one["StartTime"],
            description=one["Description"],
            cause=one["Cause"],
            status=one["StatusCode"],
            instances=_wanted_instances(one["Description"]),
        )
        for one in found
    )


def _wanted_instances(description: str) -> int | None:
    """Return the number in an activity's sentence: "Setting desired instance count to 2."."""
    found = _COUNT.search(description)
    return int(found.group(1)) if found else None


def load_of(endpoint: str) -> tuple[MinuteLoad, ...]:
    """Return what each instance was asked in each of the last minutes, the earliest first.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricStatistics.html
    """
    now = datetime.now(tz=UTC)
    dimensions = {"EndpointName": endpoint, "VariantName": VARIANT}
    points = client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName="InvocationsPerInstance",
        Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
        StartTime=now - _LOAD_SHOWN,
        EndTime=now,
        Period=60,
        Statistics=["Sum"],
    )["Datapoints"]
    minutes = [MinuteLoad(at=point["Timestamp"], invocations_per_instance=point["Sum"]) for point in points]
    return tuple(sorted(minutes, key=lambda minute: minute.at))


def _policies(endpoint: str) -> list[dict[str, Any]]:
    return list(client(_SERVICE).describe_scaling_policies(**resource_of(endpoint))["ScalingPolicies"])


def _actions(endpoint: str) -> list[dict[str, Any]]:
    return list(client(_SERVICE).describe_scheduled_actions(**resource_of(endpoint))["ScheduledActions"])
