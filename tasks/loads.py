"""The load that an endpoint holds, measured: more and more callers, each of whom asks again when it is answered."""

import base64
import json
import math
import mimetypes
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import cycle, islice
from threading import Event

from botocore.exceptions import BotoCoreError, ClientError

from tasks.aws.clients import client
from tasks.aws.errors import FlowsError, InvocationError, is_code, sentence_for
from tasks.aws.function_requests import ALIAS
from tasks.aws.jobs import ENDPOINT_CONFIGS, ENDPOINTS, describe
from tasks.contracts import LabelledImage, LoadLevel, Traffic
from tasks.endpoints import invoke
from tasks.recommendations import MeasuredEndpoint, MeasuredFunction, held_level, why_no_further
from tasks.retries import retried
from tasks.runs import Progress, run_logger

_OK = 200
# Of a level's time, before its measurement: connections are opened, and a function's environments started.
_WARM_UP_SHARE = 0.2
# Python runs on one processor at a time: callers that keep it busy measure themselves.
_BUSY_SHARE = 0.9

Ask = Callable[[LabelledImage], None]


@dataclass(frozen=True)
class Sample:
    """One request: when it was asked and answered, on some clock in seconds, and what went wrong with it."""

    asked_at: float
    answered_at: float
    trouble: str = ""


@dataclass(frozen=True)
class _Serving:
    """What must stay as it is while an endpoint is measured; a variant without instances is serverless."""

    status: str
    config_name: str
    instances: tuple[int | None, ...]  # of its variants


@retried("measure {name}")
def measure_endpoint(name: str, pictures: tuple[LabelledImage, ...], traffic: Traffic) -> MeasuredEndpoint:
    """Ask an endpoint by 1, 2, 4, 8, … callers at once, until it holds no more.

    It is in service meanwhile: the load comes on top of what others ask, makes them wait, and counts as invocations
    for its scaling. What is measured includes the way there, so run it where the callers will be, in the same region.

    Safe to retry: it measures anew.

    Raises:
        FlowsError: The endpoint is not in service, has no instances, changed meanwhile, or does not hold one caller.
        InvocationError: It does not answer, with its own words.
    """
    before = _look(name)
    instances = _check_measurable(name, before)
    invoke(name, pictures[0])  # whoever does not answer at all says why
    run_logger().warning("Up to %d callers at once now ask %s: its users wait longer", traffic.most_callers, name)
    levels = _climb(name, pictures, traffic, before)
    held_level(levels, traffic.p99_ms)
    config = describe(ENDPOINT_CONFIGS, before.config_name) or {}
    instance_type = config["ProductionVariants"][0]["InstanceType"]
    return MeasuredEndpoint(name=name, instance_type=instance_type, instances=instances, levels=levels)


@retried("find the memory of {name}")
def find_function_memory(name: str, endpoint: str) -> int:
    """Return the memory of the function in front of an endpoint, MB.

    Raises:
        FlowsError: There is no such function, or it asks another endpoint.
    """
    try:
        found = client("lambda").get_function_configuration(FunctionName=name, Qualifier=ALIAS)
    except ClientError as error:
        if not is_code(error, "ResourceNotFoundException"):
            raise
        msg = f"There is no function {name} with the alias {ALIAS}: python -m flows.deploy_front makes one"
        raise FlowsError(msg) from error
    asked = found.get("Environment", {}).get("Variables", {}).get("ENDPOINT_NAME")
    if asked != endpoint:
        msg = f"The function {name} asks the endpoint {asked}, not {endpoint}: name the function in front of this one"
        raise FlowsError(msg)
    return int(found["MemorySize"])


@retried("measure {name}")
def measure_function(
    name: str, memory_mb: int, pictures: tuple[LabelledImage, ...], callers: int, seconds: float
) -> MeasuredFunction:
    """Ask the function in front by so many callers at once, and return how long answers take; cold starts do not count.

    Safe to retry: it measures anew.

    Raises:
        InvocationError: A request was not answered, with what was said instead.
    """
    level, trouble = _measure(_function_ask(name, callers), pictures, callers, seconds)
    if trouble:
        msg = (
            f"{level.errors} of {level.requests} requests through the function {name} failed with {callers} callers at "
            f"once, such as: {trouble}. Where it is throttled, raise its reserved concurrency first"
        )
        raise InvocationError(msg)
    run_logger().info("Through %s: mean %.0f ms, p99 %.0f ms", name, level.mean_ms, level.p99_ms)
    return MeasuredFunction(name=name, memory_mb=memory_mb, level=level)


def _climb(name: str, pictures: Sequence[LabelledImage], traffic: Traffic, before: _Serving) -> tuple[LoadLevel, ...]:
    """Return the levels until more callers are not worth a try."""
    ask, progress = _endpoint_ask(name, traffic.most_callers), Progress("load-progress", f"Load on {name}")
    steps, levels = [2**step for step in range(traffic.most_callers.bit_length())], list[LoadLevel]()
    for callers in steps:
        level, trouble = _measure(ask, pictures, callers, traffic.seconds_per_level)
        run_logger().info("%d callers: %.1f requests/s, p99 %.0f ms", callers, level.requests_per_second, level.p99_ms)
        if trouble:
            run_logger().warning("%d of %d requests failed, such as: %s", level.errors, level.requests, trouble)
        _check_unchanged(name, before)
        levels.append(level)
        progress.update(len(levels) / len(steps))
        if why_no_further(levels, traffic.p99_ms):
            break
    progress.update(1.0)
    return tuple(levels)


