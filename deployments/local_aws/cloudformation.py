"""What moto's CloudFormation lacks for the foundation, in moto's own manner, and a no to what it would drop.

moto makes a stack of whatever template it gets, and leaves out the resource types and properties it does not know
with a warning at most. Here a template that holds anything not in the table below is refused, and the gaps in the
table's types are closed: what a template asks for can be read back through the service's own API.
"""

import json
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import yaml
from moto.cloudformation import parsing  # registers moto's own models, so that ours come after and replace them
from moto.cloudformation.models import ChangeSet
from moto.core.common_models import CloudFormationModel
from moto.iam.models import ManagedPolicy, Role, iam_backends
from moto.s3.models import FakeBucket, S3Backend, s3_backends

from deployments.local_aws import stack_resources  # noqa: F401 - registers its models
from deployments.local_aws.protocol import AwsError

# The properties that are kept, by resource type. What is not here is refused.
_PROPERTIES: dict[str, frozenset[str]] = {
    "AWS::S3::Bucket": frozenset(
        {
            "BucketName",
            "BucketEncryption",
            "LifecycleConfiguration",
            "OwnershipControls",
            "PublicAccessBlockConfiguration",
            "Tags",
            "VersioningConfiguration",
        }
    ),
    "AWS::S3::BucketPolicy": frozenset({"Bucket", "PolicyDocument"}),
    "AWS::IAM::Role": frozenset(
        {"AssumeRolePolicyDocument", "Description", "MaxSessionDuration", "Path", "Policies", "RoleName", "Tags"}
    ),
    "AWS::IAM::ManagedPolicy": frozenset(
        {"Description", "Groups", "ManagedPolicyName", "Path", "PolicyDocument", "Roles", "Users"}
    ),
    "AWS::IAM::InstanceProfile": frozenset({"InstanceProfileName", "Path", "Roles"}),
    # Its rules are left out: moto drops those of the way out.
    "AWS::EC2::SecurityGroup": frozenset({"GroupDescription", "Tags", "VpcId"}),
    "AWS::Logs::LogGroup": frozenset({"LogGroupName", "RetentionInDays"}),
}
_RULE_PROPERTIES = frozenset(
    {"Id", "Status", "Prefix", "ExpirationInDays", "AbortIncompleteMultipartUpload", "NoncurrentVersionExpiration"}
)
_SECTIONS = frozenset(
    {
        "AWSTemplateFormatVersion",
        "Conditions",
        "Description",
        "Mappings",
        "Metadata",
        "Outputs",
        "Parameters",
        "Resources",
    }
)
_ATTRIBUTES = frozenset(
    {"Type", "Properties", "Condition", "DependsOn", "DeletionPolicy", "UpdateReplacePolicy", "Metadata"}
)


def check_template_request(request: dict[str, Any]) -> None:
    """Refuse a request whose template asks for what would be dropped.

    Raises:
        AwsError: ValidationError, as CloudFormation answers to a template that it cannot read.
    """
    if "TemplateURL" in request:
        reason = "the local AWS takes templates in TemplateBody only, not by TemplateURL"
        raise _invalid(reason)
    body = request.get("TemplateBody")
    if body is None:  # UsePreviousTemplate
        return
    problems = list(_problems(_load(body)))
    if problems:
        reason = f"the local AWS does not implement {'; '.join(problems)}"
        raise _invalid(reason)


def _invalid(reason: str) -> AwsError:
    return AwsError("ValidationError", f"Template format error: {reason}")


class _TemplateLoader(yaml.SafeLoader):
    """A safe loader that reads CloudFormation's tags. moto's own would run what a !!python tag names."""


def _construct_function(loader: yaml.SafeLoader, tag_suffix: str, node: yaml.Node) -> Any:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)  # type: ignore[arg-type]
    return {tag_suffix if tag_suffix in ("Ref", "Condition") else f"Fn::{tag_suffix}": value}


_TemplateLoader.add_multi_constructor("!", _construct_function)


