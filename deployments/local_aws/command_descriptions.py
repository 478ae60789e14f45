"""What Systems Manager tells of a command and of its invocations."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from deployments.local_aws.command_invocation import Invocation, Outcome
from deployments.local_aws.command_requests import DOCUMENT, PLUGIN, CommandRequest

_PLUGIN_OUTPUT_CHARACTERS = 2_500


def command_summary(request: CommandRequest, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return what SendCommand and ListCommands tell."""
    kept = ("Comment", "OutputS3BucketName", "OutputS3KeyPrefix", "Parameters", "TimeoutSeconds", "InstanceIds")
    status, details = _overall(outcomes)
    return {
        "CommandId": request.id,
        "DocumentName": DOCUMENT,
        "DocumentVersion": request.members.get("DocumentVersion", "$DEFAULT"),
        **{name: request.members[name] for name in kept if name in request.members},
        "RequestedDateTime": request.requested,
        "ExpiresAfter": request.expires,
        "Targets": [],
        "MaxConcurrency": "50",
        "MaxErrors": "0",
        "Status": status,
        "StatusDetails": details,
        "TargetCount": len(outcomes),
        "CompletedCount": sum(outcome.ended is not None for outcome in outcomes),
        "ErrorCount": sum(outcome.details in ("Failed", "ExecutionTimedOut") for outcome in outcomes),
        "DeliveryTimedOutCount": sum(outcome.details == "DeliveryTimedOut" for outcome in outcomes),
        "CloudWatchOutputConfig": _log_config(request),
    }


def _overall(outcomes: Sequence[Outcome]) -> tuple[str, str]:
    """Return a command's own status and its details: of those of its invocations the one that weighs most."""
    for details in ("Cancelling", "InProgress"):
        if any(outcome.details == details for outcome in outcomes):
            return details, details
    if any(outcome.ended is None for outcome in outcomes):
        waiting = all(outcome.ended is None for outcome in outcomes)
        return ("Pending", "Pending") if waiting else ("InProgress", "InProgress")
    for details in ("Failed", "ExecutionTimedOut", "DeliveryTimedOut", "Cancelled"):
        for outcome in outcomes:
            if outcome.details == details:
                return outcome.status, details
    return "Success", "Success"


def _log_config(request: CommandRequest) -> dict[str, Any]:
    group = request.log_group
    return {"CloudWatchLogGroupName": group or "", "CloudWatchOutputEnabled": group is not None}


def invocation_details(invocation: Invocation) -> dict[str, Any]:
    """Return what GetCommandInvocation tells."""
    request, outcome = invocation.request, invocation.outcome
    return {
        "CommandId": request.id,
        "InstanceId": invocation.instance.id,
        "Comment": request.members.get("Comment", ""),
        "DocumentName": DOCUMENT,
        "DocumentVersion": request.members.get("DocumentVersion", "$DEFAULT"),
        "PluginName": PLUGIN,
        "ResponseCode": outcome.code,
        "ExecutionStartDateTime": _iso(outcome.started),
        "ExecutionElapsedTime": _elapsed(outcome),
        "ExecutionEndDateTime": _iso(outcome.ended if outcome.started else None),
        "Status": outcome.status,
        "StatusDetails": outcome.details,
        "StandardOutputContent": outcome.stdout,
        "StandardErrorContent": outcome.stderr,
        **_urls(invocation),
        "CloudWatchOutputConfig": _log_config(request),
    }


def invocation_summary(invocation: Invocation, *, details: bool) -> dict[str, Any]:
    """Return what ListCommandInvocations tells."""
    request, outcome = invocation.request, invocation.outcome
    return {
        "CommandId": request.id,
        "InstanceId": invocation.instance.id,
        "InstanceName": "",
        "Comment": request.members.get("Comment", ""),
        "DocumentName": DOCUMENT,
        "DocumentVersion": request.members.get("DocumentVersion", "$DEFAULT"),
        "RequestedDateTime": request.requested,
        "Status": outcome.status,
        "StatusDetails": outcome.details,
        **_urls(invocation),
        "CommandPlugins": [_plugin(invocation, outcome)] if details else [],
        "CloudWatchOutputConfig": _log_config(request),
    }


def _plugin(invocation: Invocation, outcome: Outcome) -> dict[str, Any]:
    errors = f"\n----------ERROR-------\n{outcome.stderr}" if outcome.stderr else ""
    times = {"ResponseStartDateTime": outcome.started, "ResponseFinishDateTime": outcome.ended}
    return {
        "Name": PLUGIN,
        # A plugin knows no Cancelling and no Delayed.
        "Status": "InProgress" if outcome.status == "Cancelling" else outcome.status,
        "StatusDetails": outcome.details,
        "ResponseCode": outcome.code,
        **{name: time for name, time in times.items() if time},
        "Output": f"{outcome.stdout}{errors}"[:_PLUGIN_OUTPUT_CHARACTERS],
        **_urls(invocation),
        "OutputS3BucketName": invocation.request.bucket or "",
        "OutputS3KeyPrefix": invocation.request.output_prefix(invocation.instance.id),
    }


def _urls(invocation: Invocation) -> dict[str, str]:
    return {"StandardOutputUrl": invocation.output_url("stdout"), "StandardErrorUrl": invocation.output_url("stderr")}


def _iso(moment: datetime | None) -> str:
    return "" if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _elapsed(outcome: Outcome) -> str:
    if outcome.started is None:
        return ""
    return f"PT{((outcome.ended or datetime.now(UTC)) - outcome.started).total_seconds():.3f}S"
