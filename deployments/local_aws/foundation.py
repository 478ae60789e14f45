"""Lay the foundation in a local AWS, by the same template and the same call as in a real account."""

from pathlib import Path

from deployments.local_aws.account import Account

STACK_NAME = "sagemaker-flows"
TEMPLATE = Path(__file__).parent.parent / "foundation.yaml"


def lay_foundation(account: Account) -> None:
    """Create the stack through CloudFormation's API; returns when it stands."""
    cloudformation = account.client("cloudformation")
    cloudformation.create_stack(
        StackName=STACK_NAME, TemplateBody=TEMPLATE.read_text("utf-8"), Capabilities=["CAPABILITY_IAM"]
    )
    waiter = cloudformation.get_waiter("stack_create_complete")
    waiter.wait(StackName=STACK_NAME, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
