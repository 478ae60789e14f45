"""Which services the local AWS has, and what stands behind each: an executor of ours, moto, or both."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.local_aws.account import Account
from deployments.local_aws.auto_scaling import AutoScaling
from deployments.local_aws.cloudformation import check_template_request
from deployments.local_aws.cloudwatch import PRETENDED as CLOUDWATCH_PRETENDED
from deployments.local_aws.cloudwatch import CloudWatch
from deployments.local_aws.deep_learning_amis import publish_deep_learning_amis
from deployments.local_aws.fleets import Fleet
from deployments.local_aws.functions import MAX_REQUEST_BYTES, Functions
from deployments.local_aws.instances import INSTANCE_STATE_OPERATIONS, Instances
from deployments.local_aws.price_list import PRICE_LIST_OPERATIONS
from deployments.local_aws.protocol import AwsError, Operation
from deployments.local_aws.run_command import PARAMETER_OPERATIONS, RunCommand
from deployments.local_aws.sagemaker_service import SageMaker

Guard = Callable[[dict[str, Any]], None]
"""Looks at a request before moto gets it, and raises AwsError where moto would pretend."""


@dataclass(frozen=True)
class Service:
    """A service: its operations that are ours, and moto's name for it if moto has the others."""

    name: str  # botocore's
    operations: Mapping[str, Operation] = field(default_factory=dict)
    moto: str | None = None
    moto_operations: Collection[str] | None = None
    """Which of the others moto has; None for all that it knows."""
    guards: Mapping[str, Guard] = field(default_factory=dict)
    max_body_bytes: int | None = None

    @property
    def needs_routing(self) -> bool:
        """Whether it matters here which operation is called; what is moto's alone goes straight to moto."""
        return bool(self.operations or self.guards or self.moto is None)

    def moto_has(self, operation: str) -> bool:
        """Whether moto is to answer an operation that is not ours."""
        return self.moto is not None and (self.moto_operations is None or operation in self.moto_operations)


@dataclass(frozen=True)
class Catalogue:
    """The services by the name in a signature's scope; SageMaker and its runtime share one. Owns the executors."""

    services: Mapping[str, tuple[Service, ...]]
    stop: Callable[[], None]


def standard_catalogue(account: Account) -> Catalogue:
    """Return the services of the local AWS, with executors for the account."""
    cloudwatch = CloudWatch(account)
    sagemaker = SageMaker(account, cloudwatch)
    scaling = AutoScaling(account, sagemaker.endpoints, cloudwatch)
    instances = Instances(account)
    commands = RunCommand(account, instances)
    functions = Functions(account)
    publish_deep_learning_amis(account)
    services = {
        "sagemaker": (
            Service("sagemaker", sagemaker.operations()),
            Service("sagemaker-runtime", sagemaker.runtime_operations(), max_body_bytes=INVOKE_ENDPOINT_MAX_BYTES),
        ),
        "ec2": (Service("ec2", instances.operations(), "ec2", INSTANCE_STATE_OPERATIONS),),
        "ssm": (Service("ssm", commands.operations(), "ssm", PARAMETER_OPERATIONS),),
        "lambda": (Service("lambda", functions.operations(), max_body_bytes=MAX_REQUEST_BYTES),),
        **state_services(account),
        "application-autoscaling": (Service("application-autoscaling", scaling.operations()),),
        "pricing": (Service("pricing", PRICE_LIST_OPERATIONS),),
        "monitoring": (
            Service(
                "cloudwatch",
                cloudwatch.operations(),
                "cloudwatch",
                guards=_refused("cloudwatch", CLOUDWATCH_PRETENDED),
            ),
        ),
    }
    cloudwatch.start()

    def stop() -> None:
        for executor in (functions, cloudwatch, sagemaker, instances, commands):
            executor.stop()

    return Catalogue(services, stop)


INVOKE_ENDPOINT_MAX_BYTES = Fleet.max_body_bytes  # where an endpoint may take less, its fleet says so


def state_services(account: Account) -> dict[str, tuple[Service, ...]]:
    """Return the services that only keep state: moto's, less what moto pretends."""
    return {
        "s3": (Service("s3", moto="s3"),),
        "iam": (Service("iam", moto="iam"),),
        "logs": (Service("logs", moto="logs"),),
        "monitoring": (Service("cloudwatch", moto="cloudwatch"),),
        "tagging": (Service("resourcegroupstaggingapi", moto="resourcegroupstaggingapi"),),
        "sts": (
            Service("sts", {"AssumeRole": AssumeRole(account)}, moto="sts", guards=_refused("sts", _STS_PRETENDED)),
        ),
        "cloudformation": (Service("cloudformation", moto="cloudformation", guards=_template_guards()),),
    }


# moto answers these with fixed example keys, or without looking at the assertion.
_STS_PRETENDED = ("GetSessionToken", "GetFederationToken", "AssumeRoleWithSAML", "AssumeRoleWithWebIdentity")
_TEMPLATE_OPERATIONS = ("CreateStack", "UpdateStack", "CreateChangeSet", "ValidateTemplate", "GetTemplateSummary")
_CLOUDFORMATION_PRETENDED = ("CreateStackSet", "UpdateStackSet", "CreateStackInstances", "EstimateTemplateCost")


def _refused(service: str, operations: Iterable[str]) -> dict[str, Guard]:
    def refuse(operation: str) -> Guard:
        def guard(_request: dict[str, Any]) -> None:
            raise not_implemented(service, operation)

        return guard

    return {operation: refuse(operation) for operation in operations}


def _template_guards() -> dict[str, Guard]:
    guards = _refused("cloudformation", _CLOUDFORMATION_PRETENDED)
    return guards | dict.fromkeys(_TEMPLATE_OPERATIONS, check_template_request)


def not_implemented(service: str, operation: str) -> AwsError:
    """Return the answer to an operation that AWS has and the local AWS has not."""
    return AwsError("UnknownOperationException", f"The local AWS does not implement {service}:{operation}")


class AssumeRole:
    """STS's AssumeRole for the account's users: moto's own gives keys for roles that do not exist."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return temporary credentials of a role that trusts this account."""
        if request.get("Policy") or request.get("PolicyArns"):
            service, operation = "sts", "AssumeRole with session policies"  # never dropped: they narrow
            raise not_implemented(service, operation)
        role_arn, session = request["RoleArn"], request["RoleSessionName"]
        if not self._account.trusts_own_users(role_arn):
            code = "AccessDenied"
            raise AwsError(code, f"Not authorized to perform: sts:AssumeRole on resource: {role_arn}", 403)
        credentials = self._account.assume_role(role_arn, session, request.get("DurationSeconds", 3600))
        role = self._account.find_role(role_arn)
        return {
            "Credentials": {
                "AccessKeyId": credentials.access_key_id,
                "SecretAccessKey": credentials.secret_access_key,
                "SessionToken": credentials.session_token,
                "Expiration": credentials.expires,
            },
            "AssumedRoleUser": {
                "AssumedRoleId": f"{role.id if role else role_arn}:{session}",
                "Arn": f"arn:aws:sts::{self._account.account_id}:assumed-role/{role_arn.rpartition('/')[2]}/{session}",
            },
        }
