"""SageMaker endpoints: start or update one, wait until it answers, ask it, take it down."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from botocore.exceptions import ClientError

from tasks.aws.clients import client
from tasks.aws.endpoints import EndpointSubmission, delete_config, delete_whole, is_ours, put_endpoint
from tasks.aws.errors import InvocationError, RolledBackError, is_code, is_transient_error, sentence_for
from tasks.aws.images import serving_image_uri
from tasks.aws.jobs import (
    ENDPOINT_CONFIGS,
    ENDPOINTS,
    MODELS,
    Description,
    Patience,
    await_end,
    describe,
    settle,
    submit_once,
)
from tasks.aws.logs import ENDPOINT_GROUP, LogFollower
from tasks.aws.prices import hourly_usd
from tasks.aws.requests import VARIANT, check_instance_type, endpoint_config_request, endpoint_request, model_request
from tasks.aws.settings import Settings, poll_seconds
from tasks.cancellation import CancelWatch, end_if_cancelled
from tasks.contracts import EndpointAnswer, EndpointResult, EndpointSpec, LabelledImage, SampleAnswer, TeardownResult
from tasks.retries import retried
from tasks.runs import Progress, current_owner, run_logger

_DEADLINE_SECONDS = 1800.0
_CONTENT_TYPES = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg"}


@retried("find the image for {instance_type}")
def find_serving_image(settings: Settings, instance_type: str) -> str:
    """Return the URI of the serving image for a machine.

    Raises:
        RequestRefusedError: SageMaker knows no such machine.
    """
    model = client("sagemaker").meta.service_model
    check_instance_type(instance_type, tuple(model.shape_for("ProductionVariantInstanceType").enum), "endpoints")
    return serving_image_uri(settings.region, instance_type)


@retried("await rest of {name}")
def await_rest(name: str) -> None:
    """Wait until nobody is changing an endpoint; safe to retry: it only looks.

    Raises:
        RunCancelledError: Somebody has cancelled the flow run.
    """
    cancellation = CancelWatch()
    settle(ENDPOINTS, name, lambda _description: cancellation.check())


@retried("start an endpoint on {spec.compute.machines}")
def start_endpoint(spec: EndpointSpec, settings: Settings, lifetime: timedelta | None) -> EndpointSubmission:
    """Create the model, the configuration and the endpoint; or begin to update the endpoint of that name.

    Safe to retry: each of the three is adopted when it is there, an update that has begun is not begun again.

    Raises:
        IdentityError: Something of a name of ours is not this project's.
        RequestRefusedError: AWS refused, with its reason.
        RunCancelledError: Somebody has cancelled the flow run.
    """
    end_if_cancelled()
    owner = current_owner(lifetime)
    model = submit_once(MODELS, model_request(spec, settings, owner))
    config = submit_once(ENDPOINT_CONFIGS, endpoint_config_request(spec, model.name, owner))
    request = endpoint_request(spec, config.name, owner)
    submission = put_endpoint(request, spec.rollout if spec.name else None)
    run_logger().info("Endpoint %s: %s", submission.name, submission.how)
    return submission


@retried("await {submission.name}")
def await_endpoint(submission: EndpointSubmission, spec: EndpointSpec, settings: Settings) -> EndpointResult:
    """Wait until the endpoint is in service with what it is to serve; what it served before is deleted then.

    Safe to retry: it only looks, and deletes what is in nobody's service.

    Raises:
        RolledBackError: An alarm went off, or the new servers did not start: what was in service before still is.
        JobFailedError: The endpoint failed, with the container's own words.
        DeadlineError: The endpoint was not in service when the deadline passed.
        RunCancelledError: Somebody has cancelled the flow run.
    """
    rollout_seconds = spec.rollout.steps * spec.rollout.bake_seconds if submission.replaces else 0
    patience = Patience(poll_seconds(), _DEADLINE_SECONDS + rollout_seconds)
    watch = _Watch(submission, rollout_seconds)
    tail = watch.drained_tail(patience)
    description = await_end(ENDPOINTS, submission.name, patience, watch.look, tail)
    if description["EndpointConfigName"] != submission.config_name:
        # One that was rolled back is in service too: only its configuration tells.
        raise RolledBackError(
            ENDPOINTS.noun, submission.name, "InService", description.get("FailureReason", ""), tail()
        )
    watch.end()
    if submission.replaces and submission.replaces != submission.config_name:
        delete_config(submission.replaces)
    return _result(submission, description, spec, settings)


@contextmanager
def undone_on_failure(submission: EndpointSubmission) -> Iterator[None]:
    """Leave nothing behind that is of no use when the block fails.

    An endpoint that this flow run asked for would bill for ever, with nobody to wait for it: it is deleted. One that
    was updated stays in service, with its old model or, when nobody waited, with what SageMaker makes of it.
    """
    try:
        yield
    except BaseException as error:
        if submission.ours:
            gone = ", ".join(delete_whole(submission.name))
            run_logger().warning("Deleted, since the deployment did not succeed: %s", gone)
        elif isinstance(error, RolledBackError):
            delete_config(submission.config_name)
        raise


@retried("ask {name}")
def ask_endpoint(name: str, images: tuple[LabelledImage, ...]) -> tuple[SampleAnswer, ...]:
    """Send pictures to an endpoint, one after the other, and return its answers beside the truth.

    Raises:
        InvocationError: The endpoint refused a picture, with its own words.
    """
    return tuple(SampleAnswer(image=image, answer=invoke(name, image)) for image in images)


@retried("delete {name}")
def delete_endpoint(name: str) -> TeardownResult:
    """Delete an endpoint, its configuration and its models; safe to repeat.

    Raises:
        FlowsError: The endpoint is not one of this project's.
    """
    deleted = delete_whole(name)
    for resource in deleted:
        run_logger().info("Deleted %s", resource)
    return TeardownResult(deleted=deleted, kept=())


@retried("list the endpoints")
def list_endpoints() -> tuple[str, ...]:
    """Return the names of this project's endpoints; what lacks its tag is not named."""
    pages = client("sagemaker").get_paginator("list_endpoints").paginate(NameContains="flows-")
    found = [(endpoint["EndpointName"], endpoint["EndpointArn"]) for page in pages for endpoint in page["Endpoints"]]
    return tuple(name for name, arn in found if is_ours(arn))


