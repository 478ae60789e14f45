"""The smaller services: which actions on which resources an operation needs."""

from collections.abc import Iterable, Mapping

from deployments.local_aws.access_requests import Request, Rule, pass_role, request_tags
from deployments.local_aws.policy_evaluation import Access


def _log_group(request: Request) -> Iterable[Access]:
    """Return the action on a log group or stream.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/iam-access-control-overview-cwl.html
    A group's ARN ends in a colon and what of it is meant, but for its tags.
    """
    members = request.members
    group = members.get("logGroupName") or members.get("logGroupNamePrefix", "")
    stream = members.get("logStreamName", "") if request.operation in _ON_STREAMS else ""
    # By its ARN, which may be given with or without that end.
    named = str(members.get("logGroupIdentifier") or "").removesuffix(":*")
    group = named.partition(":log-group:")[2] or named or group
    if request.operation == "DescribeLogGroups":
        group = ""  # it looks through all of them
    yield Access(f"logs:{request.operation}", request.arn("logs", f"log-group:{group}:log-stream:{stream}"))


_ON_STREAMS = ("DeleteLogStream", "GetLogEvents", "PutLogEvents")


def _put_metrics(request: Request) -> Iterable[Access]:
    """Return the action, which has no resource, with its one condition key.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/iam-cw-condition-keys-namespace.html
    """
    yield Access("cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": (request.members["Namespace"],)})


def _alarms(request: Request) -> Iterable[Access]:
    names = request.members.get("AlarmNames") or [request.members.get("AlarmName", "*")]
    for name in names:
        context = request_tags(request.members.get("Tags"))
        yield Access(f"cloudwatch:{request.operation}", request.arn("cloudwatch", f"alarm:{name}"), context)


def _stack(request: Request) -> Iterable[Access]:
    arn = request.directory.stack_arn(request.members.get("StackName", "*"))
    yield Access(f"cloudformation:{request.operation}", arn)


def _change_stack(request: Request) -> Iterable[Access]:
    """Return the action, and all others: CloudFormation makes here what a template says whoever asks for it.

    On AWS it makes it with the rights of who asks.
    """
    yield from _stack(request)
    yield Access("*")


def _role(request: Request) -> Iterable[Access]:
    yield Access(f"iam:{request.operation}", _iam_arn(request, f"role/{request.members['RoleName']}"))


def _user(request: Request) -> Iterable[Access]:
    yield Access(f"iam:{request.operation}", _iam_arn(request, f"user/{request.members.get('UserName', '*')}"))


def _policy(request: Request) -> Iterable[Access]:
    members = request.members
    arn = members.get("PolicyArn") or _iam_arn(request, f"policy/{members.get('PolicyName', '*')}")
    yield Access(f"iam:{request.operation}", arn)


def _attach(request: Request) -> Iterable[Access]:
    (owner,) = (_role(request) if "RoleName" in request.members else _user(request)) or ()
    yield Access(owner.action, owner.resource, {"iam:policyarn": (request.members["PolicyArn"],)})


def _fill_profile(request: Request) -> Iterable[Access]:
    profile, role = request.members["InstanceProfileName"], request.members["RoleName"]
    yield Access(f"iam:{request.operation}", _iam_arn(request, f"instance-profile/{profile}"))
    yield pass_role(_iam_arn(request, f"role/{role}"), "ec2.amazonaws.com")


def _linked_role(request: Request) -> Iterable[Access]:
    service = request.members["AWSServiceName"]
    arn = _iam_arn(request, f"role/aws-service-role/{service}/*")
    yield Access("iam:CreateServiceLinkedRole", arn, {"iam:awsservicename": (service,)})


def _iam_arn(request: Request, resource: str) -> str:
    return f"arn:aws:iam::{request.directory.account_id}:{resource}"


def _assume_role(request: Request) -> Iterable[Access]:
    yield Access("sts:AssumeRole", request.members["RoleArn"])


def _function(request: Request) -> Iterable[Access]:
    """Return the action on a function, its version or its alias, and to pass its role.

    https://docs.aws.amazon.com/service-authorization/latest/reference/list_awslambda.html
    """
    members, action = request.members, _LAMBDA_ACTIONS.get(request.operation, request.operation)
    given = members["FunctionName"]
    name = given.partition(":function:")[2] or given
    if "Qualifier" in members:
        name = f"{name.partition(':')[0]}:{members['Qualifier']}"
    arn, context = request.arn("lambda", f"function:{name}"), request_tags(members.get("Tags"))
    context = {**context, "lambda:functionurlauthtype": (members["AuthType"],) if "AuthType" in members else ()}
    yield Access(f"lambda:{action}", arn, context)
    if request.operation == "CreateFunction" and members.get("Tags"):
        yield Access("lambda:TagResource", arn, context)
    if "Role" in members:
        yield pass_role(members["Role"], "lambda.amazonaws.com")


