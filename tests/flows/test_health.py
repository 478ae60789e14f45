"""`check_endpoint_health` as its user runs it: an endpoint is held against what it was at its deployment."""

from collections.abc import Callable, Iterator
from typing import Any

import boto3
import httpx
import pytest

from tasks.aws.jobs import ENDPOINTS, describe
from tasks.endpoints import delete_endpoint

pytestmark = pytest.mark.slow

NAME = "flows-health"


@pytest.fixture(scope="module")
def arn(run_flow: Any, manifest: str, stage_package: Any) -> Iterator[str]:
    """An endpoint that takes every digit for a three, deployed with the digits as its pictures."""
    package = stage_package("health", label="3")
    result = run_flow("deploy_endpoint", package, "--manifest", manifest, "--name", NAME)
    assert result.returncode == 0, result.stderr[-3000:]
    yield (describe(ENDPOINTS, NAME) or {})["EndpointArn"]
    delete_endpoint.fn(NAME)


def remember(arn: str, name: str, value: str) -> None:
    tag = {"Key": f"sagemaker-flows:{name}", "Value": value}
    boto3.client("sagemaker").add_tags(ResourceArn=arn, Tags=[tag])


def test_as_good_as_it_was_is_healthy(run_flow: Any, arn: str, prefect_api: httpx.Client) -> None:
    result = run_flow("check_endpoint_health", NAME, "--limits.most-times-slower", "1000")
    assert result.returncode == 0, result.stderr[-3000:]
    assert f"{NAME} is as it was" in result.stdout
    # Every class is asked about as often as any other.
    assert "9.4% of 32 pictures right, 9.4% at its deployment" in result.stdout
    found = prefect_api.post("/artifacts/filter", json={"limit": 200}).raise_for_status().json()
    assert "endpoint-health" in {artifact["key"] for artifact in found}


def test_worse_and_slower_than_it_was_is_told(
    run_flow: Any, arn: str, assert_told: Callable[[str, set[str]], None]
) -> None:
    remember(arn, "accuracy", "0.968750")
    remember(arn, "latency-ms", "0.001")
    result = run_flow("check_endpoint_health", NAME)
    assert result.returncode == 1
    words = result.stderr.strip().splitlines()[-1]
    assert words.startswith(f"The endpoint {NAME} has drifted: 9.4% of 32 pictures right, 96.9% at its deployment; ")
    assert "ms in the median, 0 ms at its deployment" in words
    assert_told("endpoint.drifted", {NAME})


def test_deployed_again_as_it_is_it_is_held_against_what_it_was_at_first(run_flow: Any, arn: str) -> None:
    """Otherwise whoever runs a deployment twice a day would never see a drift."""
    remember(arn, "accuracy", "0.5")
    model = boto3.client("sagemaker").list_tags(ResourceArn=arn)["Tags"]
    manifest = next(tag["Value"] for tag in model if tag["Key"] == "sagemaker-flows:manifest")
    package = f"s3://{manifest.split('/')[2]}/jobs/health/output/model.tar.gz"
    result = run_flow("deploy_endpoint", package, "--manifest", manifest, "--name", NAME)
    assert result.returncode == 0, result.stderr[-3000:]
    tags = {tag["Key"]: tag["Value"] for tag in boto3.client("sagemaker").list_tags(ResourceArn=arn)["Tags"]}
    assert tags["sagemaker-flows:accuracy"] == "0.5"


def test_an_endpoint_that_nobody_measured_is_one_sentence(run_flow: Any, arn: str) -> None:
    boto3.client("sagemaker").delete_tags(ResourceArn=arn, TagKeys=["sagemaker-flows:manifest"])
    for name, why in ((NAME, "Nobody measured flows-health"), ("flows-nowhere", "There is no endpoint flows-nowhere")):
        result = run_flow("check_endpoint_health", name)
        assert result.returncode == 1
        assert result.stderr.strip().splitlines()[-1].startswith(why)
