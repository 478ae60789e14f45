"""Systems Manager's Run Command: shell scripts on the account's instances, sent, listed, cancelled."""

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from deployments.local_aws.account import Account
from deployments.local_aws.command_descriptions import command_summary, invocation_details, invocation_summary
from deployments.local_aws.command_invocation import Invocation
from deployments.local_aws.command_requests import DOCUMENT, PLUGIN, SUPPORTED, CommandRequest, accepted, page
from deployments.local_aws.instances import Instances
from deployments.local_aws.managed_nodes import ManagedNodes
from deployments.local_aws.protocol import AwsError, Operation

# What moto is left to answer: parameters, which it keeps truly.
PARAMETER_OPERATIONS = frozenset(
    {
        "AddTagsToResource",
        "DeleteParameter",
        "DeleteParameters",
        "DescribeParameters",
        "GetParameter",
        "GetParameterHistory",
        "GetParameters",
        "GetParametersByPath",
        "LabelParameterVersion",
        "ListTagsForResource",
        "PutParameter",
        "RemoveTagsFromResource",
    }
)


@dataclass(frozen=True)
class _Command:
    request: CommandRequest
    invocations: Mapping[str, Invocation]
    sent_at: float

    def summary(self) -> dict[str, Any]:
        return command_summary(self.request, [invocation.outcome for invocation in self.invocations.values()])


class RunCommand:
    """The commands of an account.

    https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_SendCommand.html
    """

    propagation_seconds = 0.05  # until a new command's invocations are known everywhere

    def __init__(self, account: Account, instances: Instances) -> None:
        self._account, self._nodes = account, ManagedNodes(account.account_id, instances)
        self._commands: dict[str, _Command] = {}
        self._lock = threading.RLock()

    def operations(self) -> dict[str, Operation]:
        """Return its operations by their API names; each refuses what it would not do."""
        operations: dict[str, Operation] = {
            "SendCommand": self.send,
            "GetCommandInvocation": self.get_invocation,
            "ListCommandInvocations": self.list_invocations,
            "ListCommands": self.list,
            "CancelCommand": self.cancel,
            **self._nodes.operations(),
        }
        return {name: _checked(name, operation) for name, operation in operations.items()}

    def send(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a command to instances whose agent is online, and begin to run it."""
        command_request = accepted(str(uuid.uuid4()), request)
        instances = [self._nodes.reached(instance_id) for instance_id in request["InstanceIds"]]
        invocations = {one.id: Invocation(self._account, command_request, one) for one in instances}
        command = _Command(command_request, invocations, time.monotonic())
        with self._lock:
            self._commands[command_request.id] = command
        description = command.summary()
        for invocation in invocations.values():
            invocation.start()
        return {"Command": description}

    def get_invocation(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return how a command stands on an instance, and the beginning of what it wrote."""
        command = self._get(request["CommandId"])
        invocation = command.invocations.get(request["InstanceId"])
        if invocation is None or not self._is_visible(command):
            code = "InvocationDoesNotExist"
            raise AwsError(code, "")
        if request.get("PluginName", PLUGIN) != PLUGIN:
            code = "InvalidPluginName"
            raise AwsError(code, f"{DOCUMENT} has no step {request['PluginName']}")
        return invocation_details(invocation)

    def list_invocations(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a page of invocations, the newest first."""
        found = [
            invocation
            for command in self._selected(request)
            if self._is_visible(command)
            for invocation in command.invocations.values()
            if request.get("InstanceId", invocation.instance.id) == invocation.instance.id
            and _matches(request, invocation.request, invocation.outcome.status)
        ]
        details = request.get("Details", False)
        return page(request, "CommandInvocations", [invocation_summary(one, details=details) for one in found])

    def list(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a page of commands, the newest first."""
        commands = [command.summary() for command in self._selected(request)]
        found = [one for one in commands if _matches(request, self._commands[one["CommandId"]].request, one["Status"])]
        return page(request, "Commands", found)

    def cancel(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin to end a command, on all of its instances or on some."""
        command = self._get(request["CommandId"])
        for instance_id in request.get("InstanceIds") or command.invocations:
            if instance_id not in command.invocations:
                code = "InvalidInstanceId"
                raise AwsError(code, f"The command {request['CommandId']} was not sent to {instance_id}")
            command.invocations[instance_id].cancel()
        return {}

    def stop(self) -> None:
        """Return when every command has ended; their instances end before."""
        for command in list(self._commands.values()):
            for invocation in command.invocations.values():
                invocation.join()

    def _is_visible(self, command: _Command) -> bool:
        return time.monotonic() >= command.sent_at + self.propagation_seconds

    def _get(self, command_id: str) -> _Command:
        with self._lock:
            if command_id not in self._commands:
                code = "InvalidCommandId"
                raise AwsError(code, "")
            return self._commands[command_id]

    def _selected(self, request: Mapping[str, Any]) -> Sequence[_Command]:
        if "CommandId" in request:
            return [self._get(request["CommandId"])]
        with self._lock:
            commands = list(self._commands.values())[::-1]
        return [one for one in commands if request.get("InstanceId", next(iter(one.invocations))) in one.invocations]


def _checked(name: str, operation: Operation) -> Operation:
    def refuse_or_run(request: dict[str, Any]) -> dict[str, Any]:
        SUPPORTED[name].check(name, request, "ValidationException")
        return operation(request)

    return refuse_or_run


def _matches(request: Mapping[str, Any], command: CommandRequest, status: str) -> bool:
    return all(_matches_filter(one["key"], one["value"], command, status) for one in request.get("Filters", []))


def _matches_filter(key: str, value: str, command: CommandRequest, status: str) -> bool:
    if key == "Status":
        return status == value
    if key == "DocumentName":
        return value == DOCUMENT
    if key in ("InvokedAfter", "InvokedBefore"):
        limit = datetime.fromisoformat(value)
        return command.requested > limit if key == "InvokedAfter" else command.requested < limit
    code = "InvalidFilterKey"
    raise AwsError(code, f"The local AWS does not implement the filter {key}")
