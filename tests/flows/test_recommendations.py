"""`recommend_scaling` as its user runs it: as the worker, on the test pictures of a dataset, and through a function."""

import re
from collections.abc import Iterator
from typing import Any

import boto3
import httpx
import pytest

from tasks.aws.settings import load_settings
from tasks.contracts import FrontConfig, FrontSpec
from tasks.functions import delete_function, deploy_function

pytestmark = pytest.mark.slow


@pytest.fixture
def endpoint(stage_package: Any) -> Iterator[str]:
    """The one endpoint that the function's role may ask."""
    settings, sagemaker = load_settings(), boto3.client("sagemaker")
    name, deleted = settings.front_endpoint, sagemaker.get_waiter("endpoint_deleted")
    deleted.wait(EndpointName=name, WaiterConfig={"Delay": 1})  # of other tests' one
    container = {"Image": "an-image", "ModelDataUrl": stage_package("recommended")}
    sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=settings.endpoint_role_arn)
    variant = {"VariantName": "a", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 1})
    yield name
    sagemaker.delete_endpoint(EndpointName=name)
    sagemaker.delete_endpoint_config(EndpointConfigName=name)
    sagemaker.delete_model(ModelName=name)
    deleted.wait(EndpointName=name, WaiterConfig={"Delay": 1})  # other tests look at what there is


@pytest.fixture
def front(endpoint: str) -> Iterator[str]:
    config = FrontConfig(name="flows-front-recommended")
    deploy_function.fn(FrontSpec(endpoint_name=endpoint, config=config), load_settings(), ())
    yield config.name
    delete_function.fn(config.name)


def test_it_prints_its_reasons_and_the_command_that_follows(
    run_flow: Any, manifest: str, endpoint: str, front: str, prefect_api: httpx.Client
) -> None:
    asked = (
        *("--traffic.requests-per-second", "1", "--traffic.peak-requests-per-second", "2"),
        *("--traffic.p99-ms", "20000", "--traffic.seconds-per-level", "1", "--traffic.most-callers", "2"),
    )
    result = run_flow("recommend_scaling", endpoint, manifest, *asked, "--front", front)
    assert result.returncode == 0, result.stderr[-3000:]
    *reasoning, command = result.stdout.strip().splitlines()
    assert len(reasoning) == 9
    assert re.fullmatch(r"ml\.m5\.large held [\d.]+ requests per second, with \d callers?: .*", reasoning[0])
    assert f"through the function {front}" in reasoning[5]
    assert re.match(
        r"A month of ordinary days: \$\d+\.\d\d \(ml\.m5\.large \$83\.95, a function of 512 MB", reasoning[7]
    )
    scaling = r"--scaling\.target [\d.]+ --scaling\.min-instances \d+ --scaling\.max-instances \d+"
    assert re.fullmatch(rf"python -m flows\.scale_endpoint {endpoint} {scaling}", command)
    found = prefect_api.post("/artifacts/filter", json={"limit": 200}).raise_for_status().json()
    assert {artifact["key"] for artifact in found} >= {"scaling-recommendation", "load-progress"}


def test_what_cannot_be_measured_is_one_sentence(run_flow: Any, manifest: str) -> None:
    asked = ("--traffic.requests-per-second", "1", "--traffic.peak-requests-per-second", "2")
    result = run_flow("recommend_scaling", "flows-endpoint-nowhere", manifest, *asked)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith("There is no endpoint flows-endpoint-nowhere: python -m")
