"""Endpoints of the local AWS: real model servers behind SageMaker's API."""

import threading
from itertools import count
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from deployments.local_aws.model_server import ModelServer


def invoke(name: str, body: bytes = b"you", **more: Any) -> str:
    answer = boto3.client("sagemaker-runtime").invoke_endpoint(EndpointName=name, Body=body, **more)
    text: str = answer["Body"].read().decode()
    return text


def refusal(name: str, body: bytes = b"you", **more: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        invoke(name, body, **more)
    answer: dict[str, Any] = caught.value.response
    return answer


@pytest.fixture(scope="module")
def endpoint(cloud: Any) -> str:
    """An endpoint of two instances."""
    description = cloud.endpoint(cloud.config(cloud.package(), count=2, greeting="welcome"))
    assert description["EndpointStatus"] == "InService", description
    name: str = description["EndpointName"]
    return name


def test_an_endpoint_in_service_answers_with_its_models_words(endpoint: str) -> None:
    assert invoke(endpoint) == "welcome you"


def test_requests_are_spread_over_the_instances(endpoint: str) -> None:
    assert len({invoke(endpoint, b"pid") for _ in range(40)}) == 2


def test_the_description_names_variants_and_counts(cloud: Any, endpoint: str) -> None:
    description = cloud.sagemaker.describe_endpoint(EndpointName=endpoint)
    variant = description["ProductionVariants"][0]
    assert (variant["VariantName"], variant["CurrentInstanceCount"]) == ("v", 2)


def test_many_callers_at_once_are_all_answered(endpoint: str) -> None:
    answers: list[str] = []
    callers = [threading.Thread(target=lambda: answers.append(invoke(endpoint))) for _ in range(30)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert answers == ["welcome you"] * 30


def test_requests_that_end_while_one_is_placed_do_not_lose_it(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    falling = count(1_000, -1)
    monkeypatch.setattr(ModelServer, "in_flight", property(lambda _: max(next(falling), 0)))
    assert invoke(endpoint) == "welcome you"


def test_what_the_model_refuses_is_a_model_error_with_its_words(endpoint: str) -> None:
    answer = refusal(endpoint, b"refuse")
    assert answer["Error"]["Code"] == "ModelError"
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert (answer["OriginalStatusCode"], answer["OriginalMessage"]) == (415, "only pictures")


def test_a_server_that_dies_is_an_error_once_and_is_replaced(cloud: Any) -> None:
    name = cloud.endpoint(cloud.config(cloud.package()))["EndpointName"]
    before = invoke(name, b"pid")
    assert refusal(name, b"crash")["Error"]["Code"] == "ModelError"

    def answer() -> str:
        try:
            return invoke(name, b"pid")
        except ClientError:
            return before

    assert cloud.until(answer, lambda pid: pid != before)


def test_an_endpoint_that_is_not_there_is_a_validation_error(cloud: Any) -> None:
    answer = refusal("nobody")
    assert answer["Error"]["Code"] == "ValidationError"
    assert "nobody of account 123456789012 not found" in answer["Error"]["Message"]


def test_a_variant_that_is_not_there_is_refused(endpoint: str) -> None:
    assert "Variant w not found" in refusal(endpoint, TargetVariant="w")["Error"]["Message"]


def test_a_body_over_the_services_limit_never_reaches_the_model(endpoint: str) -> None:
    assert refusal(endpoint, b"x" * (30 * 1024 * 1024))["ResponseMetadata"]["HTTPStatusCode"] in (400, 413)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"served.py": "raise RuntimeError('the weights are corrupt')"}, "the weights are corrupt"),
        ({"config.yaml": "applications: []"}, "applications[0].args.asgi_app"),
        ({"code/requirements.txt": "no-such-package-at-all"}, "no-such-package-at-all"),
    ],
)
def test_a_model_that_cannot_load_fails_the_endpoint_with_the_containers_words(
    cloud: Any, files: dict[str, str], words: str
) -> None:
    description = cloud.endpoint(cloud.config(cloud.package(**files)))
    assert description["EndpointStatus"] == "Failed"
    assert words in description["FailureReason"]


def test_the_servers_own_lines_are_in_the_endpoints_log_group(cloud: Any, endpoint: str) -> None:
    lines = cloud.lines(f"/aws/sagemaker/Endpoints/{endpoint}", "v/")
    assert any("startup complete" in line for line in lines)


def test_an_update_replaces_the_servers_and_loses_no_request(cloud: Any) -> None:
    name = cloud.endpoint(cloud.config(cloud.package(), greeting="old"))["EndpointName"]
    answers: list[str] = []
    done = threading.Event()

    def call() -> None:
        while not done.is_set():
            answers.append(invoke(name))

    caller = threading.Thread(target=call)
    caller.start()
    new = cloud.config(cloud.package(), greeting="new")
    cloud.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=new)
    description = cloud.endpoint_end(name)
    cloud.until(lambda: answers[-1], lambda answer: answer == "new you")
    done.set()
    caller.join()
    assert description["EndpointConfigName"] == new
    assert set(answers) == {"old you", "new you"}


def test_an_update_that_fails_leaves_the_old_configuration_in_service(cloud: Any) -> None:
    old = cloud.config(cloud.package(), greeting="old")
    name = cloud.endpoint(old)["EndpointName"]
    broken = cloud.config(cloud.package(**{"served.py": "raise RuntimeError('broken')"}))
    cloud.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=broken)
    description = cloud.endpoint_end(name)
    assert (description["EndpointStatus"], description["EndpointConfigName"]) == ("InService", old)
    assert "broken" in description["FailureReason"]
    assert invoke(name) == "old you"


def test_a_deleted_endpoint_is_gone_and_its_name_is_free(cloud: Any) -> None:
    config = cloud.config(cloud.package())
    name = cloud.endpoint(config)["EndpointName"]
    cloud.sagemaker.delete_endpoint(EndpointName=name)

    def is_gone() -> bool:
        try:
            cloud.sagemaker.describe_endpoint(EndpointName=name)
        except ClientError as error:
            return "Could not find endpoint" in str(error)
        return False

    cloud.until(is_gone, bool)
    cloud.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
    assert cloud.endpoint_end(name)["EndpointStatus"] == "InService"


def test_a_configuration_needs_a_model_that_exists(cloud: Any) -> None:
    variant = {"VariantName": "v", "ModelName": "nothing", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    with pytest.raises(ClientError, match="Could not find model"):
        cloud.sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
