"""The life of a plain EC2 instance and of the one command it runs: launched once, watched, ended."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from tasks.aws.clients import client
from tasks.aws.errors import (
    CapacityError,
    IdentityError,
    InstanceLostError,
    RequestRefusedError,
    is_code,
    is_transient_error,
    sentence_for,
)
from tasks.aws.identity import DIGEST_TAG, FLOW_RUN_TAG, Owner, adoption_tag
from tasks.aws.instance_requests import (
    BOOT_SECONDS,
    instance_digest,
    instance_name,
    results_uri,
    run_instances_request,
)
from tasks.aws.jobs import Description, How, Patience, Watched, wait
from tasks.aws.settings import Settings
from tasks.contracts import Ec2TrainingSpec

INSTANCE, COMMAND = "instance", "command"
LIVE = ("pending", "running")
_NO_CAPACITY = (
    "InsufficientInstanceCapacity",
    "InsufficientCapacity",
    "Unsupported",
    "SpotMaxPriceTooLow",
    "UnfulfillableCapacity",
)
_MOST_ATTEMPTS = 20
# AWS answers a lack of capacity with status 500, which botocore would ask about ten times over minutes.
_LAUNCH_TRIES = 2
# Until Systems Manager lists a command that it has accepted.
_LISTED_SECONDS = 20.0

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Launch:
    """An instance of ours: whether it is new, and whether this flow run is who asked first."""

    name: str
    instance_id: str
    instance_type: str
    spot: bool
    how: How
    ours: bool


# --- the image ------------------------------------------------------------------------------------------------------


def find_image(parameter: str) -> tuple[str, str]:
    """Return the machine image that a public SSM parameter names, and the name of its root device.

    Raises:
        RequestRefusedError: The region has no such parameter.
    """
    try:
        image_id = str(client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"])
    except ClientError as error:
        if not is_code(error, "ParameterNotFound"):
            raise
        region = client("ssm").meta.region_name
        msg = (
            f"The SSM parameter {parameter} does not exist in {region}: list the images there with "
            "`aws ssm get-parameters-by-path --recursive --path /aws/service/deeplearning/ami`, and give one as "
            "compute.image_parameter"
        )
        raise RequestRefusedError(msg) from error
    image = client("ec2").describe_images(ImageIds=[image_id])["Images"][0]
    return image_id, str(image["RootDeviceName"])


# --- launched once --------------------------------------------------------------------------------------------------


def launch_once(spec: Ec2TrainingSpec, settings: Settings, owner: Owner, patience: Patience) -> Launch:
    """Launch the instance, unless one with this content is running already.

    Safe to repeat: EC2's client token is the token, and who comes second finds the instance by its name, which it is
    given `patience` for. Where there is no capacity, the types that the spec names are tried in turn, as spot first
    where that is asked for.

    Raises:
        CapacityError: There is no capacity for any of them.
        RequestRefusedError: AWS refused for another reason.
    """
    running = find_running(spec, owner)
    if running:
        return running
    tried = []
    for instance_type, spot in _ladder(spec):
        try:
            return _launch(spec, settings, owner, patience, instance_type, spot=spot)
        except ClientError as error:
            if not is_code(error, *_NO_CAPACITY):
                raise _refusal(error) from error
            tried.append(f"{instance_type}{' (spot)' if spot else ''}")
    raise CapacityError(tuple(tried))


def find_running(spec: Ec2TrainingSpec, owner: Owner) -> Launch | None:
    """Return the running instance with this content, if there is one.

    Raises:
        IdentityError: An instance of that name has another content.
    """
    name = instance_name(spec, owner)
    for instance in _named(name, LIVE):
        tags = tags_on(instance)
        if tags.get(DIGEST_TAG) != instance_digest(spec, owner):
            msg = f"The instance {instance['InstanceId']} is named {name} and has another content: rename or end it"
            raise IdentityError(msg)
        ours = tags.get(FLOW_RUN_TAG) == owner.flow_run_id
        if not ours:  # it is wanted, even if the run that launched it is over
            adoption = adoption_tag(tags, owner.flow_run_id)
            client("ec2").create_tags(Resources=[instance["InstanceId"]], Tags=[adoption])
        return _as_launch(name, instance, "adopted", ours=ours)
    return None


def find_listed(spec: Ec2TrainingSpec, owner: Owner, patience: Patience) -> Launch | None:
    """Return the running instance with this content, for which EC2 may have been asked only now.

    Raises:
        IdentityError: An instance of that name has another content.
    """
    return _found(lambda: find_running(spec, owner), patience)


def _found(look: Callable[[], _Found | None], patience: Patience) -> _Found | None:
    """Return what a look finds, looking until the deadline: AWS's lists lag behind what it has accepted."""
    deadline = patience.clock.monotonic() + patience.deadline_seconds
    while (found := look()) is None and patience.clock.monotonic() < deadline:
        patience.clock.sleep(patience.poll_seconds)
    return found


