"""Application Auto Scaling, for the variants of endpoints: policies that evaluate and really add and remove servers."""

import uuid
from collections.abc import Iterable
from typing import Any

from deployments.local_aws.account import Account
from deployments.local_aws.cloudwatch import CloudWatch
from deployments.local_aws.endpoints import Endpoints
from deployments.local_aws.protocol import AwsError, Operation
from deployments.local_aws.records import invalid, page
from deployments.local_aws.refusals import Supported
from deployments.local_aws.scalable_targets import (
    DIMENSION,
    NAMESPACE,
    ScalableTarget,
    check_dimension,
    endpoint_and_variant,
    new_target,
)
from deployments.local_aws.scaler import Scaler
from deployments.local_aws.scaling_state import ScalingState
from deployments.local_aws.scheduled_actions import new_action
from deployments.local_aws.target_tracking import TargetTrackingPolicy

_CODE = "ValidationException"
_PAGE = 50
_RESOURCE = ("ServiceNamespace", "ResourceId", "ScalableDimension")
_PAGES = ("MaxResults", "NextToken")
_CONFIGURATION = "TargetTrackingScalingPolicyConfiguration"
_SUPPORTED = {
    "RegisterScalableTarget": Supported(
        honoured=(*_RESOURCE, "MinCapacity", "MaxCapacity", "SuspendedState", "Tags"), recorded=("RoleARN",)
    ),
    "DescribeScalableTargets": Supported((*_RESOURCE, *_PAGES, "ResourceIds")),
    "PutScalingPolicy": Supported(
        honoured=(
            *_RESOURCE,
            "PolicyName",
            f"{_CONFIGURATION}.DisableScaleIn",
            f"{_CONFIGURATION}.ScaleInCooldown",
            f"{_CONFIGURATION}.ScaleOutCooldown",
            f"{_CONFIGURATION}.TargetValue",
        ),
        only={
            "PolicyType": ("TargetTrackingScaling",),
            f"{_CONFIGURATION}.PredefinedMetricSpecification.PredefinedMetricType": (
                "SageMakerVariantInvocationsPerInstance",
            ),
        },
    ),
    "DescribeScalingPolicies": Supported((*_RESOURCE, *_PAGES, "PolicyNames")),
    "PutScheduledAction": Supported(
        (*_RESOURCE, "EndTime", "ScalableTargetAction", "Schedule", "ScheduledActionName", "StartTime", "Timezone")
    ),
    "DescribeScheduledActions": Supported((*_RESOURCE, *_PAGES, "ScheduledActionNames")),
    # What was not done is not recorded, so there is nothing to include.
    "DescribeScalingActivities": Supported((*_RESOURCE, *_PAGES), only={"IncludeNotScaledActivities": (False,)}),
}


