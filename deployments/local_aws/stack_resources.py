"""CloudFormation resources that moto makes and cannot change: an update of the stack would lose them without a word."""

from typing import Any

from moto.cloudformation import parsing  # noqa: F401 - registers moto's own models, so that ours replace them
from moto.core.common_models import CloudFormationModel
from moto.iam.models import InstanceProfile, iam_backends
from moto.logs.models import LogGroup, logs_backends


class CompleteInstanceProfile(CloudFormationModel):
    """AWS::IAM::InstanceProfile whose role can be changed."""

    @staticmethod
    def cloudformation_name_type() -> str:
        """Return the property that names it."""
        return "InstanceProfileName"

    @staticmethod
    def cloudformation_type() -> str:
        """Return the type that this replaces moto's model of."""
        return "AWS::IAM::InstanceProfile"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        """Return whether Fn::GetAtt knows the attribute."""
        return bool(InstanceProfile.has_cfn_attr(attr))

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str, **kwargs: Any
    ) -> InstanceProfile:
        """Make the profile with its role."""
        return InstanceProfile.create_from_cloudformation_json(
            resource_name, cloudformation_json, account_id, region_name, **kwargs
        )

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: InstanceProfile,
        new_resource_name: str,  # noqa: ARG003 - moto's signature
        cloudformation_json: dict[str, Any],
        account_id: str,
        region_name: str,  # noqa: ARG003 - moto's signature
    ) -> InstanceProfile:
        """Give the profile the role that the template names now."""
        iam = iam_backends[account_id]["aws"]
        original_resource.roles = [iam.get_role(name) for name in cloudformation_json["Properties"]["Roles"]]
        return original_resource

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str
    ) -> None:
        """Delete the profile."""
        InstanceProfile.delete_from_cloudformation_json(resource_name, cloudformation_json, account_id, region_name)


class CompleteLogGroup(CloudFormationModel):
    """AWS::Logs::LogGroup whose retention can be changed."""

    @staticmethod
    def cloudformation_name_type() -> str:
        """Return the property that names it."""
        return "LogGroupName"

    @staticmethod
    def cloudformation_type() -> str:
        """Return the type that this replaces moto's model of."""
        return "AWS::Logs::LogGroup"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        """Return whether Fn::GetAtt knows the attribute."""
        return bool(LogGroup.has_cfn_attr(attr))

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str, **kwargs: Any
    ) -> LogGroup:
        """Make the group."""
        return LogGroup.create_from_cloudformation_json(
            resource_name, cloudformation_json, account_id, region_name, **kwargs
        )

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: LogGroup,
        new_resource_name: str,  # noqa: ARG003 - moto's signature
        cloudformation_json: dict[str, Any],
        account_id: str,  # noqa: ARG003 - moto's signature
        region_name: str,  # noqa: ARG003 - moto's signature
    ) -> LogGroup:
        """Keep the lines as long as the template says now; they stay where they are."""
        original_resource.set_retention_policy(cloudformation_json["Properties"].get("RetentionInDays"))
        return original_resource

    @classmethod
    def delete_from_cloudformation_json(
        cls,
        resource_name: str,
        cloudformation_json: dict[str, Any],  # noqa: ARG003 - moto's signature
        account_id: str,
        region_name: str,
    ) -> None:
        """Delete the group with its lines."""
        logs_backends[account_id][region_name].delete_log_group(resource_name)