def invoke(name: str, image: LabelledImage) -> EndpointAnswer:
    """Send one picture to an endpoint.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html
    """
    content_type = _CONTENT_TYPES[image.name.rsplit(".", 1)[-1].lower()]
    runtime = client("sagemaker-runtime")  # the first one takes longer to make than an answer
    started = time.perf_counter()
    try:
        answer = runtime.invoke_endpoint(
            EndpointName=name, Body=image.body, ContentType=content_type, Accept="application/json"
        )
    except ClientError as error:
        if is_transient_error(error) and not is_code(error, "ModelError"):
            raise
        words = error.response.get("OriginalMessage") or sentence_for(error)
        msg = f"The endpoint {name} did not classify {image.name}: {words}"
        raise InvocationError(msg) from error
    fields = json.loads(answer["Body"].read())
    return EndpointAnswer(milliseconds=1000 * (time.perf_counter() - started), **fields)


class _Watch:
    """What is done at each look at an endpoint on its way: new lines, and how far it is."""

    def __init__(self, submission: EndpointSubmission, rollout_seconds: float) -> None:
        self._logger, self._name, self._since = run_logger(), submission.name, submission.asked_at
        group, stream = f"{ENDPOINT_GROUP}/{submission.name}", f"{VARIANT}/"
        self._logs = LogFollower(group, stream, self._take_line, self._logger.warning, since=self._since)
        self._progress = Progress("endpoint-progress", f"Endpoint {submission.name}: {submission.how}")
        self._rollout_seconds, self._cancellation = rollout_seconds, CancelWatch()

    def look(self, _description: Description) -> None:
        self._logs.poll()
        if self._rollout_seconds:  # of a new one nothing says how long it takes
            took = (datetime.now(tz=UTC) - self._since).total_seconds()
            self._progress.update(min(took / self._rollout_seconds, 0.95))
        self._cancellation.check()

    def _take_line(self, host: str, line: str) -> None:
        self._logger.info("[%s/%s] %s", self._name, host, line)

    def drained_tail(self, patience: Patience) -> Callable[[], tuple[str, ...]]:
        """Return what fetches the last lines, the late ones too, for an error's text."""

        def tail() -> tuple[str, ...]:
            self._logs.drain(lambda: patience.clock.sleep(min(patience.poll_seconds, 2.0)))
            return self._logs.tail()

        return tail

    def end(self) -> None:
        self._progress.update(1.0)


def _result(
    submission: EndpointSubmission, description: Description, spec: EndpointSpec, settings: Settings
) -> EndpointResult:
    compute, config = spec.compute, describe(ENDPOINT_CONFIGS, submission.config_name) or {}
    began = submission.asked_at if submission.how == "updated" else description["CreationTime"]
    hourly = hourly_usd("hosting", compute.instance_type, settings.region, compute.instance_count)
    return EndpointResult(
        name=submission.name,
        arn=submission.arn,
        how=submission.how,
        ours=submission.ours,
        config_name=submission.config_name,
        model_name=config["ProductionVariants"][0]["ModelName"],
        compute=compute,
        created_at=description["CreationTime"],
        seconds_to_in_service=max((description["LastModifiedTime"] - began).total_seconds(), 0),
        hourly_usd=None if compute.serverless else hourly,
    )
