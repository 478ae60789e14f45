"""Loads as they are measured: levels from samples, and real callers of an endpoint whose answer takes a known time."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest

from tasks import functions
from tasks.aws.errors import FlowsError, InvocationError
from tasks.aws.settings import Settings, load_settings
from tasks.contracts import EndpointName, FrontConfig, FrontSpec, LoadLevel, Traffic
from tasks.functions import delete_function, deploy_function
from tasks.loads import Sample, find_function_memory, measure_endpoint, measure_function, summarize
from tasks.recommendations import MeasuredEndpoint, held_level

# Answers one request at a time, after SECONDS; the ninth fails when FAILS is set, every one when it is "always".
SERVED = """
import asyncio, json, os

busy, asked = asyncio.Lock(), 0

async def app(scope, receive, send):
    global asked
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": event + ".complete"})
            if event == "lifespan.shutdown":
                return
    while (await receive()).get("more_body"):
        pass
    status, fails = 200, os.environ.get("FAILS", "")
    if scope["path"] == "/invocations":
        async with busy:
            await asyncio.sleep(float(os.environ["SECONDS"]))
        asked += 1
        status = 500 if fails == "always" or (fails and asked == 9) else 200
    cat = {"label": "cat", "probability": 0.9}
    answer = {**cat, "top_k": [cat], "model_version": "1"} if status == 200 else "the model is tired"
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

def create():
    return app
"""
SECONDS = 0.05
PICTURES = (functions._GREY,)
TRAFFIC = Traffic(requests_per_second=5, peak_requests_per_second=40, p99_ms=20_000, seconds_per_level=1)
MakeEndpoint = Callable[..., EndpointName]


# --- levels ---------------------------------------------------------------------------------------------------------


def test_a_level_is_what_was_asked_after_the_warm_up() -> None:
    """The first request, of a second, opened the connection: it is nobody's latency, and it was answered before."""
    samples = [Sample(0, 1), Sample(1, 1.25), Sample(1.25, 1.75), Sample(1.75, 3)]
    level = summarize(samples, callers=1, began=1, seconds=1)
    assert (level.requests, level.errors) == (3, 0)
    assert level.mean_ms == pytest.approx((250 + 500 + 1250) / 3)
    assert (level.p50_ms, level.p99_ms) == (500, 1250)


def test_what_is_answered_too_late_is_a_latency_and_no_throughput() -> None:
    samples = [Sample(1, 1.5), Sample(1.5, 60)]
    level = summarize(samples, callers=1, began=1, seconds=1)
    assert (level.requests_per_second, level.p99_ms) == (1, 58_500)


def test_the_p99_is_what_99_of_100_do_not_exceed() -> None:
    quick = [Sample(1, 1.010)] * 99
    assert summarize([*quick, Sample(1, 1.9)], 1, 1, 1).p99_ms == pytest.approx(10)
    assert summarize([*quick, Sample(1, 1.9), Sample(1, 1.9)], 1, 1, 1).p99_ms == pytest.approx(900)


def test_an_error_counts_whenever_it_happens() -> None:
    level = summarize([Sample(0, 0.1, "Throttled"), Sample(1, 1.5)], 2, 1, 1)
    assert (level.errors, level.requests_per_second) == (1, 1)


def test_answers_that_outlast_the_level_are_all_there_is() -> None:
    level = summarize([Sample(0, 5), Sample(0, 7)], 2, 1, 1)
    assert (level.requests, level.requests_per_second, level.p99_ms) == (2, 0, 7000)


# --- endpoints ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def make_endpoint(stage_package: Any) -> Iterator[MakeEndpoint]:
    """Make endpoints that are gone when the module ends."""
    settings, sagemaker, made = load_settings(), boto3.client("sagemaker"), list[str]()
    package = stage_package("load", served=SERVED)

    def make(name: str, *, waits: bool = True, serverless: bool = False, **environment: str) -> EndpointName:
        container = {
            "Image": "an-image",
            "ModelDataUrl": package,
            "Environment": {"SECONDS": str(SECONDS), **environment},
        }
        sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=settings.endpoint_role_arn)
        machines: dict[str, Any] = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        if serverless:
            machines = {"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}}
        variant = {"VariantName": "a", "ModelName": name, **machines}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        made.append(name)
        if waits:
            await_service(name)
        return name

    yield make
    for name in made:
        await_service(name)
        sagemaker.delete_endpoint(EndpointName=name)
        await_deletion(name)  # other tests look at what there is
        sagemaker.delete_endpoint_config(EndpointConfigName=name)
        sagemaker.delete_model(ModelName=name)


def await_service(name: str) -> None:
    waiter = boto3.client("sagemaker").get_waiter("endpoint_in_service")
    waiter.wait(EndpointName=name, WaiterConfig={"Delay": 1})


@pytest.fixture(scope="module")
def endpoint(make_endpoint: MakeEndpoint) -> EndpointName:
    """The one endpoint that the function's role may ask."""
    name = load_settings().front_endpoint
    await_deletion(name)  # of other tests' one
    return make_endpoint(name)


def await_deletion(name: str) -> None:
    boto3.client("sagemaker").get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig={"Delay": 1})


def measure(name: str, **traffic: Any) -> MeasuredEndpoint:
    return measure_endpoint.fn(name, PICTURES, TRAFFIC.model_copy(update=traffic))


