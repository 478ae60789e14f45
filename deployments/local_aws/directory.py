"""What of the account's state decides about access: tags, roles in profiles, ARNs of stacks."""

from collections.abc import Mapping

from moto.cloudformation.models import cloudformation_backends
from moto.ec2.models import ec2_backends
from moto.iam.exceptions import NotFoundException
from moto.iam.models import iam_backends

from deployments.local_aws.account import Account


class AccountDirectory:
    """The state of one account, as moto keeps it."""

    def __init__(self, account: Account) -> None:
        self.account_id, self.region = account.account_id, account.region
        self._sagemaker_tags = account.sagemaker_tags

    def instance_tags(self, instance_id: str) -> Mapping[str, str]:
        """Return the tags of an EC2 instance, none if there is none."""
        return dict(ec2_backends[self.account_id][self.region].tags.get(instance_id, {}))

    def sagemaker_tags(self, arn: str) -> Mapping[str, str]:
        """Return the tags of a resource of SageMaker, none if there is none."""
        return self._sagemaker_tags.find(arn)

    def profile_roles(self, profile: Mapping[str, str]) -> list[str]:
        """Return the ARNs of the roles in an instance profile, which a request names or gives the ARN of."""
        iam = iam_backends[self.account_id]["aws"]
        try:
            if "Arn" in profile:
                found = iam.get_instance_profile_by_arn(profile["Arn"])
            elif "Name" in profile:
                found = iam.get_instance_profile(profile["Name"])
            else:
                return []
        except NotFoundException:  # EC2 says so, when it looks for it
            return []
        return [role.arn for role in found.roles]

    def stack_arn(self, name: str) -> str:
        """Return the ARN of a CloudFormation stack; of one that does not exist, with a star where its id would be."""
        if name.startswith("arn:"):
            return name
        for stack in cloudformation_backends[self.account_id][self.region].stacks.values():
            if stack.name == name:
                return str(stack.stack_id)
        return f"arn:aws:cloudformation:{self.region}:{self.account_id}:stack/{name}/*"
