"""Serverless endpoints of the local AWS: servers that start with a request, and end when nobody asks."""

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from deployments.local_aws.clock import Clock

pytestmark = pytest.mark.slow

LIMIT_BYTES = 4 * 1024 * 1024
STARTED, ENDED = "Application startup complete", "Application shutdown complete"
# What it does hangs on the files in a folder: it begins or does not, holds its requests, fills its memory.
SPECIAL = """
import asyncio, os, pathlib
import served_well

gate = pathlib.Path(os.environ["GREETING"])
if (gate / "broken").exists():
    raise RuntimeError("no more of me")

async def app(scope, receive, send):
    if scope["path"] == "/invocations":
        (gate / f"{os.getpid()}").touch()
        while not (gate / "open").exists():
            await asyncio.sleep(0.01)
        if (gate / "fill").exists():
            bytearray(1200 * 2**20)
    await served_well.app(scope, receive, send)

def create():
    return app
"""


class Serverless:
    """One serverless endpoint, and what can be seen of its servers."""

    def __init__(self, cloud: Any, config: str) -> None:
        self.cloud = cloud
        self.description: dict[str, Any] = cloud.endpoint(config)
        self.name: str = self.description["EndpointName"]
        # Without tries of its own, so that a refusal is seen.
        self.runtime = boto3.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))

    def invoke(self, body: bytes = b"you", **more: Any) -> str:
        answer = self.runtime.invoke_endpoint(EndpointName=self.name, Body=body, **more)
        return answer["Body"].read().decode()

    def pid(self) -> int:
        return int(self.invoke(b"pid"))

    def refusal(self, body: bytes = b"you", **more: Any) -> dict[str, Any]:
        with pytest.raises(ClientError) as caught:
            self.invoke(body, **more)
        return dict(caught.value.response)

    def said(self, line: str) -> int:
        """Return how many of its servers have said so."""
        try:
            lines = self.cloud.lines(f"/aws/sagemaker/Endpoints/{self.name}", "v/")
        except ClientError:  # none has said anything yet
            return 0
        return sum(line in one for one in lines)

    def until_said(self, line: str, count: int) -> None:
        self.cloud.until(lambda: self.said(line), lambda seen: seen == count)

    def delete(self) -> None:
        self.cloud.endpoint_end(self.name)
        self.cloud.sagemaker.delete_endpoint(EndpointName=self.name)


def config(cloud: Any, package: str, greeting: str = "hello", variant: Any = None, **changes: Any) -> str:
    """Make a model and a configuration with one serverless variant, of 1 GB and for two requests at once."""
    serverless = {"MemorySizeInMB": 1024, "MaxConcurrency": 2} | changes
    model = cloud.config(package, greeting=greeting)  # with a configuration of its own
    name = str(cloud.name("serverless"))
    one = {"VariantName": "v", "ModelName": model, "ServerlessConfig": serverless, **(variant or {})}
    cloud.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[one])
    return name


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def package(cloud: Any) -> str:
    return str(cloud.package())


@pytest.fixture(scope="module")
def special_package(cloud: Any) -> str:
    good = cloud.files_in(cloud.package())["served.py"].decode()
    return str(cloud.package(**{"served.py": SPECIAL, "served_well.py": good}))


@pytest.fixture
def serve(cloud: Any) -> Iterator[Callable[[str], Serverless]]:
    """Make endpoints that are deleted afterwards."""
    made: list[Serverless] = []

    def make(config_name: str) -> Serverless:
        made.append(Serverless(cloud, config_name))
        assert made[-1].description["EndpointStatus"] == "InService", made[-1].description
        return made[-1]

    yield make
    for one in made:
        with suppress(ClientError):  # a test may have deleted it
            one.delete()


@pytest.fixture(scope="module")
def endpoint(cloud: Any, package: str) -> Iterator[Serverless]:
    """An endpoint that is only asked and looked at."""
    one = Serverless(cloud, config(cloud, package))
    yield one
    one.delete()


# --- servers --------------------------------------------------------------------------------------------------------


def test_in_service_it_has_shown_that_it_can_serve_and_keeps_no_server(cloud: Any, package: str, serve: Any) -> None:
    one = serve(config(cloud, package))
    one.until_said(ENDED, 1)
    assert one.said(STARTED) == 1


def test_a_model_that_cannot_load_fails_the_endpoint_with_the_containers_words(cloud: Any) -> None:
    broken = cloud.package(**{"served.py": "raise RuntimeError('the weights are corrupt')"})
    one = Serverless(cloud, config(cloud, broken))
    assert one.description["EndpointStatus"] == "Failed"
    assert "the weights are corrupt" in one.description["FailureReason"]