@pytest.mark.slow
def test_an_endpoint_that_answers_one_at_a_time_is_measured_until_its_callers_only_wait(endpoint: EndpointName) -> None:
    """It cannot be quicker than it sleeps; how much slower it is depends on the machine."""
    measured = measure(endpoint)
    assert (measured.name, measured.instance_type, measured.instances) == (endpoint, "ml.m5.large", 1)
    callers = [level.callers for level in measured.levels]
    assert callers == [2**step for step in range(len(callers))]
    assert 2 <= len(callers) < 6
    assert all(level.errors == 0 and level.requests and level.mean_ms >= 1000 * SECONDS for level in measured.levels)
    assert 0 < held_level(measured.levels, 20_000).requests_per_second <= 1 / SECONDS + 1
    assert measured.levels[-1].mean_ms > 1.5 * measured.levels[0].mean_ms


@pytest.mark.slow
def test_no_more_callers_than_asked_are_tried(endpoint: EndpointName) -> None:
    assert [level.callers for level in measure(endpoint, most_callers=1).levels] == [1]


@pytest.mark.slow
def test_an_endpoint_that_does_not_hold_one_caller_is_refused(endpoint: EndpointName) -> None:
    with pytest.raises(FlowsError, match=r"Not even a single caller .* took \d+ ms or less, and p99_ms=10 is asked"):
        measure(endpoint, p99_ms=10)


@pytest.mark.slow
def test_a_request_that_fails_is_seen_and_not_repaired(make_endpoint: MakeEndpoint) -> None:
    name = make_endpoint("flows-endpoint-fails", FAILS="once")
    with pytest.raises(FlowsError, match=r"1 of \d+ requests failed"):
        measure(name)


@pytest.mark.slow
def test_an_endpoint_that_does_not_answer_says_why(make_endpoint: MakeEndpoint) -> None:
    name = make_endpoint("flows-endpoint-tired", FAILS="always")
    with pytest.raises(InvocationError, match=r"did not classify grey\.png: .*the model is tired"):
        measure(name)


@pytest.mark.slow
def test_what_is_not_in_service_or_has_no_instances_is_refused(make_endpoint: MakeEndpoint) -> None:
    with pytest.raises(FlowsError, match="There is no endpoint flows-endpoint-nowhere"):
        measure("flows-endpoint-nowhere")
    with pytest.raises(FlowsError, match="is Creating: measure it when it is InService"):
        measure(make_endpoint("flows-endpoint-early", waits=False))
    with pytest.raises(FlowsError, match="is serverless"):
        measure(make_endpoint("flows-endpoint-serverless", serverless=True))


@pytest.mark.slow
def test_an_endpoint_that_is_scaled_meanwhile_is_not_measured(make_endpoint: MakeEndpoint) -> None:
    name = make_endpoint("flows-endpoint-scaled")
    change = {"EndpointName": name, "DesiredWeightsAndCapacities": [{"VariantName": "a", "DesiredInstanceCount": 2}]}
    scale = threading.Timer(1, boto3.client("sagemaker").update_endpoint_weights_and_capacities, kwargs=change)
    scale.start()
    with pytest.raises(FlowsError, match=r"changed while it was measured: .* and had 1\. Measure it while nothing"):
        measure(name, seconds_per_level=3)
    scale.join()
    await_service(name)
    assert measure(name, most_callers=1).instances == 2


# --- the function in front ------------------------------------------------------------------------------------------


@pytest.fixture
def front(endpoint: EndpointName, settings: Settings) -> Iterator[str]:
    config = FrontConfig(name="flows-front-load", memory_mb=256)
    deploy_function.fn(FrontSpec(endpoint_name=endpoint, config=config), settings, ())
    yield config.name
    delete_function.fn(config.name)


@pytest.mark.slow
def test_an_answer_through_the_function_takes_what_the_endpoint_takes_and_more(
    front: str, endpoint: EndpointName
) -> None:
    memory_mb = find_function_memory.fn(front, endpoint)
    measured = measure_function.fn(front, memory_mb, PICTURES, 2, 1)
    level: LoadLevel = measured.level
    assert (measured.name, measured.memory_mb, level.callers, level.errors) == (front, 256, 2, 0)
    assert level.mean_ms > 1000 * SECONDS


@pytest.mark.slow
def test_a_function_that_is_not_there_or_asks_another_endpoint_is_refused(front: str, endpoint: EndpointName) -> None:
    with pytest.raises(FlowsError, match="There is no function flows-nowhere with the alias live"):
        find_function_memory.fn("flows-nowhere", endpoint)
    with pytest.raises(FlowsError, match=f"asks the endpoint {endpoint}, not flows-endpoint-other"):
        find_function_memory.fn(front, "flows-endpoint-other")


@pytest.mark.slow
def test_a_function_that_is_throttled_is_told_and_not_measured_as_slow(front: str, endpoint: EndpointName) -> None:
    boto3.client("lambda").put_function_concurrency(FunctionName=front, ReservedConcurrentExecutions=1)
    with pytest.raises(InvocationError, match=r"failed with 4 callers at once, such as: .*TooManyRequests"):
        measure_function.fn(front, 256, PICTURES, 4, 1)
