"""What a request asks for, as the services' own tables of actions see it.

https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from deployments.local_aws.policy_conditions import Context
from deployments.local_aws.policy_evaluation import Access


class Directory(Protocol):
    """What of the account's state decides about access."""

    account_id: str
    region: str

    def instance_tags(self, instance_id: str) -> Mapping[str, str]:
        """Return the tags of an EC2 instance, none if there is none."""
        ...

    def sagemaker_tags(self, arn: str) -> Mapping[str, str]:
        """Return the tags of a resource of SageMaker, none if there is none."""
        ...

    def profile_roles(self, profile: Mapping[str, str]) -> list[str]:
        """Return the ARNs of the roles in an instance profile, which a request names or gives the ARN of."""
        ...

    def stack_arn(self, name: str) -> str:
        """Return the ARN of a CloudFormation stack."""
        ...


@dataclass(frozen=True)
class Request:
    """A call of an operation, by its members."""

    operation: str
    members: Mapping[str, Any]
    directory: Directory

    def arn(self, service: str, resource: str, *, owner: str | None = None) -> str:
        """Return the ARN of a resource in this account and region; what is AWS's own has no owner: ``owner=""``."""
        account = self.directory.account_id if owner is None else owner
        return f"arn:aws:{service}:{self.directory.region}:{account}:{resource}"


Rule = Callable[[Request], Iterable[Access]]
"""Returns what an operation needs; all of it must be allowed."""


def request_tags(tags: Any) -> Context:
    """Return the condition keys of the tags that a request puts on something: a list of Key and Value, or a mapping.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html#condition-keys-requesttag
    """
    pairs = dict(tags) if isinstance(tags, Mapping) else {tag["Key"]: tag.get("Value", "") for tag in tags or ()}
    return {
        "aws:requesttag/": (),
        "aws:tagkeys": tuple(pairs),
        **{f"aws:requesttag/{key.lower()}": (str(value),) for key, value in pairs.items()},
    }


def resource_tags(tags: Mapping[str, str], *prefixes: str) -> Context:
    """Return the condition keys of the tags that a resource has, under AWS's global name and a service's own."""
    context: dict[str, tuple[str, ...]] = {}
    for prefix in ("aws:resourcetag/", *prefixes):
        context[prefix] = ()
        context |= {f"{prefix}{key.lower()}": (value,) for key, value in tags.items()}
    return context


def pass_role(role_arn: str, service: str) -> Access:
    """Return what handing a role to a service needs.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_passrole.html
    """
    return Access("iam:PassRole", role_arn, {"iam:passedtoservice": (service,)})