def test_the_first_request_starts_a_server_and_the_next_ones_find_it(endpoint: Serverless) -> None:
    assert len({endpoint.pid() for _ in range(5)}) == 1
    assert endpoint.invoke() == "hello you"


def test_the_model_data_may_be_gone_by_then(cloud: Any, serve: Any) -> None:
    uri = cloud.package()
    one = serve(config(cloud, uri))
    cloud.s3.delete_object(Bucket=cloud.bucket, Key=uri.removeprefix(f"s3://{cloud.bucket}/"))
    assert one.invoke() == "hello you"


def test_a_server_that_does_not_start_is_a_model_error_and_holds_nobody_up(
    cloud: Any, special_package: str, serve: Any, tmp_path: Path
) -> None:
    """Twice as many requests as there may be at once: one that failed is not under way any more."""
    one = serve(config(cloud, special_package, greeting=str(tmp_path)))
    (tmp_path / "broken").touch()
    for _ in range(4):
        answer = one.refusal()
        assert (answer["Error"]["Code"], answer["OriginalStatusCode"]) == ("ModelError", 500)
        assert "no more of me" in answer["OriginalMessage"]


@contextmanager
def held(one: Serverless, gate: Path, count: int) -> Iterator[list[int]]:
    """Have so many requests wait in their servers; at the end they are answered with the servers' pids."""
    pids: list[int] = []
    with ThreadPoolExecutor(count) as callers:
        waiting = [callers.submit(one.pid) for _ in range(count)]
        one.cloud.until(lambda: len(list(gate.iterdir())), lambda seen: seen == count)
        try:
            yield pids
        finally:
            (gate / "open").touch()
        pids += [each.result() for each in waiting]


def test_requests_at_once_have_a_server_each_and_one_too_many_is_throttled(
    cloud: Any, special_package: str, serve: Any, tmp_path: Path
) -> None:
    one = serve(config(cloud, special_package, greeting=str(tmp_path), MaxConcurrency=2))
    with held(one, tmp_path, 2) as pids:
        answer = one.refusal()
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == ("ThrottlingException", 429)
    assert len(set(pids)) == 2
    assert one.pid() in pids


