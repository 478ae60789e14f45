"""Requests hold against botocore's own model of SageMaker, and say what the spec says."""

import json

import boto3
import pytest
from botocore.validate import ParamValidator

from tasks.aws.errors import RequestRefusedError
from tasks.aws.identity import Owner, resource_name
from tasks.aws.requests import (
    METRIC_DEFINITIONS,
    check_instance_type,
    endpoint_config_request,
    endpoint_request,
    model_request,
    training_digest,
    training_job_request,
)
from tasks.aws.settings import Settings
from tasks.contracts import (
    Channel,
    Compute,
    Dataset,
    EndpointCompute,
    EndpointSpec,
    Hyperparameters,
    TrainingSpec,
    Value,
)

OWNER = Owner(flow_run_id="run-1", expires_at="2026-12-01T00:00:00+00:00")
SETTINGS = Settings(
    account_id="123456789012",
    region="us-east-1",
    bucket="a-bucket",
    training_role_arn="arn:aws:iam::123456789012:role/training",
    endpoint_role_arn="arn:aws:iam::123456789012:role/endpoint",
)


def dataset() -> Dataset:
    channels = {
        split: Channel(s3_uri=f"s3://a-bucket/datasets/digits/versions/1/{split}.json")
        for split in ("train", "valid", "test")
    }
    return Dataset(
        name="digits",
        digest="d" * 64,
        bucket="a-bucket",
        classes=("0", "1"),
        counts={split: {"0": 1, "1": 1} for split in ("train", "valid", "test")},
        channels=channels,
        manifest_s3_uri="s3://a-bucket/datasets/digits/versions/1/dataset.json",
        total_bytes=100,
    )


def training_spec(**changes: object) -> TrainingSpec:
    fields = {
        "dataset": dataset(),
        "hyperparameters": Hyperparameters(),
        "compute": Compute(),
        "program_s3_uri": "s3://a-bucket/code/training-1.tar.gz",
        "image_uri": "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.10-cpu-py313",
    }
    return TrainingSpec(**(fields | changes))


def endpoint_spec(**changes: object) -> EndpointSpec:
    fields = {"model_s3_uri": "s3://a-bucket/m.tar.gz", "image_uri": "ray:1", "compute": EndpointCompute()}
    return EndpointSpec(**(fields | changes))


def complaints(operation: str, request: dict[str, object]) -> str:
    shape = boto3.client("sagemaker", region_name="us-east-1").meta.service_model.operation_model(operation).input_shape
    return ParamValidator().validate(request, shape).generate_report()


def test_every_request_holds_against_the_service_model() -> None:
    spec = endpoint_spec()
    assert complaints("CreateTrainingJob", training_job_request(training_spec(), SETTINGS, OWNER)) == ""
    assert complaints("CreateModel", model_request(spec, SETTINGS, OWNER)) == ""
    assert complaints("CreateEndpointConfig", endpoint_config_request(spec, "m", OWNER)) == ""
    assert complaints("CreateEndpoint", endpoint_request(spec, "c", OWNER)) == ""


def test_hyperparameters_are_strings_of_json() -> None:
    values = training_job_request(training_spec(), SETTINGS, OWNER)["HyperParameters"]
    assert json.loads(values["learning_rate"]) == Hyperparameters().learning_rate
    assert json.loads(values["sagemaker_program"]) == "training/train.py"


def test_a_weights_file_in_s3_becomes_a_channel() -> None:
    hyperparameters = Hyperparameters(architecture="resnet18", weights="s3://a-bucket/weights/w.safetensors")
    request = training_job_request(training_spec(hyperparameters=hyperparameters), SETTINGS, OWNER)
    weights = [channel for channel in request["InputDataConfig"] if channel["ChannelName"] == "weights"]
    assert weights[0]["DataSource"]["S3DataSource"]["S3Uri"] == "s3://a-bucket/weights/w.safetensors"
    assert json.loads(request["HyperParameters"]["weights"]) == "channel"


@pytest.mark.parametrize(
    "change",
    [
        {"hyperparameters": Hyperparameters(epochs=21)},
        {"compute": Compute(instance_type="ml.c5.xlarge")},
        {"program_s3_uri": "s3://a-bucket/code/training-2.tar.gz"},
        {"image_uri": "another"},
        {"dataset": dataset().model_copy(update={"digest": "e" * 64})},
        {"fresh": True},
    ],
)
def test_whatever_decides_the_outcome_decides_the_name(change: dict[str, Value]) -> None:
    assert training_digest(training_spec(**change), OWNER) != training_digest(training_spec(), OWNER)


def test_what_does_not_decide_the_outcome_leaves_the_name() -> None:
    other = training_spec(compute=Compute(max_runtime_seconds=60, volume_gb=50))
    assert training_digest(other, OWNER) == training_digest(training_spec(), OWNER)


def test_a_fresh_job_has_one_name_within_its_flow_run() -> None:
    """A retry of the task that asked for a fresh job must find that job, not ask for another."""
    spec = training_spec(fresh=True)
    assert training_digest(spec, OWNER) == training_digest(spec, OWNER.model_copy(update={"expires_at": "later"}))
    assert training_digest(spec, OWNER) != training_digest(spec, OWNER.model_copy(update={"flow_run_id": "run-2"}))


def test_names_fit_sagemaker() -> None:
    assert len(resource_name("a" * 20, "0" * 64, attempt=20)) <= 63
    with pytest.raises(ValueError, match="shorter step"):
        resource_name("a" * 60, "0" * 64)


def test_attempts_share_their_checkpoints() -> None:
    request = training_job_request(training_spec(), SETTINGS, OWNER)
    assert request["CheckpointConfig"]["S3Uri"] == f"s3://a-bucket/checkpoints/{request['TrainingJobName']}"


def test_an_unknown_instance_type_is_refused_with_a_hint() -> None:
    with pytest.raises(RequestRefusedError, match=r"knows no instance type ml\.m5\.huge .* ml\.m5\.large"):
        check_instance_type("ml.m5.huge", ("ml.m5.large", "ml.c5.xlarge"), "training")


def test_metric_names_are_unique() -> None:
    assert len({metric["Name"] for metric in METRIC_DEFINITIONS}) == len(METRIC_DEFINITIONS)
