"""All services: what a call of an operation needs. What is in no table needs its own name, on everything."""

from collections.abc import Mapping

from deployments.local_aws.access_ec2 import EC2_RULES, SSM_RULES
from deployments.local_aws.access_requests import Request, Rule
from deployments.local_aws.access_s3 import S3_RULES
from deployments.local_aws.access_sagemaker import SAGEMAKER_RULES
from deployments.local_aws.access_services import (
    CLOUDFORMATION_RULES,
    CLOUDWATCH_RULES,
    IAM_RULES,
    LAMBDA_RULES,
    LOGS_RULES,
    SCALING_RULES,
    STS_RULES,
)
from deployments.local_aws.policy_evaluation import Access

# botocore's names of services whose actions have another prefix.
_PREFIXES = {"sagemaker-runtime": "sagemaker", "resourcegroupstaggingapi": "tag"}
_RULES: Mapping[str, Mapping[str, Rule]] = {
    "application-autoscaling": SCALING_RULES,
    "cloudformation": CLOUDFORMATION_RULES,
    "cloudwatch": CLOUDWATCH_RULES,
    "ec2": EC2_RULES,
    "iam": IAM_RULES,
    "lambda": LAMBDA_RULES,
    "logs": LOGS_RULES,
    "s3": S3_RULES,
    "sagemaker": SAGEMAKER_RULES,
    "ssm": SSM_RULES,
    "sts": STS_RULES,
}
# https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html: no permissions are required.
_FREE = frozenset({"sts:GetCallerIdentity"})


def needed(service: str, request: Request) -> list[Access]:
    """Return everything that must be allowed for the call, the service by botocore's name."""
    prefix = _PREFIXES.get(service, service)
    if f"{prefix}:{request.operation}" in _FREE:
        return []
    rule = _RULES.get(prefix, {}).get(request.operation)
    accesses = list(rule(request)) if rule else []
    # A rule that found nothing to ask for would let everybody pass.
    return accesses or [Access(f"{prefix}:{request.operation}")]
