"""SageMaker endpoints: start one, wait until it answers, ask it, take it down."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from botocore.exceptions import ClientError
from prefect import task

from tasks.aws.clients import client
from tasks.aws.errors import (
    FlowsError,
    InvocationError,
    ResourceError,
    is_code,
    is_transient_error,
    sentence_for,
)
from tasks.aws.identity import PROJECT, PROJECT_TAG
from tasks.aws.images import serving_image_uri
from tasks.aws.jobs import (
    ENDPOINT_CONFIGS,
    ENDPOINTS,
    MODELS,
    Description,
    Patience,
    Submission,
    await_end,
    delete,
    describe,
    submit_once,
)
from tasks.aws.logs import ENDPOINT_GROUP, LogFollower
from tasks.aws.prices import hourly_usd
from tasks.aws.requests import check_instance_type, endpoint_config_request, endpoint_request, model_request
from tasks.aws.settings import Settings, poll_seconds
from tasks.contracts import EndpointAnswer, EndpointResult, EndpointSpec, LabelledImage, SampleAnswer, TeardownResult
from tasks.retries import RETRY_DELAYS_SECONDS, is_transient
from tasks.runs import current_owner, run_logger

_DEADLINE_SECONDS = 1800.0
_CONTENT_TYPES = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg"}


@task(retries=3, retry_delay_seconds=RETRY_DELAYS_SECONDS, retry_condition_fn=is_transient)
def find_serving_image(settings: Settings, instance_type: str) -> str:
    """Return the URI of the serving image for a machine.

    Raises:
        RequestRefusedError: SageMaker knows no such machine.
    """
    model = client("sagemaker").meta.service_model
    check_instance_type(instance_type, tuple(model.shape_for("ProductionVariantInstanceType").enum), "endpoints")
    return serving_image_uri(settings.region, instance_type)


@task(retries=3, retry_delay_seconds=RETRY_DELAYS_SECONDS, retry_condition_fn=is_transient)
def start_endpoint(spec: EndpointSpec, settings: Settings, lifetime: timedelta) -> Submission:
    """Create the model, the configuration and the endpoint, and return the endpoint's name.

    Safe to retry: each of the three is adopted when it is there.
    """
    owner = current_owner(lifetime)
    model = submit_once(MODELS, model_request(spec, settings, owner))
    config = submit_once(ENDPOINT_CONFIGS, endpoint_config_request(spec, model.name, owner))
    submission = submit_once(ENDPOINTS, endpoint_request(spec, config.name, owner))
    run_logger().info("Endpoint %s: %s", submission.name, submission.how)
    return submission


@task(retries=3, retry_delay_seconds=RETRY_DELAYS_SECONDS, retry_condition_fn=is_transient)
def await_endpoint(submission: Submission, spec: EndpointSpec, settings: Settings) -> EndpointResult:
    """Wait until the endpoint is in service.

    Safe to retry: it only looks.

    Raises:
        JobFailedError: The endpoint failed, with the container's own words.
        DeadlineError: The endpoint was not in service when the deadline passed.
    """
    patience = Patience(poll_seconds(), _DEADLINE_SECONDS)
    logger = run_logger()
    logs = LogFollower(f"{ENDPOINT_GROUP}/{submission.name}", "", lambda line: logger.info("%s", line), logger.warning)

    def tail() -> tuple[str, ...]:
        logs.drain(lambda: patience.clock.sleep(min(patience.poll_seconds, 2.0)))
        return logs.tail()

    description = await_end(ENDPOINTS, submission.name, patience, log_tail=tail)
    return _result(submission, description, spec, settings)


@contextmanager
def deleted_on_failure(submission: Submission) -> Iterator[None]:
    """Delete an endpoint that this flow run asked for, with all behind it, when the block fails.

    A failed endpoint is of no use, and one nobody waits for any more would bill for ever.
    """
    try:
        yield
    except BaseException:
        if submission.ours:
            gone = ", ".join(_delete_whole(submission.name))
            run_logger().warning("Deleted, since the deployment did not succeed: %s", gone)
        raise


@task(retries=3, retry_delay_seconds=RETRY_DELAYS_SECONDS, retry_condition_fn=is_transient)
def ask_endpoint(name: str, images: tuple[LabelledImage, ...]) -> tuple[SampleAnswer, ...]:
    """Send pictures to an endpoint, one after the other, and return its answers beside the truth.

    Raises:
        InvocationError: The endpoint refused a picture, with its own words.
    """
    return tuple(SampleAnswer(image=image, answer=invoke(name, image)) for image in images)


@task(retries=3, retry_delay_seconds=RETRY_DELAYS_SECONDS, retry_condition_fn=is_transient)
def delete_endpoint(name: str) -> TeardownResult:
    """Delete an endpoint, its configuration and its models; safe to repeat.

    Raises:
        FlowsError: The endpoint is not one of this project's.
    """
    description = describe(ENDPOINTS, name)
    if description is not None:
        _check_ours(name, description["EndpointArn"])
    deleted = _delete_whole(name)
    for resource in deleted:
        run_logger().info("Deleted %s", resource)
    return TeardownResult(deleted=deleted, kept=())


@task(retries=3, retry_delay_seconds=RETRY_DELAYS_SECONDS, retry_condition_fn=is_transient)
def list_endpoints() -> tuple[str, ...]:
    """Return the names of this project's endpoints; what lacks its tag is not named."""
    pages = client("sagemaker").get_paginator("list_endpoints").paginate(NameContains="flows-")
    found = [(endpoint["EndpointName"], endpoint["EndpointArn"]) for page in pages for endpoint in page["Endpoints"]]
    return tuple(name for name, arn in found if _is_ours(arn))


