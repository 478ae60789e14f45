"""The worker, as who the flows run: a user with the policies that the foundation has for that, and nothing else."""

from deployments.local_aws.account import Account, Credentials
from deployments.local_aws.foundation import STACK_NAME

WORKER = "flows-worker"


def create_worker(account: Account) -> Credentials:
    """Make the worker, for whom the foundation must be laid, and return its access key."""
    stack = account.client("cloudformation").describe_stacks(StackName=STACK_NAME)["Stacks"][0]
    # Every policy of its own that the stack has; those of roles are part of the roles.
    policies = [output["OutputValue"] for output in stack["Outputs"] if output["OutputKey"].endswith("PolicyArn")]
    return account.create_user(WORKER, *policies)