def _load(body: str) -> dict[str, Any]:
    try:
        # JSON is YAML too, but for tabs.
        is_json = body.lstrip().startswith("{")
        template = json.loads(body) if is_json else yaml.load(body, Loader=_TemplateLoader)  # noqa: S506 - a safe one
    except (yaml.YAMLError, ValueError) as error:
        reason = f"the template is neither YAML nor JSON: {error}"
        raise _invalid(reason) from error
    if not isinstance(template, dict) or not isinstance(template.get("Resources"), dict):
        reason = "at least one Resources member must be defined"
        raise _invalid(reason)
    return template


def _problems(template: dict[str, Any]) -> Iterator[str]:
    yield from (f"the template's section {name}" for name in template if name not in _SECTIONS)
    for logical_id, resource in template["Resources"].items():
        resource_type = resource.get("Type")
        if resource_type not in _PROPERTIES:
            yield f"the resource type {resource_type} ({logical_id})"
            continue
        yield from (f"{name} of a resource ({logical_id})" for name in resource if name not in _ATTRIBUTES)
        properties = resource.get("Properties") or {}
        unknown = sorted(set(properties) - _PROPERTIES[resource_type])
        yield from (f"the property {name} of {resource_type} ({logical_id})" for name in unknown)
        yield from (f"{name} of a lifecycle rule ({logical_id})" for name in _unknown_in_rules(properties))


def _unknown_in_rules(properties: dict[str, Any]) -> list[str]:
    rules = properties.get("LifecycleConfiguration", {}).get("Rules", [])
    return sorted({name for rule in rules for name in rule} - _RULE_PROPERTIES)


class Bucket(CloudFormationModel):
    """AWS::S3::Bucket with every property of the table; moto's own keeps the encryption and the tags only."""

    @staticmethod
    def cloudformation_name_type() -> str:
        """Return the property that names it."""
        return "BucketName"

    @staticmethod
    def cloudformation_type() -> str:
        """Return the type that this replaces moto's model of."""
        return "AWS::S3::Bucket"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        """Return whether Fn::GetAtt knows the attribute."""
        return bool(FakeBucket.has_cfn_attr(attr))

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str, **kwargs: Any
    ) -> FakeBucket:
        """Make the bucket and all that the template asks of it."""
        bucket = FakeBucket.create_from_cloudformation_json(
            resource_name, cloudformation_json, account_id, region_name, **kwargs
        )
        _complete(bucket.name, cloudformation_json.get("Properties", {}), s3_backends[account_id]["aws"])
        return bucket

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: FakeBucket,
        new_resource_name: str,
        cloudformation_json: dict[str, Any],
        account_id: str,
        region_name: str,
    ) -> FakeBucket:
        """Change the bucket to what the template asks now."""
        bucket = FakeBucket.update_from_cloudformation_json(
            original_resource, new_resource_name, cloudformation_json, account_id, region_name
        )
        _complete(bucket.name, cloudformation_json.get("Properties", {}), s3_backends[account_id]["aws"])
        return bucket

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str
    ) -> None:
        """Delete the bucket."""
        FakeBucket.delete_from_cloudformation_json(resource_name, cloudformation_json, account_id, region_name)


def _complete(bucket: str, properties: dict[str, Any], s3: S3Backend) -> None:
    for name, apply in _COMPLETIONS.items():
        if name in properties:
            apply(s3, bucket, properties[name])


def _put_lifecycle(s3: S3Backend, bucket: str, value: dict[str, Any]) -> None:
    s3.put_bucket_lifecycle_configuration(bucket, [_lifecycle_rule(rule) for rule in value["Rules"]])


def _lifecycle_rule(rule: dict[str, Any]) -> dict[str, Any]:
    """Return the rule as S3's API spells it; moto keeps the numbers as the strings that they are in XML."""
    spelled: dict[str, Any] = {
        "ID": rule.get("Id", ""),
        "Status": rule["Status"],
        "Filter": {"Prefix": rule.get("Prefix", "")},
    }
    if "ExpirationInDays" in rule:
        spelled["Expiration"] = {"Days": str(rule["ExpirationInDays"])}
    for name in ("AbortIncompleteMultipartUpload", "NoncurrentVersionExpiration"):
        if name in rule:
            spelled[name] = {key: str(days) for key, days in rule[name].items()}
    return spelled


