"""What Application Auto Scaling scales here: how many instances a variant of an endpoint has."""

import re
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from deployments.local_aws.account import Account
from deployments.local_aws.records import invalid

NAMESPACE = "sagemaker"
DIMENSION = "sagemaker:variant:DesiredInstanceCount"
_RESOURCE = re.compile(r"endpoint/([^/]+)/variant/([^/]+)")
_SERVICE_ROLE = (
    "role/aws-service-role/sagemaker.application-autoscaling.amazonaws.com/"
    "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
)
_SUSPENDED = ("DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended")


@dataclass
class ScalableTarget:
    """A variant that is registered."""

    resource_id: str
    minimum: int
    maximum: int
    role_arn: str
    arn: str
    tags: dict[str, str] = field(default_factory=dict)
    suspended: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(_SUSPENDED, False))
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def endpoint(self) -> str:
        """The name of its endpoint."""
        return endpoint_and_variant(self.resource_id)[0]

    @property
    def variant(self) -> str:
        """The name of its variant."""
        return endpoint_and_variant(self.resource_id)[1]

    def clamped(self, capacity: int) -> int:
        """Return the capacity within its limits."""
        return max(self.minimum, min(self.maximum, capacity))

    def limit(self, request: dict[str, Any]) -> None:
        """Take over the limits, and what is suspended, that a request names; the rest stays.

        Raises:
            AwsError: ValidationException.
        """
        minimum, maximum = request.get("MinCapacity", self.minimum), request.get("MaxCapacity", self.maximum)
        if minimum < 1:
            # To zero scale only inference components and asynchronous endpoints, which are not here.
            message = "MinCapacity must be at least 1 for a variant of a real-time endpoint"
            raise invalid(message)
        if maximum < minimum:
            message = f"Maximum capacity cannot be less than minimum capacity: {maximum} < {minimum}"
            raise invalid(message)
        self.minimum, self.maximum = minimum, maximum
        self.suspended |= request.get("SuspendedState", {})

    def described(self) -> dict[str, Any]:
        """Return what DescribeScalableTargets says of it."""
        return {
            "ServiceNamespace": NAMESPACE,
            "ResourceId": self.resource_id,
            "ScalableDimension": DIMENSION,
            "MinCapacity": self.minimum,
            "MaxCapacity": self.maximum,
            "RoleARN": self.role_arn,
            "CreationTime": self.created,
            "SuspendedState": dict(self.suspended),
            "ScalableTargetARN": self.arn,
        }


def new_target(account: Account, request: dict[str, Any]) -> ScalableTarget:
    """Return the target that a RegisterScalableTarget asks for.

    Raises:
        AwsError: ValidationException: it lacks a limit.
    """
    if "MinCapacity" not in request or "MaxCapacity" not in request:
        message = "MinCapacity and MaxCapacity are needed to register a new scalable target"
        raise invalid(message)
    arn = f"arn:aws:application-autoscaling:{account.region}:{account.account_id}:scalable-target"
    return ScalableTarget(
        resource_id=request["ResourceId"],
        minimum=1,
        maximum=1,
        # On AWS the service makes itself this role; RoleARN in the request is not looked at for variants there either.
        role_arn=f"arn:aws:iam::{account.account_id}:{_SERVICE_ROLE}",
        arn=f"{arn}/{uuid.uuid4().hex[:26]}",
        tags=dict(request.get("Tags", {})),
    )


def endpoint_and_variant(resource_id: str) -> tuple[str, str]:
    """Return the names in a ResourceId.

    Raises:
        AwsError: ValidationException: it names no variant.
    """
    found = _RESOURCE.fullmatch(resource_id)
    if not found:
        message = (
            f"ResourceId {resource_id!r} is not endpoint/NAME/variant/NAME, the only kind that the local AWS scales"
        )
        raise invalid(message)
    return found[1], found[2]


def check_dimension(request: dict[str, Any]) -> None:
    """Refuse what is not a variant's instance count.

    Raises:
        AwsError: ValidationException.
    """
    for member, only in (("ServiceNamespace", NAMESPACE), ("ScalableDimension", DIMENSION)):
        if request.get(member, only) != only:
            message = f"The local AWS does not implement {member} {request[member]}, only {only}"
            raise invalid(message)
    if "ResourceId" in request:
        endpoint_and_variant(request["ResourceId"])
