"""EC2's instances and the commands that were sent to them, as the console shows them."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from botocore.exceptions import ClientError

from deployments.local_aws.console.pages import Clients, Page, Query

_MOST_COMMANDS = 10


def instances(client: Clients, _query: Query) -> Page:
    """Return the instances, the newest first."""
    return Page("instances.html", {"instances": all_instances(client)})


def all_instances(client: Clients) -> Sequence[Mapping[str, Any]]:
    """Return every instance that is known, those that have ended too, the newest first."""
    pages = client("ec2").get_paginator("describe_instances").paginate()
    found = [one for page in pages for group in page["Reservations"] for one in group["Instances"]]
    return sorted(found, key=lambda one: one["LaunchTime"], reverse=True)


def instance(client: Clients, _query: Query, name: str) -> Page:
    """Return one instance and what its commands wrote."""
    reservations = client("ec2").describe_instances(InstanceIds=[name])["Reservations"]
    described = reservations[0]["Instances"][0]
    return Page("instance.html", {"instance": described, "commands": _commands(client("ssm"), name)})


def _commands(ssm: Any, instance_id: str) -> Sequence[Mapping[str, Any]]:
    summaries = ssm.list_command_invocations(InstanceId=instance_id, MaxResults=_MOST_COMMANDS)["CommandInvocations"]
    found = []
    for one in summaries:
        with suppress(ClientError):  # what was sent this moment is not known everywhere yet
            told = ssm.get_command_invocation(CommandId=one["CommandId"], InstanceId=instance_id)
            found.append({**told, "RequestedDateTime": one["RequestedDateTime"]})
    return found