def _ladder(spec: Ec2TrainingSpec) -> list[tuple[str, bool]]:
    types = (spec.compute.instance_type, *spec.compute.fallbacks)
    spot = [(instance_type, True) for instance_type in types] if spec.compute.spot else []
    return [*spot, *((instance_type, False) for instance_type in types)]


def _launch(
    spec: Ec2TrainingSpec, settings: Settings, owner: Owner, patience: Patience, instance_type: str, *, spot: bool
) -> Launch:
    name = instance_name(spec, owner)
    # Terminated ones are listed for an hour, as long as their tokens are remembered.
    first = 1 + len(_named(name, ("shutting-down", "terminated", "stopping", "stopped")))
    for attempt in range(first, first + _MOST_ATTEMPTS):
        request = run_instances_request(spec, settings, owner, instance_type=instance_type, spot=spot, attempt=attempt)
        try:
            instance = client("ec2", attempts=_LAUNCH_TRIES).run_instances(**request)["Instances"][0]
        except ClientError as error:
            # Another flow run asked at the same moment, or this one before it was started anew: same token, other tags.
            # That instance is the one.
            found = find_listed(spec, owner, patience) if is_code(error, "IdempotentParameterMismatch") else None
            if found is None:
                raise
            return found
        if instance["State"]["Name"] in LIVE:
            return _as_launch(name, instance, "created", ours=True)
    msg = f"{_MOST_ATTEMPTS} instances named {name} have come and gone within the hour: look into why first"
    raise RequestRefusedError(msg)


def _as_launch(name: str, instance: Description, how: How, *, ours: bool) -> Launch:
    spot = instance.get("InstanceLifecycle") == "spot"
    return Launch(name, instance["InstanceId"], instance["InstanceType"], spot, how, ours)


def _named(name: str, states: tuple[str, ...]) -> list[Description]:
    return instances_with({"tag:Name": [name], "instance-state-name": states})


def instances_with(wanted: Mapping[str, Sequence[str]]) -> list[Description]:
    """Return the instances that pass EC2's filters."""
    filters = [{"Name": name, "Values": list(values)} for name, values in wanted.items()]
    pages = client("ec2").get_paginator("describe_instances").paginate(Filters=filters)
    return [instance for page in pages for group in page["Reservations"] for instance in group["Instances"]]


def tags_on(instance: Description) -> dict[str, str]:
    """Return the tags of an instance."""
    return {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}


def _refusal(error: ClientError) -> Exception:
    if is_transient_error(error):
        return error
    hint = " (ask for a higher quota in Service Quotas)" if is_code(error, "VcpuLimitExceeded") else ""
    return RequestRefusedError(f"The instance was not launched: {sentence_for(error)}{hint}")


# --- looked at ------------------------------------------------------------------------------------------------------


def describe_instance(instance_id: str) -> Description:
    """Return EC2's description of an instance; a new one may not be known everywhere at once."""
    try:
        groups = client("ec2").describe_instances(InstanceIds=[instance_id])["Reservations"]
    except ClientError as error:
        if not is_code(error, "InvalidInstanceID.NotFound"):
            raise
        return {"InstanceId": instance_id, "State": {"Name": "pending"}}
    return dict(groups[0]["Instances"][0])


def check_alive(launch: Launch) -> Description:
    """Return the description of an instance that is there.

    Raises:
        InstanceLostError: It is not; with EC2's reason.
    """
    instance = describe_instance(launch.instance_id)
    state = instance["State"]["Name"]
    if state not in LIVE:
        reason = instance.get("StateReason", {}).get("Message", "")
        raise InstanceLostError(INSTANCE, f"{launch.instance_id} ({launch.name})", state, reason)
    return instance


def await_agent(
    launch: Launch, patience: Patience, on_look: Callable[[Description], object] = lambda _instance: None
) -> Description:
    """Wait until the SSM agent of an instance takes commands, and return the instance.

    Raises:
        InstanceLostError: The instance went away.
        DeadlineError: The agent did not come: the image has none, or the instance cannot reach Systems Manager.
    """

    def look() -> Description:
        instance = check_alive(launch)
        filters = [{"Key": "InstanceIds", "Values": [launch.instance_id]}]
        agents = client("ssm").describe_instance_information(Filters=filters)["InstanceInformationList"]
        online = any(agent["PingStatus"] == "Online" for agent in agents)
        return instance | {"Status": "Online" if online else "without its SSM agent"}

    running = frozenset({"without its SSM agent"})
    return wait(Watched(INSTANCE, launch.instance_id, look, _status, running, "Online"), patience, on_look)