_LAMBDA_ACTIONS = {
    "Invoke": "InvokeFunction",
    "InvokeAsync": "InvokeFunction",
    "InvokeWithResponseStream": "InvokeFunction",
}


def _on_function_arn(request: Request) -> Iterable[Access]:
    context = request_tags(request.members.get("Tags"))
    yield Access(f"lambda:{request.operation}", request.members["Resource"], context)


def _scaling(request: Request) -> Iterable[Access]:
    """Return the action on a scalable target, whose id nobody knows before it is made.

    https://docs.aws.amazon.com/service-authorization/latest/reference/list_applicationautoscaling.html
    """
    members = request.members
    context = {
        **request_tags(members.get("Tags")),
        "application-autoscaling:service-namespace": (members["ServiceNamespace"],),
        "application-autoscaling:scalable-dimension": (members["ScalableDimension"],),
    }
    arn = request.arn("application-autoscaling", "scalable-target/*")
    yield Access(f"application-autoscaling:{request.operation}", arn, context)
    if "RoleARN" in members:
        yield pass_role(members["RoleARN"], "application-autoscaling.amazonaws.com")


LOGS_RULES: Mapping[str, Rule] = dict.fromkeys(
    (
        "CreateLogGroup",
        "CreateLogStream",
        "DeleteLogGroup",
        "DeleteLogStream",
        "DeleteRetentionPolicy",
        "DescribeLogGroups",
        "DescribeLogStreams",
        "FilterLogEvents",
        "GetLogEvents",
        "PutLogEvents",
        "PutRetentionPolicy",
    ),
    _log_group,
)
CLOUDWATCH_RULES: Mapping[str, Rule] = {
    "PutMetricData": _put_metrics,
    **dict.fromkeys(("DeleteAlarms", "DescribeAlarms", "PutMetricAlarm", "SetAlarmState"), _alarms),
}
CLOUDFORMATION_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        ("DeleteStack", "DescribeStackEvents", "DescribeStackResources", "DescribeStacks", "GetTemplate"), _stack
    ),
    **dict.fromkeys(("CreateChangeSet", "CreateStack", "ExecuteChangeSet", "UpdateStack"), _change_stack),
}
IAM_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        ("CreateRole", "DeleteRole", "DeleteRolePolicy", "GetRole", "GetRolePolicy", "PutRolePolicy", "UpdateRole"),
        _role,
    ),
    "UpdateAssumeRolePolicy": _role,
    **dict.fromkeys(("CreateAccessKey", "CreateUser", "DeleteUser", "GetUser", "PutUserPolicy"), _user),
    **dict.fromkeys(("CreatePolicy", "CreatePolicyVersion", "GetPolicy", "SetDefaultPolicyVersion"), _policy),
    **dict.fromkeys(("AttachRolePolicy", "AttachUserPolicy", "DetachRolePolicy", "DetachUserPolicy"), _attach),
    "AddRoleToInstanceProfile": _fill_profile,
    "CreateServiceLinkedRole": _linked_role,
}
STS_RULES: Mapping[str, Rule] = {"AssumeRole": _assume_role}
LAMBDA_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        (
            "AddPermission",
            "CreateAlias",
            "CreateFunction",
            "CreateFunctionUrlConfig",
            "DeleteAlias",
            "DeleteFunction",
            "DeleteFunctionConcurrency",
            "DeleteFunctionUrlConfig",
            "DeleteProvisionedConcurrencyConfig",
            "GetAlias",
            "GetFunction",
            "GetFunctionConcurrency",
            "GetFunctionConfiguration",
            "GetFunctionUrlConfig",
            "GetPolicy",
            "GetProvisionedConcurrencyConfig",
            "Invoke",
            "InvokeAsync",
            "InvokeWithResponseStream",
            "ListAliases",
            "ListProvisionedConcurrencyConfigs",
            "ListVersionsByFunction",
            "PublishVersion",
            "PutFunctionConcurrency",
            "PutProvisionedConcurrencyConfig",
            "RemovePermission",
            "UpdateAlias",
            "UpdateFunctionCode",
            "UpdateFunctionConfiguration",
            "UpdateFunctionUrlConfig",
        ),
        _function,
    ),
    **dict.fromkeys(("ListTags", "TagResource", "UntagResource"), _on_function_arn),
}
SCALING_RULES: Mapping[str, Rule] = dict.fromkeys(
    (
        "DeleteScalingPolicy",
        "DeleteScheduledAction",
        "DeregisterScalableTarget",
        "PutScalingPolicy",
        "PutScheduledAction",
        "RegisterScalableTarget",
    ),
    _scaling,
)