def test_an_idle_server_ends_and_the_next_request_starts_another(
    cloud: Any, package: str, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = serve(config(cloud, package))
    first = one.pid()
    monkeypatch.setattr(Clock, "minute_seconds", 0.05)
    cloud.until(lambda: is_running(first), lambda running: not running)
    assert one.pid() != first


def test_a_server_that_dies_is_an_error_and_the_next_request_starts_another(
    cloud: Any, package: str, serve: Any
) -> None:
    one = serve(config(cloud, package))
    first = one.pid()
    assert one.refusal(b"crash")["Error"]["Code"] == "ModelError"
    cloud.until(lambda: is_running(first), lambda running: not running)

    def answer() -> int:
        try:
            return one.pid()
        except ClientError:
            return first

    assert cloud.until(answer, lambda pid: pid != first)


def test_as_many_as_are_provisioned_are_there_before_any_request(cloud: Any, package: str, serve: Any) -> None:
    one = serve(config(cloud, package, ProvisionedConcurrency=2))
    one.until_said(STARTED, 2)
    one.pid()
    assert (one.said(STARTED), one.said(ENDED)) == (2, 0)


def test_provisioned_servers_stay_when_others_end(
    cloud: Any, special_package: str, serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = serve(config(cloud, special_package, greeting=str(tmp_path), ProvisionedConcurrency=1))
    with held(one, tmp_path, 2) as pids:
        pass
    monkeypatch.setattr(Clock, "minute_seconds", 0.05)
    running = cloud.until(lambda: [pid for pid in pids if is_running(pid)], lambda left: len(left) == 1)
    time.sleep(1.5)  # three idle times
    assert one.pid() in running


def test_a_provisioned_server_that_dies_is_replaced_without_a_request(cloud: Any, package: str, serve: Any) -> None:
    one = serve(config(cloud, package, ProvisionedConcurrency=1))
    one.refusal(b"crash")
    one.until_said(STARTED, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces the limit")
def test_more_memory_than_it_has_is_an_error_of_the_model(
    cloud: Any, special_package: str, serve: Any, tmp_path: Path
) -> None:
    (tmp_path / "open").touch()
    (tmp_path / "fill").touch()
    small = serve(config(cloud, special_package, greeting=str(tmp_path), MemorySizeInMB=1024))
    large = serve(config(cloud, special_package, greeting=str(tmp_path), MemorySizeInMB=2048))
    assert small.refusal()["OriginalStatusCode"] == 500
    assert large.invoke().endswith("you")


# --- requests -------------------------------------------------------------------------------------------------------


def test_a_body_of_four_megabytes_is_the_largest(endpoint: Serverless) -> None:
    assert len(endpoint.invoke(b"x" * LIMIT_BYTES)) > LIMIT_BYTES
    for _ in range(3):  # more than there may be at once: what is refused is not under way
        answer = endpoint.refusal(b"x" * (LIMIT_BYTES + 1))
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert endpoint.invoke() == "hello you"


def test_what_the_model_refuses_and_a_wrong_variant_are_as_elsewhere(endpoint: Serverless) -> None:
    assert endpoint.refusal(b"refuse")["OriginalMessage"] == "only pictures"
    assert "Variant w not found" in endpoint.refusal(TargetVariant="w")["Error"]["Message"]
    assert endpoint.invoke(TargetVariant="v") == "hello you"


def sums(name: str, metric: str) -> list[float]:
    now = datetime.now(UTC)
    found = boto3.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName=metric,
        Dimensions=[{"Name": "EndpointName", "Value": name}, {"Name": "VariantName", "Value": "v"}],
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(hours=1),
        Period=3600,
        Statistics=["Sum", "SampleCount"],
    )["Datapoints"]
    return [value for one in found for value in (one["SampleCount"], one["Sum"])]


def test_metrics_tell_of_invocations_and_of_the_cold_start(
    cloud: Any, package: str, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = serve(config(cloud, package))
    for _ in range(3):
        one.invoke()
    monkeypatch.setattr(Clock, "minute_seconds", 0.3)
    assert cloud.until(lambda: sums(one.name, "Invocations"), bool) == [3, 3]
    (count, setup), (_, overhead) = sums(one.name, "ModelSetupTime"), sums(one.name, "OverheadLatency")
    assert count == 1
    assert 1e4 < setup < overhead
    assert sums(one.name, "InvocationsPerInstance") == []


# --- descriptions, updates, deletion --------------------------------------------------------------------------------


def test_it_is_described_by_its_configuration_and_without_instances(endpoint: Serverless) -> None:
    (variant,) = endpoint.cloud.sagemaker.describe_endpoint(EndpointName=endpoint.name)["ProductionVariants"]
    expected = {"MemorySizeInMB": 1024, "MaxConcurrency": 2}
    assert (variant["CurrentServerlessConfig"], variant["DesiredServerlessConfig"]) == (expected, expected)
    assert not {"CurrentInstanceCount", "DesiredInstanceCount"} & variant.keys()


def test_an_update_replaces_its_configuration_and_its_servers(cloud: Any, package: str, serve: Any) -> None:
    one = serve(config(cloud, package, greeting="old"))
    old = one.pid()
    new = config(cloud, package, greeting="new", MaxConcurrency=3, ProvisionedConcurrency=1)
    cloud.sagemaker.update_endpoint(EndpointName=one.name, EndpointConfigName=new, RetainAllVariantProperties=True)
    description = cloud.endpoint_end(one.name)
    assert (description["EndpointConfigName"], one.invoke()) == (new, "new you")
    assert description["ProductionVariants"][0]["CurrentServerlessConfig"] == {
        "MemorySizeInMB": 1024,
        "MaxConcurrency": 3,
        "ProvisionedConcurrency": 1,
    }
    assert not is_running(old)


def test_it_can_be_given_instances_and_not_be_made_serverless_again(cloud: Any, package: str, serve: Any) -> None:
    serverless, instances = config(cloud, package), cloud.config(package, count=2)
    one = serve(serverless)
    cloud.sagemaker.update_endpoint(EndpointName=one.name, EndpointConfigName=instances)
    assert cloud.endpoint_end(one.name)["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    with pytest.raises(ClientError, match="cannot be updated to a serverless endpoint"):
        cloud.sagemaker.update_endpoint(EndpointName=one.name, EndpointConfigName=serverless)


@pytest.mark.parametrize("provisioned", [{}, {"ProvisionedConcurrency": 2}])
def test_with_the_endpoint_its_servers_and_files_are_gone(
    cloud: Any, package: str, serve: Any, local_aws: Any, provisioned: dict[str, int]
) -> None:
    one = serve(config(cloud, package, **provisioned))
    pid = one.pid()
    one.delete()

    def is_gone() -> bool:
        try:
            cloud.sagemaker.describe_endpoint(EndpointName=one.name)
        except ClientError:
            return True
        return False

    cloud.until(is_gone, bool)
    assert not is_running(pid)
    assert not list(local_aws.account.root.glob(f"endpoints/{one.name}-*"))
    assert not [thread for thread in threading.enumerate() if thread.name == f"watch-{one.name}"]


def test_with_the_local_aws_its_servers_are_gone() -> None:
    script = """
        import pathlib, sys
        sys.path.insert(0, "tests/deployments/local_aws")
        from conftest import Cloud
        from test_serverless import Serverless, config
        cloud = Cloud()
        one = Serverless(cloud, config(cloud, cloud.package(), ProvisionedConcurrency=2))
        print(*{one.pid() for _ in range(20)})
    """
    command = [sys.executable, "-m", "deployments.local_aws", "--administrator", "--", sys.executable, "-c"]
    finished = subprocess.run(
        [*command, textwrap.dedent(script)], check=False, capture_output=True, text=True, timeout=60
    )
    pids = [int(pid) for pid in finished.stdout.split()]
    assert pids, finished.stderr
    assert not any(is_running(pid) for pid in pids)


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("serverless", "variant", "words"),
    [
        ({"MemorySizeInMB": 1536}, {}, "MemorySizeInMB must be one of 1024, 2048"),
        ({"MemorySizeInMB": 8192}, {}, "less than or equal to 6144"),
        ({"MaxConcurrency": 201}, {}, "less than or equal to 200"),
        ({"ProvisionedConcurrency": 3}, {}, "less than or equal to MaxConcurrency, which is 2"),
        ({}, {"InstanceType": "ml.m5.large"}, "together with InstanceType"),
        ({}, {"InitialInstanceCount": 1}, "together with InitialInstanceCount"),
    ],
)
def test_configurations_that_aws_refuses_are_refused(
    cloud: Any, package: str, serverless: dict[str, int], variant: dict[str, Any], words: str
) -> None:
    with pytest.raises(ClientError, match=words):
        config(cloud, package, variant=variant, **serverless)


def test_a_second_variant_and_a_vpc_are_refused(cloud: Any, package: str) -> None:
    model = cloud.config(package)
    variant = {"VariantName": "v", "ModelName": model}
    serverless = variant | {"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}}
    second = variant | {"VariantName": "w", "InstanceType": "ml.m5.large"}
    vpc = {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}
    create = cloud.sagemaker.create_endpoint_config
    with pytest.raises(ClientError, match="one production variant, not 2"):
        create(EndpointConfigName="refused", ProductionVariants=[serverless, second])
    with pytest.raises(ClientError, match="VpcConfig"):
        create(EndpointConfigName="refused", ProductionVariants=[serverless], VpcConfig=vpc)
    inside = cloud.name("model")
    role = cloud.outputs["EndpointRoleArn"]
    container = {"Image": "ray", "ModelDataUrl": package}
    cloud.sagemaker.create_model(ModelName=inside, PrimaryContainer=container, ExecutionRoleArn=role, VpcConfig=vpc)
    with pytest.raises(ClientError, match="VpcConfig"):
        create(EndpointConfigName="refused", ProductionVariants=[serverless | {"ModelName": inside}])


def test_guardrails_are_refused(cloud: Any, package: str, endpoint: Serverless) -> None:
    routing = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
    request = {
        "EndpointConfigName": config(cloud, package),
        "DeploymentConfig": {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}},
    }
    with pytest.raises(ClientError, match="real-time and asynchronous endpoints only"):
        cloud.sagemaker.update_endpoint(EndpointName=endpoint.name, **request)
    with pytest.raises(ClientError, match="real-time and asynchronous endpoints only"):
        cloud.sagemaker.create_endpoint(EndpointName="refused", **request)


def test_a_number_of_instances_is_refused(cloud: Any, endpoint: Serverless) -> None:
    change = {"VariantName": "v", "DesiredInstanceCount": 2}
    with pytest.raises(ClientError, match="is serverless: it has no instances"):
        cloud.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName=endpoint.name, DesiredWeightsAndCapacities=[change]
        )
    with pytest.raises(ClientError, match="is serverless: it has no sagemaker:variant:DesiredInstanceCount"):
        boto3.client("application-autoscaling").register_scalable_target(
            ServiceNamespace="sagemaker",
            ScalableDimension="sagemaker:variant:DesiredInstanceCount",
            ResourceId=f"endpoint/{endpoint.name}/variant/v",
            MinCapacity=1,
            MaxCapacity=2,
        )
