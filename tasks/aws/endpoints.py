"""The life of an endpoint: made once, or one of a lasting name moved safely to another model; and taken down whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from botocore.exceptions import ClientError

from tasks.aws.clients import client
from tasks.aws.errors import FlowsError, IdentityError, RequestRefusedError
from tasks.aws.identity import EXPIRES_TAG, FLOW_RUN_TAG, PROJECT, PROJECT_TAG, is_project
from tasks.aws.jobs import (
    ENDPOINT_CONFIGS,
    ENDPOINTS,
    MODELS,
    Description,
    How,
    Kind,
    Submission,
    create,
    delete,
    delete_at_rest,
    describe,
    is_in_progress,
    refusal,
    settle,
    submit_once,
    tags_at,
)
from tasks.aws.rollout_requests import alarm_names, alarm_requests, update_request
from tasks.aws.scaling import forget_target, is_scaled
from tasks.contracts import Rollout

_MOST_LOOKS = 10


@dataclass(frozen=True)
class EndpointSubmission:
    """What came of asking for an endpoint: what it is to serve, and which configuration goes when it does."""

    name: str
    arn: str
    how: Literal["created", "adopted", "reused", "updated"]
    ours: bool  # whether this flow run is who asked for the endpoint first
    config_name: str
    replaces: str | None = None
    asked_at: datetime = field(default_factory=lambda: datetime.now(tz=UTC))


# --- made, or updated ------------------------------------------------------------------------------------------------


def put_endpoint(request: Mapping[str, Any], rollout: Rollout | None) -> EndpointSubmission:
    """Make the endpoint, or move the one of that name to the configuration; safe to repeat.

    Args:
        request: Of CreateEndpoint.
        rollout: How one of a lasting name is updated; None for one whose name follows from its content.

    Raises:
        IdentityError: There is an endpoint of that name that is not this project's.
        RequestRefusedError: AWS refused, or somebody else keeps changing the endpoint.
    """
    if rollout is None:
        submission = _submitted(submit_once(ENDPOINTS, request), request)
    else:
        submission = _put_lasting(request, rollout)
    if submission.how in ("adopted", "reused"):
        _outlast(submission.arn, request["Tags"])
    return submission


def _outlast(arn: str, tags: list[dict[str, str]]) -> None:
    """Let an endpoint that is taken as it is stay as long as we want it, if that is longer than it was to stay."""
    wanted = next(tag for tag in tags if tag["Key"] == EXPIRES_TAG)
    if tags_at(arn).get(EXPIRES_TAG, "") < wanted["Value"]:
        client("sagemaker").add_tags(ResourceArn=arn, Tags=[wanted])


def _put_lasting(request: Mapping[str, Any], rollout: Rollout) -> EndpointSubmission:
    name = request["EndpointName"]
    for _ in range(_MOST_LOOKS):
        found = describe(ENDPOINTS, name)
        if found is None:
            created = create(ENDPOINTS, request)  # none: somebody else was faster
            submission = created and _submitted(created, request)
        else:
            submission = _take_over(found, request, rollout)
        if submission:
            return submission
    msg = f"The endpoint {name} was changed by somebody else each time that we looked: agree on who deploys it"
    raise RequestRefusedError(msg)


def _submitted(endpoint: Submission, request: Mapping[str, Any]) -> EndpointSubmission:
    return EndpointSubmission(endpoint.name, endpoint.arn, endpoint.how, endpoint.ours, request["EndpointConfigName"])


def _take_over(found: Description, request: Mapping[str, Any], rollout: Rollout) -> EndpointSubmission | None:
    """Adopt, reuse or update what has the name; None when it is to be looked at again."""
    name, arn, config, status = found["EndpointName"], found["EndpointArn"], _becoming(found), found["EndpointStatus"]
    tags = tags_at(arn)
    if not is_project(tags):
        msg = f"The endpoint {name} does not carry the tag {PROJECT_TAG}={PROJECT}: choose another name"
        raise IdentityError(msg)
    if config == request["EndpointConfigName"] and status in (ENDPOINTS.good, "Creating", "Updating"):
        asker = next(tag["Value"] for tag in request["Tags"] if tag["Key"] == FLOW_RUN_TAG)
        how: How = "reused" if status == ENDPOINTS.good else "adopted"
        ours = tags.get(FLOW_RUN_TAG) == asker and status == "Creating"
        replaces = found["EndpointConfigName"] if status == "Updating" else None
        return EndpointSubmission(name, arn, how, ours, config, replaces)
    if status == ENDPOINTS.good:
        return _update(found, request, rollout)
    if status == "Failed":  # nobody can change it any more
        delete(ENDPOINTS, name)
    settle(ENDPOINTS, name)
    return None


def _becoming(found: Description) -> str:
    """Return the configuration that an endpoint has, or is moving to."""
    return str(found.get("PendingDeploymentSummary", found)["EndpointConfigName"])


def _update(found: Description, request: Mapping[str, Any], rollout: Rollout) -> EndpointSubmission | None:
    """Begin to move an endpoint to another configuration; None when somebody else has begun to change it."""
    name, arn, config = found["EndpointName"], found["EndpointArn"], request["EndpointConfigName"]
    try:
        client("sagemaker").update_endpoint(**_update_request(found, config, rollout))
    except ClientError as error:
        if is_in_progress(error):
            settle(ENDPOINTS, name)
            return None
        raise refusal(ENDPOINTS, name, error) from error
    client("sagemaker").add_tags(ResourceArn=arn, Tags=request["Tags"])
    return EndpointSubmission(
        name, arn, "updated", ours=False, config_name=config, replaces=found["EndpointConfigName"]
    )


def _update_request(found: Description, config: str, rollout: Rollout) -> dict[str, Any]:
    """Return the request for the update, with the alarms that it names made."""
    name = found["EndpointName"]
    if is_serverless(found):  # which SageMaker moves at once, without traffic to watch
        return {"EndpointName": name, "EndpointConfigName": config}
    alarms = alarm_requests(name, config, rollout)
    for alarm in alarms:
        client("cloudwatch").put_metric_alarm(**alarm)
    return update_request(name, config, rollout, [alarm["AlarmName"] for alarm in alarms], scaled=is_scaled(name))


def is_serverless(found: Description) -> bool:
    """Tell whether an endpoint in service has no instances."""
    return any("CurrentServerlessConfig" in variant for variant in found.get("ProductionVariants", []))


# --- taken down ------------------------------------------------------------------------------------------------------


def is_ours(arn: str) -> bool:
    """Tell whether a resource carries this project's tag."""
    return is_project(tags_at(arn))


