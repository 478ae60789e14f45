"""The life of everything that we start at AWS: submitted exactly once, waited for well, stopped when nobody wants it.

SageMaker has no client token; the name is the token. So a name follows from content (identity.py), and a clash of names
is not an error but a question: is it the same content, and how far did it get?
"""

import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from tasks.aws.clients import client, forget_clients
from tasks.aws.errors import (
    DeadlineError,
    IdentityError,
    JobFailedError,
    JobStoppedError,
    RequestRefusedError,
    ResourceError,
    SettingsDroppedError,
    is_code,
    is_transient_error,
    sentence_for,
)
from tasks.aws.identity import DIGEST_TAG, FLOW_RUN_TAG, adoption_tag
from tasks.aws.settings import poll_seconds

How = Literal["created", "adopted", "reused"]
Description = dict[str, Any]

_MOST_ATTEMPTS = 20
_LONGEST_BACKOFF_SECONDS = 60.0
# How long something may take from "stop" to its end, or an endpoint until it can be deleted.
_SETTLE_SECONDS = 1800.0


@dataclass(frozen=True)
class Kind:
    """What a kind of SageMaker resource calls its operations, fields and statuses."""

    noun: str
    operations: str  # as in create_<operations>, describe_<operations>
    prefix: str  # as in <prefix>Name, <prefix>Arn
    status_field: str | None = None  # None: it has no life of its own, and is there as soon as it is made
    running: frozenset[str] = frozenset()
    stopping: frozenset[str] = frozenset()  # not over yet, and nothing that anybody would want to adopt
    good: str = ""
    stop_operation: str | None = None
    stops_while_running: bool = True

    @property
    def name_field(self) -> str:
        """Name of the member that carries the name."""
        return f"{self.prefix}Name"

    @property
    def arn_field(self) -> str:
        """Name of the member that carries the ARN."""
        return f"{self.prefix}Arn"

    def status(self, description: Description) -> str:
        """Return the status in a description."""
        return str(description[self.status_field]) if self.status_field else self.good


TRAINING_JOBS = Kind(
    noun="training job",
    operations="training_job",
    prefix="TrainingJob",
    status_field="TrainingJobStatus",
    running=frozenset({"InProgress"}),
    stopping=frozenset({"Stopping"}),
    good="Completed",
    stop_operation="stop_training_job",
)
TUNING_JOBS = Kind(
    noun="tuning job",
    operations="hyper_parameter_tuning_job",
    prefix="HyperParameterTuningJob",
    status_field="HyperParameterTuningJobStatus",
    running=frozenset({"InProgress"}),
    stopping=frozenset({"Stopping"}),
    good="Completed",
    stop_operation="stop_hyper_parameter_tuning_job",
)
ENDPOINTS = Kind(
    noun="endpoint",
    operations="endpoint",
    prefix="Endpoint",
    status_field="EndpointStatus",
    running=frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack"}),
    stopping=frozenset({"Deleting"}),
    good="InService",
    stops_while_running=False,
)
ENDPOINT_CONFIGS = Kind(noun="endpoint configuration", operations="endpoint_config", prefix="EndpointConfig")
MODELS = Kind(noun="model", operations="model", prefix="Model")


class Clock(Protocol):
    """Time, as waiting needs it; tests bring one that does not really wait."""

    def monotonic(self) -> float:
        """Return seconds since some fixed moment."""

    def sleep(self, seconds: float, /) -> None:
        """Return after so many seconds."""


@dataclass(frozen=True)
class Patience:
    """How often to look, and when to give up; in seconds."""

    poll_seconds: float
    deadline_seconds: float
    clock: Clock = field(default=time)


@dataclass(frozen=True)
class Submission:
    """What came of asking for something: its name, whether it is new, and whether this flow run is who asked first."""

    name: str
    arn: str
    how: How
    ours: bool


# --- submit exactly once --------------------------------------------------------------------------------------------


