"""A front as a flow's tasks deploy it, against the local AWS: the real function in front of a real endpoint."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from tasks import functions
from tasks.aws.errors import IdentityError, InvocationError
from tasks.aws.function_requests import pack_function
from tasks.aws.settings import Settings, load_settings
from tasks.contracts import FrontConfig, FrontResult, FrontSpec
from tasks.functions import delete_function, deploy_function

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def endpoint(local_aws: Any, stage_package: Any) -> Iterator[str]:
    """The one endpoint that the function's role may ask."""
    settings, sagemaker = load_settings(), boto3.client("sagemaker")
    name = settings.front_endpoint
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig={"Delay": 1})  # of other tests
    container = {"Image": "an-image", "ModelDataUrl": stage_package("front")}
    sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=settings.endpoint_role_arn)
    variant = {"VariantName": "a", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 1})
    yield name
    sagemaker.delete_endpoint(EndpointName=name)
    sagemaker.delete_endpoint_config(EndpointConfigName=name)
    sagemaker.delete_model(ModelName=name)


@pytest.fixture
def front(endpoint: str, settings: Settings, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Deploy a front of the test's own, again and again; it is gone afterwards."""
    name = f"flows-{''.join(filter(str.isalnum, request.node.name))[-50:]}"

    def deploy(endpoint_name: str = endpoint, **config: Any) -> FrontResult:
        spec = FrontSpec(endpoint_name=endpoint_name, config=FrontConfig(**({"name": name} | config)))
        return deploy_function.fn(spec, settings, (functions._GREY,))

    yield deploy
    delete_function.fn(name)


def test_a_front_answers_through_its_alias(front: Any) -> None:
    result = front()
    assert (result.how, result.version, result.previous_version) == ("created", "1", None)
    assert result.arn.endswith(":live")
    assert [answer.answer.label for answer in result.answers] == ["cat"]
    assert result.url.startswith("http")
    log = boto3.client("logs").describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{result.name}")["logGroups"][0]
    assert log["retentionInDays"] == 30


def test_a_second_time_changes_nothing(front: Any) -> None:
    first, second = front(), front()
    assert (second.how, second.version, second.url) == ("unchanged", first.version, first.url)


def test_another_code_or_configuration_is_another_version_behind_the_same_alias(
    front: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = front()
    second = front(timeout_seconds=25)
    assert (second.how, second.version, second.previous_version) == ("updated", "2", "1")
    source = functions._SOURCE.read_bytes() + b"\n# another digest\n"
    monkeypatch.setattr(functions, "package", lambda: pack_function(source))
    third = front(timeout_seconds=25)
    assert (third.how, third.version, third.arn) == ("updated", "3", first.arn)


def test_a_version_that_does_not_answer_is_taken_back(front: Any) -> None:
    first = front()
    with pytest.raises(InvocationError, match="version 1 is in service again"):
        front(endpoint_name="flows-endpoint-that-is-not-there")
    aliases = boto3.client("lambda").list_aliases(FunctionName=first.name)["Aliases"]
    assert [alias["FunctionVersion"] for alias in aliases] == ["1"]


def test_a_first_version_that_does_not_answer_is_in_nobodys_way(front: Any) -> None:
    with pytest.raises(InvocationError, match="nothing is in service"):
        front(endpoint_name="flows-endpoint-that-is-not-there")


def test_concurrency_is_reserved_kept_warm_and_given_back(front: Any) -> None:
    result = front(reserved_concurrency=3, provisioned_concurrency=1)
    aws = boto3.client("lambda")
    assert aws.get_function_concurrency(FunctionName=result.name)["ReservedConcurrentExecutions"] == 3
    warm = aws.get_provisioned_concurrency_config(FunctionName=result.name, Qualifier="live")
    assert warm["Status"] == "READY"
    front()
    assert "ReservedConcurrentExecutions" not in aws.get_function_concurrency(FunctionName=result.name)
    with pytest.raises(aws.exceptions.ProvisionedConcurrencyConfigNotFoundException):
        aws.get_provisioned_concurrency_config(FunctionName=result.name, Qualifier="live")


def test_a_function_that_is_not_ours_is_left_alone(front: Any, settings: Settings) -> None:
    result = front()
    aws = boto3.client("lambda")
    aws.untag_resource(Resource=result.arn.removesuffix(":live"), TagKeys=["project"])
    with pytest.raises(IdentityError, match="does not carry the tag project=sagemaker-flows"):
        front()
    with pytest.raises(IdentityError):
        delete_function.fn(result.name)
    aws.delete_function(FunctionName=result.name)