class AutoScaling:
    """The scalable targets of an account, with their policies and scheduled actions.

    https://docs.aws.amazon.com/autoscaling/application/APIReference/Welcome.html
    """

    def __init__(self, account: Account, endpoints: Endpoints, cloudwatch: CloudWatch) -> None:
        self._account, self._endpoints, self._alarms = account, endpoints, cloudwatch.alarms
        self._state = ScalingState(cloudwatch.alarms)
        endpoints.may_update, endpoints.deleted = self._check_update, self._state.forget_endpoint
        cloudwatch.scalers.append(Scaler(self._state, endpoints, cloudwatch).end_minute)

    def operations(self) -> dict[str, Operation]:
        """Return its operations by their API names; each refuses what it would not do."""
        operations: dict[str, Operation] = {
            "RegisterScalableTarget": self.register,
            "DescribeScalableTargets": self.describe_targets,
            "DeregisterScalableTarget": self.deregister,
            "ListTagsForResource": self.list_tags,
            "PutScalingPolicy": self.put_policy,
            "DescribeScalingPolicies": self.describe_policies,
            "DeleteScalingPolicy": self.delete_policy,
            "PutScheduledAction": self.put_action,
            "DescribeScheduledActions": self.describe_actions,
            "DeleteScheduledAction": self.delete_action,
            "DescribeScalingActivities": self.describe_activities,
        }
        return {name: self._checked(name, operation) for name, operation in operations.items()}

    # --- targets ---------------------------------------------------------------------------------------------------

    def register(self, request: dict[str, Any]) -> dict[str, Any]:
        """Register a variant, or change its limits; a capacity outside of them is changed at the end of the minute.

        https://docs.aws.amazon.com/autoscaling/application/APIReference/API_RegisterScalableTarget.html
        """
        resource_id = request["ResourceId"]
        self._check_variant(resource_id)
        target = self._state.targets.get(resource_id) or new_target(self._account, request)
        target.limit(request)
        self._state.targets[resource_id] = target
        return {"ScalableTargetARN": target.arn}

    def describe_targets(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a page of targets."""
        wanted = request.get("ResourceIds") or list(self._state.targets)
        found = [target.described() for name, target in self._state.targets.items() if name in wanted]
        return _page(request, "ScalableTargets", found)

    def deregister(self, request: dict[str, Any]) -> dict[str, Any]:
        """Forget a target, its policies and its scheduled actions; the variant keeps the instances that it has."""
        self._state.forget(self._target(request))
        return {}

    def list_tags(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a target's tags."""
        for target in self._state.targets.values():
            if target.arn == request["ResourceARN"]:
                return {"Tags": dict(target.tags)}
        code = "ResourceNotFoundException"
        raise AwsError(code, f"No scalable target found for {request['ResourceARN']}")

    # --- policies --------------------------------------------------------------------------------------------------

    def put_policy(self, request: dict[str, Any]) -> dict[str, Any]:
        """Attach a target tracking policy to a target, or change it; its alarms are created at once.

        https://docs.aws.amazon.com/autoscaling/application/APIReference/API_PutScalingPolicy.html
        """
        target, name = self._target(request), request["PolicyName"]
        configuration = request.get(_CONFIGURATION, {})
        if "PredefinedMetricSpecification" not in configuration or configuration["TargetValue"] <= 0:
            message = f"The local AWS needs {_CONFIGURATION} with a PredefinedMetricSpecification and a positive value"
            raise invalid(message)
        key = (target.resource_id, name)
        if any(other[0] == target.resource_id and other != key for other in self._state.policies):
            message = "Only one TargetTrackingScaling policy for a given metric specification is allowed."
            raise invalid(message)
        policy = self._state.policies.get(key) or TargetTrackingPolicy(
            name, self._policy_arn(*key), target, configuration
        )
        policy.configuration = configuration
        policy.put_alarms(self._alarms)
        self._state.policies[key] = policy
        return {"PolicyARN": policy.arn, "Alarms": policy.described_alarms()}

    def describe_policies(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a page of policies."""
        found = _selected(self._state.policies.values(), request, "PolicyNames")
        return _page(request, "ScalingPolicies", [policy.described() for policy in found])

    def delete_policy(self, request: dict[str, Any]) -> dict[str, Any]:
        """Forget a policy, and its alarms."""
        key = (request["ResourceId"], request["PolicyName"])
        if key not in self._state.policies:
            kind = f"scaling policy {key[1]} found"
            raise _missing(kind, request)
        self._state.forget_policy(key)
        return {}

    # --- scheduled actions -----------------------------------------------------------------------------------------

    def put_action(self, request: dict[str, Any]) -> dict[str, Any]:
        """Plan to change a target's limits."""
        target, key = self._target(request), (request["ResourceId"], request["ScheduledActionName"])
        self._state.actions[key] = new_action(self._account, target, request, self._state.actions.get(key))
        return {}

    def describe_actions(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a page of scheduled actions."""
        found = _selected(self._state.actions.values(), request, "ScheduledActionNames")
        return _page(request, "ScheduledActions", [action.described() for action in found])

    def delete_action(self, request: dict[str, Any]) -> dict[str, Any]:
        """Forget a scheduled action."""
        key = (request["ResourceId"], request["ScheduledActionName"])
        if key not in self._state.actions:
            kind = f"scheduled action {key[1]} found"
            raise _missing(kind, request)
        del self._state.actions[key]
        return {}

    def describe_activities(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a page of what was done, the latest first."""
        return _page(request, "ScalingActivities", self._state.activities.described(request.get("ResourceId")))

    # --- what endpoints ask ----------------------------------------------------------------------------------------

    def _check_update(self, endpoint: str, old: list[Any], new: list[Any]) -> None:
        """Refuse to change the instance type of a variant that is scaled, as AWS does.

        https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-scaling-update.html
        """
        before = {variant["VariantName"]: variant.get("InstanceType") for variant in old}
        after = {variant["VariantName"]: variant.get("InstanceType") for variant in new}
        for target in list(self._state.targets.values()):  # without the lock: an endpoint's is held
            if target.endpoint == endpoint and before.get(target.variant) != after.get(target.variant):
                message = (
                    f"The variant {target.variant} is registered as a scalable target, and the update would change its "
                    "instance type: delete its scaling policies and deregister it first."
                )
                raise invalid(message)

    # --- what it knows ---------------------------------------------------------------------------------------------

    def _checked(self, name: str, operation: Operation) -> Operation:
        def refuse_or_run(request: dict[str, Any]) -> dict[str, Any]:
            check_dimension(request)
            if name in _SUPPORTED:
                _SUPPORTED[name].check(name, request, _CODE)
            with self._state.lock:
                return operation(request)

        return refuse_or_run

    def _check_variant(self, resource_id: str) -> None:
        endpoint, variant = endpoint_and_variant(resource_id)
        described = self._endpoints.describe({"EndpointName": endpoint})
        variants = {one["VariantName"]: one for one in described.get("ProductionVariants", [])}
        if variant not in variants or described["EndpointStatus"] == "Deleting":
            message = f"No production variant {variant} that is in service was found on endpoint {endpoint}"
            raise invalid(message)
        if "DesiredInstanceCount" not in variants[variant]:
            message = f"The variant {variant} of endpoint {endpoint} is serverless: it has no {DIMENSION}"
            raise invalid(message)

    def _target(self, request: dict[str, Any]) -> ScalableTarget:
        if request["ResourceId"] not in self._state.targets:
            kind = "scalable target registered"
            raise _missing(kind, request)
        return self._state.targets[request["ResourceId"]]

    def _policy_arn(self, resource_id: str, name: str) -> str:
        return (
            f"arn:aws:autoscaling:{self._account.region}:{self._account.account_id}:scalingPolicy:{uuid.uuid4()}:"
            f"resource/{NAMESPACE}/{resource_id}:policyName/{name}"
        )


def _selected(found: Iterable[Any], request: dict[str, Any], names: str) -> list[Any]:
    return [
        one
        for one in found
        if request.get("ResourceId", one.target.resource_id) == one.target.resource_id
        and (not request.get(names) or one.name in request[names])
    ]


def _page(request: dict[str, Any], key: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    return page(found, {"MaxResults": _PAGE, **request}, key)


def _missing(kind: str, request: dict[str, Any]) -> AwsError:
    words = f"service namespace: {NAMESPACE}, resource ID: {request['ResourceId']}, scalable dimension: {DIMENSION}"
    return AwsError("ObjectNotFoundException", f"No {kind} for {words}")