def submit_once(kind: Kind, request: Mapping[str, Any]) -> Submission:
    """Create what the request names, unless it is there already.

    Safe to repeat, from anywhere, at any time: what runs under the name is adopted, what completed is reused, and only
    what failed or was stopped is asked for again, under the next attempt's name.

    Raises:
        IdentityError: The name belongs to something with another digest.
        RequestRefusedError: AWS refused; a transient error is passed on as it is, for the caller to try again.
        SettingsDroppedError: AWS kept only part of the request; what it made has been stopped.
    """
    base = request[kind.name_field]
    for attempt in range(1, _MOST_ATTEMPTS + 1):
        attempted = {**request, kind.name_field: _attempt_name(base, attempt)}
        submission = create(kind, attempted) or _take_over(kind, attempted)
        if submission:
            return submission
    msg = f"The {kind.noun} {base} has failed {_MOST_ATTEMPTS} times with the same content: change something first"
    raise RequestRefusedError(msg)


def find(kind: Kind, request: Mapping[str, Any]) -> Submission | None:
    """Return what runs or has completed with this content; None when it is to be asked for."""
    base = request[kind.name_field]
    for attempt in range(1, _MOST_ATTEMPTS + 1):
        attempted = {**request, kind.name_field: _attempt_name(base, attempt)}
        if describe(kind, attempted[kind.name_field]) is None:
            return None
        submission = _take_over(kind, attempted)
        if submission:
            return submission
    return None


def _attempt_name(base: str, attempt: int) -> str:
    return base if attempt == 1 else f"{base}-{attempt}"


def create(kind: Kind, request: Mapping[str, Any]) -> Submission | None:
    """Create it under this very name; None when the name is taken.

    Raises:
        RequestRefusedError: AWS refused; a transient error is passed on as it is.
        SettingsDroppedError: AWS kept only part of the request; what it made has been stopped.
    """
    name = request[kind.name_field]
    try:
        answer = getattr(client("sagemaker"), f"create_{kind.operations}")(**request)
    except ClientError as error:
        if is_name_taken(error):
            return None
        raise refusal(kind, name, error) from error
    _compare_with_request(kind, request)
    return Submission(name, answer[kind.arn_field], "created", ours=True)


def _take_over(kind: Kind, request: Mapping[str, Any]) -> Submission | None:
    """Adopt or reuse what has the name; None when it came to no good end."""
    description = describe(kind, request[kind.name_field])
    if description is None:  # gone between the clash and the look: the next attempt's name is free for certain
        return None
    theirs = tags_at(description[kind.arn_field])
    ours = _tags(request["Tags"])
    _check_identity(kind, request[kind.name_field], theirs, ours)
    status = kind.status(description)
    if status in kind.stopping:  # the next attempt shares its checkpoints: the two must not write at once
        settle(kind, request[kind.name_field])
        return None
    if status not in (kind.good, *kind.running):
        return None
    how: How = "reused" if status == kind.good else "adopted"
    same_run = theirs.get(FLOW_RUN_TAG) == ours[FLOW_RUN_TAG]
    if how == "adopted" and not same_run:  # it is wanted, even if the run that asked for it is over
        adoption = adoption_tag(theirs, ours[FLOW_RUN_TAG])
        client("sagemaker").add_tags(ResourceArn=description[kind.arn_field], Tags=[adoption])
    return Submission(description[kind.name_field], description[kind.arn_field], how, ours=same_run)


def tags_at(arn: str) -> dict[str, str]:
    """Return the tags of a SageMaker resource."""
    return _tags(client("sagemaker").list_tags(ResourceArn=arn)["Tags"])


def _tags(listed: list[dict[str, str]]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in listed}


def is_name_taken(error: ClientError) -> bool:
    """Tell whether SageMaker says that there is something of that name."""
    message = error.response.get("Error", {}).get("Message", "")
    return is_code(error, "ResourceInUse") or "already exist" in message


def refusal(kind: Kind, name: str, error: ClientError) -> Exception:
    """Return what to raise for a refusal: a transient error as it is, for the caller to try again."""
    if is_transient_error(error):
        return error
    hint = " (ask for a higher quota in Service Quotas)" if is_code(error, "ResourceLimitExceeded") else ""
    return RequestRefusedError(f"The {kind.noun} {name} was not created: {sentence_for(error)}{hint}")