def terminate(instance_id: str) -> bool:
    """End an instance, and tell whether there was anything to end; safe to repeat."""
    try:
        client("ec2").terminate_instances(InstanceIds=[instance_id])
    except ClientError as error:
        if is_code(error, "InvalidInstanceID.NotFound"):
            return False
        raise
    return True


# --- its command ----------------------------------------------------------------------------------------------------


def find_command(launch: Launch) -> str | None:
    """Return the id of the command that trains on an instance, if it has been sent."""
    for command in client("ssm").list_commands(InstanceId=launch.instance_id)["Commands"]:
        if command.get("Comment") == launch.name:
            return str(command["CommandId"])
    return None


def send_once(launch: Launch, request: Callable[[Description], dict[str, Any]], patience: Patience) -> str:
    """Send the command, unless it has been sent, and return its id.

    SendCommand has no token, so only who launched the instance sends at once; anybody else waits, and sends when the
    launcher has not come to it by the deadline. A transient error is passed on when the command was not accepted all
    the same, so that it is safe to send it again.
    """
    found = find_command(launch) if launch.ours else _found(lambda: find_command(launch), patience)
    if found:
        return found
    instance = check_alive(launch)
    try:
        # Once: botocore would send again without a look, and two trainings would write to one folder.
        answer = client("ssm", attempts=1).send_command(**request(instance))
    except (ClientError, BotoCoreError) as error:
        lagging = replace(patience, deadline_seconds=_LISTED_SECONDS)
        found = _found(lambda: find_command(launch), lagging) if is_transient_error(error) else None
        if found is None:
            raise
        return found
    return str(answer["Command"]["CommandId"])


def await_command(
    launch: Launch,
    command_id: str,
    patience: Patience,
    on_look: Callable[[Description], None],
    log_tail: Callable[[], tuple[str, ...]],
) -> Description:
    """Wait until the command has ended well.

    Raises:
        JobFailedError: It failed, with its exit code.
        JobStoppedError: It was cancelled, or ran out of its time.
        InstanceLostError: The instance went away under it.
        DeadlineError: It was still running at the deadline.
    """

    def look() -> Description:
        invocation = _invocation(launch, command_id)
        if invocation["Status"] != "Success":
            check_alive(launch)
        return invocation

    running = frozenset({"Pending", "InProgress", "Delayed", "Cancelling"})
    watched = Watched(COMMAND, f"{command_id} ({launch.name})", look, _status, running, "Success")
    return wait(watched, patience, on_look, log_tail)


def cancel_command(command_id: str) -> None:
    """Cancel a command; safe to repeat."""
    client("ssm").cancel_command(CommandId=command_id)


def _status(description: Description) -> str:
    return str(description["Status"])


def _invocation(launch: Launch, command_id: str) -> Description:
    """Return the command on its instance, with its ends in the words that jobs have: Stopped, MaxRuntimeExceeded."""
    try:
        answer = dict(client("ssm").get_command_invocation(CommandId=command_id, InstanceId=launch.instance_id))
    except ClientError as error:
        if not is_code(error, "InvocationDoesNotExist"):  # it is not everywhere at once
            raise
        return {"Status": "Pending"}
    details = answer.get("StatusDetails", "")
    if answer["Status"] == "TimedOut":
        secondary = "MaxRuntimeExceeded" if details.replace(" ", "") == "ExecutionTimedOut" else details
        return answer | {"Status": "Stopped", "SecondaryStatus": secondary, "FailureReason": details}
    if answer["Status"] == "Cancelled":
        return answer | {"Status": "Stopped"}
    if answer["Status"] == "Failed":
        return answer | {"FailureReason": f"exit code {answer.get('ResponseCode')}"}
    return answer


# --- its result -----------------------------------------------------------------------------------------------------


def read_result(settings: Settings, name: str) -> dict[str, Any] | None:
    """Return what a training on an instance wrote when it had finished; None when it has not."""
    bucket, _, key = f"{results_uri(settings, name)}/result.json".removeprefix("s3://").partition("/")
    try:
        body = client("s3").get_object(Bucket=bucket, Key=key, ExpectedBucketOwner=settings.account_id)["Body"].read()
    except ClientError as error:
        if is_code(error, "NoSuchKey", "404"):
            return None
        raise
    return dict(json.loads(body))


def longest_seconds(spec: Ec2TrainingSpec) -> float:
    """Return how long the instance may live at most: after that it ends itself."""
    return spec.compute.max_runtime_seconds + BOOT_SECONDS
