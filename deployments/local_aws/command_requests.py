"""What of Run Command's requests is there, and what a command is to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from deployments.local_aws.protocol import AwsError
from deployments.local_aws.refusals import Supported

DOCUMENT = "AWS-RunShellScript"
PLUGIN = "aws:runShellScript"
_DELIVERY_SECONDS = 600
_EXECUTION_SECONDS = 3600
_MOST_EXECUTION_SECONDS = 172_800
_PARAMETERS = ("commands", "workingDirectory", "executionTimeout")
_PAGE = 50
_PAGES = ("CommandId", "InstanceId", "Filters", "MaxResults", "NextToken")

SUPPORTED: Mapping[str, Supported] = {
    "SendCommand": Supported(
        honoured=(
            "CloudWatchOutputConfig",
            "Comment",
            "DocumentName",
            "InstanceIds",
            "OutputS3BucketName",
            "OutputS3KeyPrefix",
            "Parameters",
            "TimeoutSeconds",
        ),
        recorded=("OutputS3Region",),  # AWS ignores it too
        only={"DocumentVersion": ("$DEFAULT", "$LATEST", "1")},
    ),
    "GetCommandInvocation": Supported(honoured=("CommandId", "InstanceId", "PluginName")),
    "ListCommandInvocations": Supported(honoured=(*_PAGES, "Details")),
    "ListCommands": Supported(honoured=_PAGES),
    "CancelCommand": Supported(honoured=("CommandId", "InstanceIds")),
    "DescribeInstanceInformation": Supported(
        honoured=("Filters", "InstanceInformationFilterList", "MaxResults", "NextToken")
    ),
}


@dataclass(frozen=True)
class CommandRequest:
    """A SendCommand request that was accepted."""

    id: str
    requested: datetime
    members: Mapping[str, Any]

    @property
    def script(self) -> str:
        """The shell script: the commands, one a line."""
        return "\n".join(self.members["Parameters"]["commands"]) + "\n"

    @property
    def working_directory(self) -> str:
        """Where the script begins; empty for the default."""
        return str(self._parameter("workingDirectory", ""))

    @property
    def execution_seconds(self) -> int:
        """How long the script may run."""
        return int(self._parameter("executionTimeout", _EXECUTION_SECONDS))

    @property
    def expires(self) -> datetime:
        """When Systems Manager gives up an instance that tells nothing."""
        delivery = self.members.get("TimeoutSeconds", _DELIVERY_SECONDS)
        return self.requested + timedelta(seconds=delivery + self.execution_seconds)

    @property
    def log_group(self) -> str | None:
        """The log group for the output, if it is to go to CloudWatch Logs."""
        config = self.members.get("CloudWatchOutputConfig", {})
        if not config.get("CloudWatchOutputEnabled"):
            return None
        return str(config.get("CloudWatchLogGroupName") or f"/aws/ssm/{DOCUMENT}")

    @property
    def bucket(self) -> str | None:
        """The bucket for the output, if there is one."""
        return self.members.get("OutputS3BucketName") or None

    def output_prefix(self, instance_id: str) -> str:
        """Return the prefix of an instance's output in the bucket.

        https://docs.aws.amazon.com/systems-manager/latest/userguide/monitor-commands.html
        """
        parts = (self.members.get("OutputS3KeyPrefix", "").strip("/"), self.id, instance_id, "awsrunShellScript")
        return "/".join((*filter(None, parts), "0.awsrunShellScript"))

    def _parameter(self, name: str, default: Any) -> Any:
        values = self.members["Parameters"].get(name) or [default]
        return values[0] or default


def accepted(command_id: str, request: dict[str, Any]) -> CommandRequest:
    """Return the request of a command that can be run.

    https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_SendCommand.html

    Raises:
        AwsError: InvalidDocument, InvalidParameters, DuplicateInstanceId or InvalidInstanceId.
    """
    if request["DocumentName"].rpartition("/")[2] != DOCUMENT:
        code = "InvalidDocument"
        raise AwsError(code, f"The local AWS runs the document {DOCUMENT} and not {request['DocumentName']}")
    instance_ids = request.get("InstanceIds", [])
    if not instance_ids:
        code, message = "InvalidInstanceId", "InstanceIds or Targets must be specified"
        raise AwsError(code, message)
    if len(set(instance_ids)) != len(instance_ids):
        code, message = "DuplicateInstanceId", "You can't specify an instance ID in more than one association."
        raise AwsError(code, message)
    _check_parameters(request.get("Parameters", {}))
    return CommandRequest(command_id, datetime.now(UTC), request)


def _check_parameters(parameters: Mapping[str, list[str]]) -> None:
    code = "InvalidParameters"
    unknown = sorted(set(parameters) - set(_PARAMETERS))
    if unknown:
        raise AwsError(code, f"Document {DOCUMENT} has no parameter {', '.join(unknown)}")
    if not parameters.get("commands"):
        message = "Missing required parameter: commands"
        raise AwsError(code, message)
    timeout = (parameters.get("executionTimeout") or [str(_EXECUTION_SECONDS)])[0]
    if not timeout.isdecimal() or not 1 <= int(timeout) <= _MOST_EXECUTION_SECONDS:
        raise AwsError(code, f"executionTimeout must be 1 to {_MOST_EXECUTION_SECONDS} seconds, and is {timeout}")


def page(request: Mapping[str, Any], key: str, found: Sequence[dict[str, Any]], size: int = _PAGE) -> dict[str, Any]:
    """Return a page of what was found, and the token of the next one.

    Raises:
        AwsError: InvalidNextToken.
    """
    token = request.get("NextToken") or "0"
    if not token.isdecimal():
        code, message = "InvalidNextToken", "The specified token isn't valid."
        raise AwsError(code, message)
    start = int(token)
    end = start + request.get("MaxResults", size)
    return {key: list(found[start:end])} | ({"NextToken": str(end)} if end < len(found) else {})