def _put_ownership(s3: S3Backend, bucket: str, value: dict[str, Any]) -> None:
    s3.put_bucket_ownership_controls(bucket, value["Rules"][0]["ObjectOwnership"])


_COMPLETIONS: dict[str, Callable[[S3Backend, str, dict[str, Any]], None]] = {
    "LifecycleConfiguration": _put_lifecycle,
    "OwnershipControls": _put_ownership,
    "PublicAccessBlockConfiguration": lambda s3, bucket, value: s3.put_public_access_block(bucket, value),
    "VersioningConfiguration": lambda s3, bucket, value: s3.put_bucket_versioning(bucket, value["Status"]),
}


class BucketPolicy(CloudFormationModel):
    """AWS::S3::BucketPolicy, which moto has not."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket

    @property
    def physical_resource_id(self) -> str:
        """The bucket's name, as on AWS."""
        return self.bucket

    @staticmethod
    def cloudformation_name_type() -> str:
        """Return no property: it has no name of its own."""
        return ""

    @staticmethod
    def cloudformation_type() -> str:
        """Return its type."""
        return "AWS::S3::BucketPolicy"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:  # noqa: ARG003 - moto's signature
        """Return that Fn::GetAtt knows none."""
        return False

    @classmethod
    def create_from_cloudformation_json(
        cls,
        resource_name: str,  # noqa: ARG003 - moto's signature
        cloudformation_json: dict[str, Any],
        account_id: str,
        region_name: str,  # noqa: ARG003 - moto's signature
        **_kwargs: Any,
    ) -> "BucketPolicy":
        """Put the policy on its bucket."""
        properties = cloudformation_json["Properties"]
        policy = _json(properties["PolicyDocument"]).encode()
        s3_backends[account_id]["aws"].put_bucket_policy(properties["Bucket"], policy)
        return cls(properties["Bucket"])

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: "BucketPolicy",
        new_resource_name: str,
        cloudformation_json: dict[str, Any],
        account_id: str,
        region_name: str,
    ) -> "BucketPolicy":
        """Put the changed policy, on another bucket if it moved."""
        if original_resource.bucket != cloudformation_json["Properties"]["Bucket"]:
            cls.delete_from_cloudformation_json(original_resource.bucket, {}, account_id, region_name)
        return cls.create_from_cloudformation_json(new_resource_name, cloudformation_json, account_id, region_name)

    @classmethod
    def delete_from_cloudformation_json(
        cls,
        resource_name: str,
        cloudformation_json: dict[str, Any],  # noqa: ARG003 - moto's signature
        account_id: str,
        region_name: str,  # noqa: ARG003 - moto's signature
    ) -> None:
        """Take the policy off its bucket."""
        s3_backends[account_id]["aws"].delete_bucket_policy(resource_name)


class CompleteRole(CloudFormationModel):
    """AWS::IAM::Role whose update changes what the template changed; moto's own update forgets the policies."""

    @staticmethod
    def cloudformation_name_type() -> str:
        """Return the property that names it."""
        return "RoleName"

    @staticmethod
    def cloudformation_type() -> str:
        """Return the type that this replaces moto's model of."""
        return "AWS::IAM::Role"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        """Return whether Fn::GetAtt knows the attribute."""
        return bool(Role.has_cfn_attr(attr))

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str, **kwargs: Any
    ) -> Role:
        """Make the role and its inline policies."""
        role = Role.create_from_cloudformation_json(
            resource_name, cloudformation_json, account_id, region_name, **kwargs
        )
        return _with_policies(role, cloudformation_json["Properties"])

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: Role,
        new_resource_name: str,  # noqa: ARG003 - moto's signature
        cloudformation_json: dict[str, Any],
        account_id: str,
        region_name: str,  # noqa: ARG003 - moto's signature
    ) -> Role:
        """Change the role to what the template asks now; a new name or path would need another role."""
        properties = cloudformation_json["Properties"]
        name, path = properties.get("RoleName", original_resource.name), properties.get("Path", "/")
        if (name, path) != (original_resource.name, original_resource.path):
            reason = "the local AWS does not implement the change of a role's name or path"
            raise _invalid(reason)
        role = iam_backends[account_id]["aws"].update_role(
            original_resource.name, properties.get("Description", ""), properties.get("MaxSessionDuration", 3600)
        )
        return _with_policies(role, properties)

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str
    ) -> None:
        """Delete the role."""
        Role.delete_from_cloudformation_json(resource_name, cloudformation_json, account_id, region_name)


