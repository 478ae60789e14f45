"""EC2 and Systems Manager: which actions on which resources an operation needs.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
https://docs.aws.amazon.com/service-authorization/latest/reference/list_awssystemsmanager.html
"""

from collections.abc import Iterable, Mapping
from typing import Any

from deployments.local_aws.access_requests import Request, Rule, pass_role, request_tags, resource_tags
from deployments.local_aws.policy_evaluation import Access

_NO_ACTION = {"ec2:createaction": ()}


def _run_instances(request: Request) -> Iterable[Access]:
    """Return what a launch needs: the action on everything that it makes or uses, and to tag, and to pass the role."""
    members = request.members
    tags = {one["ResourceType"]: one.get("Tags", []) for one in members.get("TagSpecifications", [])}
    for resource in _of_a_launch(members):
        kind = resource.partition("/")[0]
        owner = "" if kind == "image" else None
        context = {
            **request_tags(tags.get(kind)),
            "ec2:instancetype": (members.get("InstanceType", "m1.small"),) if kind == "instance" else (),
        }
        yield Access("ec2:RunInstances", request.arn("ec2", resource, owner=owner), context)
    for kind, given in tags.items():
        # What is being made has no tags yet.
        context = {
            **request_tags(given),
            **resource_tags({}, "ec2:resourcetag/"),
            "ec2:createaction": ("RunInstances",),
        }
        yield Access("ec2:CreateTags", request.arn("ec2", f"{kind}/*"), context)
    for role in request.directory.profile_roles(members.get("IamInstanceProfile", {})):
        yield pass_role(role, "ec2.amazonaws.com")


def _of_a_launch(members: Mapping[str, Any]) -> Iterable[str]:
    """Return the resources of a launch; what it leaves to EC2 to choose is any of the kind."""
    interfaces = members.get("NetworkInterfaces", [])
    groups = [*members.get("SecurityGroupIds", []), *(group for one in interfaces for group in one.get("Groups", []))]
    subnets = [members.get("SubnetId"), *(one.get("SubnetId") for one in interfaces)]
    yield from ("instance/*", "volume/*", "network-interface/*")
    yield f"image/{members.get('ImageId', '*')}"
    yield from (f"security-group/{group}" for group in groups or ["*"])
    yield from (f"subnet/{subnet}" for subnet in list(filter(None, subnets)) or ["*"])
    if "KeyName" in members:
        yield f"key-pair/{members['KeyName']}"
    if "InstanceMarketOptions" in members:
        yield "spot-instances-request/*"


def _on_instances(request: Request) -> Iterable[Access]:
    for name in request.members.get("InstanceIds", []):
        tags = resource_tags(request.directory.instance_tags(name), "ec2:resourcetag/")
        yield Access(f"ec2:{request.operation}", request.arn("ec2", f"instance/{name}"), tags)


def _tag(request: Request) -> Iterable[Access]:
    for name in request.members.get("Resources", []):
        own = resource_tags(request.directory.instance_tags(name), "ec2:resourcetag/")
        context = {**request_tags(request.members.get("Tags")), **own, **_NO_ACTION}
        yield Access(f"ec2:{request.operation}", request.arn("ec2", f"{_kind(name)}/{name}"), context)


def _kind(name: str) -> str:
    kinds = {"i": "instance", "vol": "volume", "sg": "security-group", "subnet": "subnet", "eni": "network-interface"}
    return kinds.get(name.partition("-")[0], "*")


def _on_group(request: Request) -> Iterable[Access]:
    group = request.members.get("GroupId", "*")
    yield Access(f"ec2:{request.operation}", request.arn("ec2", f"security-group/{group}"))


def _send_command(request: Request) -> Iterable[Access]:
    """Return the action on the document and on each instance.

    https://docs.aws.amazon.com/systems-manager/latest/userguide/run-command-setting-up.html
    """
    name = request.members["DocumentName"]
    owner = "" if name.startswith("AWS-") else None  # AWS's own documents are nobody's
    yield Access("ssm:SendCommand", request.arn("ssm", f"document/{name}", owner=owner))
    # By tags it may be any instance: which ones, the request does not say.
    for instance in request.members.get("InstanceIds") or (["*"] if request.members.get("Targets") else []):
        tags = resource_tags(request.directory.instance_tags(instance), "ssm:resourcetag/")
        yield Access("ssm:SendCommand", request.arn("ec2", f"instance/{instance}"), tags)


def _parameters(request: Request) -> Iterable[Access]:
    for name in request.members.get("Names") or [request.members.get("Name") or request.members.get("Path", "*")]:
        owner = "" if name.startswith("/aws/service/") else None
        yield Access(f"ssm:{request.operation}", request.arn("ssm", f"parameter/{name.lstrip('/')}", owner=owner))


EC2_RULES: Mapping[str, Rule] = {
    "AuthorizeSecurityGroupEgress": _on_group,
    "AuthorizeSecurityGroupIngress": _on_group,
    "CreateTags": _tag,
    "DeleteSecurityGroup": _on_group,
    "DeleteTags": _tag,
    "RevokeSecurityGroupEgress": _on_group,
    "RevokeSecurityGroupIngress": _on_group,
    "RunInstances": _run_instances,
    "StartInstances": _on_instances,
    "StopInstances": _on_instances,
    "TerminateInstances": _on_instances,
}
SSM_RULES: Mapping[str, Rule] = {
    "DeleteParameter": _parameters,
    "GetParameter": _parameters,
    "GetParameters": _parameters,
    "GetParametersByPath": _parameters,
    "PutParameter": _parameters,
    "SendCommand": _send_command,
}