def summarize(samples: Sequence[Sample], callers: int, began: float, seconds: float) -> LoadLevel:
    """Return a level: throughput by what was answered in the time, latency by what was asked in it, however late.

    Nothing else would be fair to the slow: what is answered after the end is no throughput, but somebody waited for it.
    """
    timed = [sample for sample in samples if sample.trouble or began <= sample.asked_at < began + seconds]
    # Answers that take longer than the level have all been asked in the warm-up.
    timed = timed or list(samples)
    took = sorted(1000 * (sample.answered_at - sample.asked_at) for sample in timed)
    in_time = sum(not sample.trouble and began <= sample.answered_at < began + seconds for sample in samples)
    return LoadLevel(
        callers=callers,
        requests=len(timed),
        errors=sum(bool(sample.trouble) for sample in timed),
        requests_per_second=in_time / seconds,
        mean_ms=statistics.fmean(took),
        p50_ms=percentile(took, 50),
        p99_ms=percentile(took, 99),
    )


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Return the smallest number that so many percent do not exceed: one that was measured, of few the greatest."""
    return ordered[math.ceil(percent / 100 * len(ordered)) - 1]


def _measure(ask: Ask, pictures: Sequence[LabelledImage], callers: int, seconds: float) -> tuple[LoadLevel, str]:
    """Return a level, and what went wrong with one of its requests."""
    warm_up, ended = _WARM_UP_SHARE * seconds, Event()
    started, used = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(callers) as pool:
        try:
            asking = [pool.submit(_keep_asking, ask, pictures, place, ended) for place in range(callers)]
            wait(asking, warm_up + seconds)
            busy = (time.process_time() - used) / (time.perf_counter() - started)
        finally:  # a person who interrupts does not wait for the end of the level
            ended.set()
    if busy > _BUSY_SHARE:
        run_logger().warning("%d callers keep this machine's Python busy: the endpoint may hold more", callers)
    samples = [sample for one in asking for sample in one.result()]
    trouble = next((sample.trouble for sample in samples if sample.trouble), "")
    return summarize(samples, callers, started + warm_up, seconds), trouble


def _keep_asking(ask: Ask, pictures: Sequence[LabelledImage], place: int, ended: Event) -> list[Sample]:
    """Ask again as soon as there is an answer, each caller beginning with another picture."""
    samples: list[Sample] = []
    for picture in islice(cycle(pictures), place, None):
        asked_at = time.perf_counter()
        trouble = _trouble(ask, picture)
        samples.append(Sample(asked_at, time.perf_counter(), trouble))
        # Who is refused leaves: the level does not hold any more, and refusals are quick enough to become a flood.
        if trouble or ended.is_set():
            break
    return samples


def _trouble(ask: Ask, picture: LabelledImage) -> str:
    try:
        ask(picture)
    except (ClientError, BotoCoreError, FlowsError) as error:
        return sentence_for(error)
    return ""


def _endpoint_ask(name: str, callers: int) -> Ask:
    # A request that is throttled and tried again until it is answered would be measured as a slow one.
    aws = client("sagemaker-runtime", attempts=1, connections=callers)

    def ask(picture: LabelledImage) -> None:
        content_type = mimetypes.guess_type(picture.name)[0]
        answer = aws.invoke_endpoint(EndpointName=name, Body=picture.body, ContentType=content_type)
        answer["Body"].read()

    return ask


def _function_ask(name: str, callers: int) -> Ask:
    aws = client("lambda", attempts=1, connections=callers)

    def ask(picture: LabelledImage) -> None:
        payload = json.dumps({"image": base64.b64encode(picture.body).decode()}).encode()
        answer = aws.invoke(FunctionName=name, Qualifier=ALIAS, Payload=payload)
        said = json.loads(answer["Payload"].read())
        if "FunctionError" in answer or said["statusCode"] != _OK:
            msg = f"The function {name} answered {said.get('errorMessage') or said.get('body') or said}"
            raise InvocationError(msg)

    return ask


def _look(name: str) -> _Serving:
    """Return what serves an endpoint's requests now.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeEndpoint.html
    """
    description = describe(ENDPOINTS, name)
    if description is None:
        msg = f"There is no endpoint {name}: python -m flows.deploy_endpoint MODEL makes one"
        raise FlowsError(msg)
    variants = description.get("ProductionVariants", [])
    instances = (None if "CurrentServerlessConfig" in one else one["CurrentInstanceCount"] for one in variants)
    return _Serving(ENDPOINTS.status(description), description["EndpointConfigName"], tuple(instances))


def _check_measurable(name: str, serving: _Serving) -> int:
    """Return how many instances share the requests."""
    if serving.status != ENDPOINTS.good:
        msg = f"The endpoint {name} is {serving.status}: measure it when it is {ENDPOINTS.good}"
        raise FlowsError(msg)
    if len(serving.instances) != 1:
        msg = f"The endpoint {name} has {len(serving.instances)} variants, which share its requests: measure one alone"
        raise FlowsError(msg)
    if serving.instances[0] is None:
        msg = f"The endpoint {name} is serverless: it has no instances, so there is nothing to recommend"
        raise FlowsError(msg)
    return serving.instances[0]


def _check_unchanged(name: str, before: _Serving) -> None:
    now = _look(name)
    if now != before:
        counts = " and ".join(str(count) for count in now.instances) or "no"
        msg = (
            f"The endpoint {name} changed while it was measured: it is {now.status} with {counts} instances, and had "
            f"{before.instances[0]}. Measure it while nothing scales or updates it"
        )
        raise FlowsError(msg)