def _with_policies(role: Role, properties: dict[str, Any]) -> Role:
    role.assume_role_policy_document = _json(properties["AssumeRolePolicyDocument"])
    role.policies = {policy["PolicyName"]: _json(policy["PolicyDocument"]) for policy in properties.get("Policies", [])}
    return role


class CompleteManagedPolicy(CloudFormationModel):
    """AWS::IAM::ManagedPolicy that can be updated; moto's own forgets the resource over an update."""

    @staticmethod
    def cloudformation_name_type() -> str:
        """Return the property that names it."""
        return "ManagedPolicyName"

    @staticmethod
    def cloudformation_type() -> str:
        """Return the type that this replaces moto's model of."""
        return "AWS::IAM::ManagedPolicy"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:  # noqa: ARG003 - moto's signature
        """Return that Fn::GetAtt knows none; Ref is the ARN."""
        return False

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str, **kwargs: Any
    ) -> ManagedPolicy:
        """Make the policy and attach it where it says."""
        properties = cloudformation_json["Properties"]
        properties["PolicyDocument"] = json.loads(_json(properties["PolicyDocument"]))
        properties.setdefault("Path", "/")
        return ManagedPolicy.create_from_cloudformation_json(
            resource_name, cloudformation_json, account_id, region_name, **kwargs
        )

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: ManagedPolicy,
        new_resource_name: str,  # noqa: ARG003 - moto's signature
        cloudformation_json: dict[str, Any],
        account_id: str,
        region_name: str,  # noqa: ARG003 - moto's signature
    ) -> ManagedPolicy:
        """Make the document that the template has now the default version."""
        iam = iam_backends[account_id]["aws"]
        for version in [version for version in original_resource.versions if not version.is_default]:
            iam.delete_policy_version(original_resource.arn, version.version_id)  # AWS keeps five; here the last two
        iam.create_policy_version(
            original_resource.arn, _json(cloudformation_json["Properties"]["PolicyDocument"]), set_as_default=True
        )
        return original_resource

    @classmethod
    def delete_from_cloudformation_json(
        cls,
        resource_name: str,
        cloudformation_json: dict[str, Any],  # noqa: ARG003 - moto's signature
        account_id: str,
        region_name: str,  # noqa: ARG003 - moto's signature
    ) -> None:
        """Delete the policy, which its ARN names."""
        iam_backends[account_id]["aws"].delete_policy(resource_name)


def _json(document: Any) -> str:
    """Return a policy as JSON; YAML reads Version: 2012-10-17 without quotes as a date."""
    if isinstance(document, str):
        return document
    return json.dumps(document, default=lambda value: value.isoformat() if isinstance(value, date) else str(value))


def _apply(change_set: ChangeSet) -> None:
    """Do what a change set says; moto leaves the stack's outputs as they were, of a new stack none."""
    stack = change_set.stack
    stack.resource_map.update(change_set.template_dict, change_set.parameters)
    stack.template_dict = change_set.template_dict
    stack.output_map = parsing.OutputMap(stack.resource_map, stack.template_dict, stack.stack_id)


ChangeSet.apply = _apply  # type: ignore[method-assign, assignment]

# moto remembers its list of models from the first template on.
parsing.get_model_list.cache_clear()
parsing.get_model_map.cache_clear()
parsing.get_name_type_map.cache_clear()