def invoke(name: str, image: LabelledImage) -> EndpointAnswer:
    """Send one picture to an endpoint.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html
    """
    content_type = _CONTENT_TYPES[image.name.rsplit(".", 1)[-1].lower()]
    started = time.perf_counter()
    try:
        answer = client("sagemaker-runtime").invoke_endpoint(
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


def _result(submission: Submission, description: Description, spec: EndpointSpec, settings: Settings) -> EndpointResult:
    machines = spec.compute
    config = describe(ENDPOINT_CONFIGS, description["EndpointConfigName"]) or {}
    took = description["LastModifiedTime"] - description["CreationTime"]
    return EndpointResult(
        name=submission.name,
        arn=submission.arn,
        how=submission.how,
        config_name=description["EndpointConfigName"],
        model_name=config["ProductionVariants"][0]["ModelName"],
        instance_type=machines.instance_type,
        instance_count=machines.instance_count,
        created_at=description["CreationTime"],
        seconds_to_in_service=took.total_seconds(),
        hourly_usd=hourly_usd("hosting", machines.instance_type, settings.region, machines.instance_count),
    )


def _delete_whole(name: str) -> tuple[str, ...]:
    """Delete an endpoint and what stands behind it; the endpoint first, since it is what bills."""
    endpoint = describe(ENDPOINTS, name)
    if endpoint and ENDPOINTS.status(endpoint) in ENDPOINTS.running:
        # SageMaker refuses to delete an endpoint that is still being created or updated.
        run_logger().info("Endpoint %s is still %s: waiting to delete it", name, ENDPOINTS.status(endpoint))
        with suppress(ResourceError):
            await_end(ENDPOINTS, name, Patience(poll_seconds(), _DEADLINE_SECONDS))
    config_name = endpoint["EndpointConfigName"] if endpoint else name
    config = describe(ENDPOINT_CONFIGS, config_name)
    models = [variant["ModelName"] for variant in config["ProductionVariants"]] if config else [name]
    candidates = [(ENDPOINTS, name), (ENDPOINT_CONFIGS, config_name), *((MODELS, model) for model in models)]
    return tuple(f"{kind.noun} {found}" for kind, found in candidates if delete(kind, found))


def _is_ours(arn: str) -> bool:
    tags = client("sagemaker").list_tags(ResourceArn=arn)["Tags"]
    return {"Key": PROJECT_TAG, "Value": PROJECT} in tags


def _check_ours(name: str, arn: str) -> None:
    if not _is_ours(arn):
        msg = f"The endpoint {name} does not carry the tag {PROJECT_TAG}={PROJECT}: delete it by hand if you are sure"
        raise FlowsError(msg)
