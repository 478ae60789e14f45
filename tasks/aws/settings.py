"""Where this project's things are, read from the outputs of the foundation stack (deployments/foundation.yaml)."""

import os

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from pydantic import Field

from tasks.aws.clients import client
from tasks.aws.errors import SettingsError, is_code, sentence_for
from tasks.aws.prices import take_kept_prices
from tasks.contracts import Value

DEFAULT_STACK = "sagemaker-flows"
DEFAULT_POLL_SECONDS = 10.0

_HOW_TO_POINT = (
    "start the local AWS (make local-aws, then eval its exports), "
    "or configure AWS credentials and deploy the foundation"
)


class Settings(Value):
    """The foundation as a flow needs it."""

    account_id: str = Field(pattern=r"^\d{12}$")
    region: str
    bucket: str
    training_role_arn: str
    endpoint_role_arn: str
    instance_profile: str
    instance_security_group_id: str
    command_log_group: str
    lambda_role_arn: str
    front_endpoint: str
    reaper_role_arn: str


def load_settings() -> Settings:
    """Read the settings of the account that the environment points at; the prices kept there are used from here on.

    Raises:
        SettingsError: No credentials, a credential that AWS does not accept, or no foundation stack there.
    """
    stack = os.environ.get("SAGEMAKER_FLOWS_STACK", DEFAULT_STACK)
    account_id = _account_id()
    region = client("sts").meta.region_name
    outputs = _stack_outputs(stack, account_id, region)
    try:
        settings = Settings(
            account_id=account_id,
            region=region,
            bucket=outputs["BucketName"],
            training_role_arn=outputs["TrainingRoleArn"],
            endpoint_role_arn=outputs["EndpointRoleArn"],
            instance_profile=outputs["InstanceProfileName"],
            instance_security_group_id=outputs["InstanceSecurityGroupId"],
            command_log_group=outputs["CommandLogGroup"],
            lambda_role_arn=outputs["LambdaRoleArn"],
            front_endpoint=outputs["FrontEndpointName"],
            reaper_role_arn=outputs["ReaperRoleArn"],
        )
    except KeyError as error:
        msg = f"The stack {stack} has no output {error}: deploy deployments/foundation.yaml of this version over it"
        raise SettingsError(msg) from error
    take_kept_prices(settings.bucket, settings.region)
    return settings


def poll_seconds() -> float:
    """Return how long to wait between two looks at a job; the environment decides, since clouds differ in pace."""
    text = os.environ.get("SAGEMAKER_FLOWS_POLL_SECONDS", str(DEFAULT_POLL_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if seconds <= 0:
        msg = f"SAGEMAKER_FLOWS_POLL_SECONDS is {text!r}: set it to a number of seconds greater than 0"
        raise SettingsError(msg)
    return seconds


def instance_venv() -> str:
    """Return the virtual environment of the machine image, which has torch: that of AWS's Deep Learning AMIs.

    SAGEMAKER_FLOWS_EC2_VENV overrules it, for an image that has another.
    """
    return os.environ.get("SAGEMAKER_FLOWS_EC2_VENV", "/opt/pytorch")


def console_address() -> str:
    """Return the address of the console that links lead to; empty for AWS's own."""
    return os.environ.get("SAGEMAKER_FLOWS_CONSOLE_URL", "")


def _account_id() -> str:
    try:
        # The first call of a run: whoever mistyped an address should not wait through ten attempts.
        return str(client("sts", attempts=2).get_caller_identity()["Account"])
    except NoCredentialsError as error:
        msg = f"There are no AWS credentials and no local AWS: {_HOW_TO_POINT}"
        raise SettingsError(msg) from error
    except (ClientError, BotoCoreError) as error:
        msg = f"{sentence_for(error)}: check AWS_ENDPOINT_URL and the credentials, or {_HOW_TO_POINT}"
        raise SettingsError(msg) from error


def _stack_outputs(stack: str, account_id: str, region: str) -> dict[str, str]:
    try:
        description = client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
    except ClientError as error:
        if not is_code(error, "ValidationError"):
            raise
        msg = (
            f"There is no stack {stack} in account {account_id}, {region}: deploy it with `aws cloudformation deploy "
            f"--stack-name {stack} --template-file deployments/foundation.yaml --capabilities CAPABILITY_IAM`"
        )
        raise SettingsError(msg) from error
    return {output["OutputKey"]: output["OutputValue"] for output in description.get("Outputs", [])}