def _check_identity(kind: Kind, name: str, theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
    """Hold the digest that the existing resource carries against ours."""
    if theirs.get(DIGEST_TAG) != ours[DIGEST_TAG]:
        msg = (
            f"The {kind.noun} {name} exists with another content (digest {theirs.get(DIGEST_TAG)}, "
            f"expected {ours[DIGEST_TAG]}): delete it, or ask with fresh=True"
        )
        raise IdentityError(msg)


# --- compare after create -------------------------------------------------------------------------------------------


def _compare_with_request(kind: Kind, request: Mapping[str, Any]) -> None:
    name = request[kind.name_field]
    description = describe(kind, name)
    asked = {key: value for key, value in request.items() if key != "Tags"}
    dropped = [] if description is None else dropped_settings(asked, description)
    if dropped:
        stop(kind, name)
        msg = f"AWS created the {kind.noun} {name} without {', '.join(dropped)}, so it was stopped: remove the setting"
        raise SettingsDroppedError(msg)


def dropped_settings(asked: Any, got: Any, path: str = "") -> list[str]:
    """Return the paths of all that was asked for and is not, or not so, in what came of it; more in it is welcome."""
    if isinstance(asked, Mapping):
        if not isinstance(got, Mapping):
            return [path]
        return [gap for key in asked for gap in dropped_settings(asked[key], got.get(key), f"{path}.{key}".lstrip("."))]
    if isinstance(asked, list):
        if not isinstance(got, list) or len(got) < len(asked):
            return [path]
        return [gap for i, item in enumerate(asked) for gap in _missing_item(item, got, i, f"{path}[{i}]")]
    return [] if asked == got else [path]


def _missing_item(item: Any, got: list[Any], place: int, path: str) -> list[str]:
    """Return what is missing of an item, which AWS may list at another place than we did."""
    if any(not dropped_settings(item, other) for other in got):
        return []
    return dropped_settings(item, got[place], path)


# --- look, wait, stop -----------------------------------------------------------------------------------------------


def describe(kind: Kind, name: str) -> Description | None:
    """Return AWS's description, or None when there is nothing of that name."""
    try:
        answer = getattr(client("sagemaker"), f"describe_{kind.operations}")(**{kind.name_field: name})
    except ClientError as error:
        message = error.response.get("Error", {}).get("Message", "").lower()
        if is_code(error, "ResourceNotFound") or "not found" in message or "could not find" in message:
            return None
        raise
    return dict(answer)


@dataclass(frozen=True)
class Watched:
    """What is waited for: how it is looked at, and which of its statuses means what."""

    noun: str
    name: str
    look: Callable[[], Description | None]
    status: Callable[[Description], str]
    running: frozenset[str]
    good: str


def await_end(
    kind: Kind,
    name: str,
    patience: Patience,
    on_look: Callable[[Description], object] = lambda _description: None,
    log_tail: Callable[[], tuple[str, ...]] = tuple,
) -> Description:
    """Wait until a SageMaker resource is no longer running, and return its description if it came to a good end.

    Raises:
        JobFailedError: It failed, or vanished.
        JobStoppedError: It was stopped, by a person or by its time limit.
        DeadlineError: It was still running at the deadline; it goes on running.
    """
    unsettled = kind.running | kind.stopping
    watched = Watched(kind.noun, name, lambda: describe(kind, name), kind.status, unsettled, kind.good)
    return wait(watched, patience, on_look, log_tail)


def wait(
    watched: Watched,
    patience: Patience,
    on_look: Callable[[Description], object] = lambda _description: None,
    log_tail: Callable[[], tuple[str, ...]] = tuple,
) -> Description:
    """Wait until it is no longer running, and return its description if it came to a good end.

    The one poll loop of everything. Throttling and broken connections are patience, not failure, in `on_look` too,
    which is called with every description; anything else that it raises ends the wait.

    Raises:
        ResourceError: As `await_end`.
    """
    clock = patience.clock
    deadline = clock.monotonic() + patience.deadline_seconds
    status, troubles = "unknown", 0
    while True:
        description, troubles = _look(watched, on_look, troubles)
        if description is not None:
            status = watched.status(description)
            if status not in watched.running:
                return _good_end(watched, description, log_tail)
        if clock.monotonic() >= deadline:
            raise DeadlineError(watched.noun, watched.name, status, "", log_tail())
        clock.sleep(_pause_seconds(patience.poll_seconds, troubles))


def _look(watched: Watched, on_look: Callable[[Description], object], troubles: int) -> tuple[Description | None, int]:
    """Look once; return no description, and one more trouble, when AWS cannot be asked just now."""
    try:
        description = watched.look()
        if description is not None:
            on_look(description)
    except (ClientError, BotoCoreError) as error:
        if not is_transient_error(error):
            raise
        if isinstance(error, ClientError) and is_code(error, "ExpiredToken", "ExpiredTokenException"):
            forget_clients()
        return None, troubles + 1
    if description is None:
        raise JobFailedError(watched.noun, watched.name, "Deleted", "somebody deleted it while we waited for it")
    return description, 0


def _pause_seconds(poll_seconds: float, troubles: int) -> float:
    """Return how long to wait: the poll interval, doubled for each trouble in a row, with a fifth of jitter."""
    longest = max(poll_seconds, _LONGEST_BACKOFF_SECONDS)
    # Jitter spreads load, it keeps no secret.
    return min(poll_seconds * 2.0**troubles, longest) * random.uniform(0.8, 1.2)  # noqa: S311


def _good_end(watched: Watched, description: Description, log_tail: Callable[[], tuple[str, ...]]) -> Description:
    status = watched.status(description)
    if status == watched.good:
        return description
    reason = description.get("FailureReason", "")
    if status in ("Stopped", "Stopping"):
        secondary = description.get("SecondaryStatus", status)
        raise JobStoppedError(watched.noun, watched.name, secondary, reason, log_tail())
    raise JobFailedError(watched.noun, watched.name, status, reason, log_tail())


def settle(kind: Kind, name: str, on_look: Callable[[Description], object] = lambda _description: None) -> None:
    """Wait until it is at rest, however that ends."""
    with suppress(ResourceError):
        await_end(kind, name, Patience(poll_seconds(), _SETTLE_SECONDS), on_look)


def stop(kind: Kind, name: str) -> bool:
    """Stop it, and tell whether there was anything to stop; safe to repeat.

    Raises:
        ClientError: AWS would not do it for another reason than that it is over or gone.
    """
    if not kind.stops_while_running:
        return delete_at_rest(kind, name)
    if kind.stop_operation is None:
        return delete(kind, name)
    try:
        getattr(client("sagemaker"), kind.stop_operation)(**{kind.name_field: name})
    except ClientError as error:
        if is_code(error, "ValidationException", "ResourceNotFound") and not is_transient_error(error):
            return False
        raise
    return True


def delete_at_rest(kind: Kind, name: str) -> bool:
    """Delete it once nobody is changing it any more, and tell whether it was there; safe to repeat.

    SageMaker refuses to delete an endpoint that is being created, updated or scaled, which then would bill for ever;
    and scaling that was decided before may begin between our look and the deletion.
    """
    for _ in range(_MOST_ATTEMPTS):
        settle(kind, name)
        try:
            return delete(kind, name)
        except ClientError as error:
            if not is_in_progress(error):
                raise
    msg = f"The {kind.noun} {name} was being changed each time that we wanted to delete it: find out by whom"
    raise RequestRefusedError(msg)


def is_in_progress(error: ClientError) -> bool:
    """Tell whether SageMaker refuses because the resource is being changed just now."""
    return "in-progress" in error.response.get("Error", {}).get("Message", "")


def delete(kind: Kind, name: str) -> bool:
    """Delete it, and tell whether it was there; safe to repeat."""
    try:
        getattr(client("sagemaker"), f"delete_{kind.operations}")(**{kind.name_field: name})
    except ClientError as error:
        message = error.response.get("Error", {}).get("Message", "").lower()
        if "not found" in message or "could not find" in message:
            return False
        raise
    return True
