"""SageMaker: which actions on which resources an operation needs.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsagemaker.html
"""

from collections.abc import Iterable, Mapping

from deployments.local_aws.access_requests import Request, Rule, pass_role, request_tags, resource_tags
from deployments.local_aws.policy_evaluation import Access

_SERVICE = "sagemaker.amazonaws.com"
# By resource type: the member that names it, and the operations on it.
_NAMED = {
    "training-job": (
        "TrainingJobName",
        ("CreateTrainingJob", "DescribeTrainingJob", "StopTrainingJob", "DeleteTrainingJob", "UpdateTrainingJob"),
    ),
    "hyper-parameter-tuning-job": (
        "HyperParameterTuningJobName",
        (
            "CreateHyperParameterTuningJob",
            "DeleteHyperParameterTuningJob",
            "DescribeHyperParameterTuningJob",
            "ListTrainingJobsForHyperParameterTuningJob",
            "StopHyperParameterTuningJob",
        ),
    ),
    "model": ("ModelName", ("CreateModel", "DescribeModel", "DeleteModel")),
    "endpoint-config": (
        "EndpointConfigName",
        (
            "CreateEndpoint",
            "CreateEndpointConfig",
            "DeleteEndpointConfig",
            "DescribeEndpointConfig",
            "UpdateEndpoint",
        ),
    ),
    "endpoint": (
        "EndpointName",
        (
            "CreateEndpoint",
            "DeleteEndpoint",
            "DescribeEndpoint",
            "InvokeEndpoint",
            "InvokeEndpointAsync",
            "InvokeEndpointWithResponseStream",
            "UpdateEndpoint",
            "UpdateEndpointWeightsAndCapacities",
        ),
    ),
}
_ON_ARN = ("AddTags", "DeleteTags", "ListTags")


def _operation(request: Request) -> Iterable[Access]:
    tags = request.members.get("Tags")
    context = request_tags(tags)
    for kind, (member, operations) in _NAMED.items():
        if request.operation in operations:
            arn = request.arn("sagemaker", f"{kind}/{request.members[member].lower()}")
            own = resource_tags(request.directory.sagemaker_tags(arn), "sagemaker:resourcetag/")
            yield Access(f"sagemaker:{request.operation}", arn, {**context, **own})
            # The tags are for what is made, not for what it is made with.
            if tags and request.operation == f"Create{member.removesuffix('Name')}":
                yield Access("sagemaker:AddTags", arn, context)
    for role in _roles(request):
        yield pass_role(role, _SERVICE)


def _roles(request: Request) -> Iterable[str]:
    members = request.members
    definitions = [members.get("TrainingJobDefinition"), *members.get("TrainingJobDefinitions", [])]
    if request.operation.startswith("Create"):
        yield from filter(None, (members.get("RoleArn"), members.get("ExecutionRoleArn")))
        yield from (one["RoleArn"] for one in definitions if one and "RoleArn" in one)


def _on_arn(request: Request) -> Iterable[Access]:
    arn = request.members["ResourceArn"]
    own = resource_tags(request.directory.sagemaker_tags(arn), "sagemaker:resourcetag/")
    yield Access(f"sagemaker:{request.operation}", arn, {**request_tags(request.members.get("Tags")), **own})


SAGEMAKER_RULES: Mapping[str, Rule] = {
    **{operation: _operation for _member, operations in _NAMED.values() for operation in operations},
    **dict.fromkeys(_ON_ARN, _on_arn),
}