def delete_whole(name: str) -> tuple[str, ...]:
    """Delete an endpoint and what stands behind it; the endpoint first, since it is what bills. Safe to repeat.

    Raises:
        FlowsError: Something of that name is not this project's; nothing has been deleted.
    """
    endpoint = describe(ENDPOINTS, name)
    if endpoint is not None:
        _check_ours(ENDPOINTS, endpoint)
        forget_target(name)  # first of all: what scales, changes the endpoint while we delete it
        client("cloudwatch").delete_alarms(AlarmNames=alarm_names(name))
        if ENDPOINTS.status(endpoint) != ENDPOINTS.good:
            settle(ENDPOINTS, name)
            endpoint = describe(ENDPOINTS, name) or endpoint
    config_name = endpoint["EndpointConfigName"] if endpoint else name
    deleted = (f"{ENDPOINTS.noun} {name}",) if delete_at_rest(ENDPOINTS, name) else ()
    return (*deleted, *delete_config(config_name, and_model=name))


def delete_config(name: str, and_model: str | None = None) -> tuple[str, ...]:
    """Delete a configuration that no endpoint has any more, and its models; safe to repeat.

    Args:
        name: The configuration's.
        and_model: A model to delete when the configuration is gone already.

    Raises:
        FlowsError: It is not this project's.
    """
    config = describe(ENDPOINT_CONFIGS, name)
    models = [variant["ModelName"] for variant in config["ProductionVariants"]] if config else [and_model or name]
    candidates = [(ENDPOINT_CONFIGS, name, config), *((MODELS, model, describe(MODELS, model)) for model in models)]
    there = [(kind, found, description) for kind, found, description in candidates if description is not None]
    for kind, _found, description in there:
        _check_ours(kind, description)
    return tuple(f"{kind.noun} {found}" for kind, found, _description in there if delete(kind, found))


def _check_ours(kind: Kind, description: Description) -> None:
    if not is_ours(description[kind.arn_field]):
        name = description[kind.name_field]
        msg = f"The {kind.noun} {name} does not carry the tag {PROJECT_TAG}={PROJECT}: delete it by hand, if it may go"
        raise FlowsError(msg)
