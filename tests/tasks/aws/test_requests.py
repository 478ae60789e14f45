"""Requests hold against botocore's own models of the services, and say what the spec says."""

import json
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.validate import ParamValidator

from tasks.aws.errors import RequestRefusedError
from tasks.aws.identity import Owner, resource_name
from tasks.aws.instance_requests import command_request, run_instances_request, training_script
from tasks.aws.requests import (
    METRIC_DEFINITIONS,
    check_instance_type,
    check_tuning,
    endpoint_config_request,
    endpoint_request,
    model_request,
    training_digest,
    training_job_request,
    tuning_job_request,
)
from tasks.aws.settings import Settings
from tasks.contracts import (
    Channel,
    Compute,
    Dataset,
    Ec2Compute,
    Ec2TrainingSpec,
    EndpointCompute,
    EndpointSpec,
    Hyperparameters,
    LearningRateRange,
    SearchSpace,
    TrainingSpec,
    TuningConfig,
    TuningSpec,
    Value,
)

OWNER = Owner(flow_run_id="run-1", expires_at="2026-12-01T00:00:00+00:00")
SETTINGS = Settings(
    account_id="123456789012",
    region="us-east-1",
    bucket="a-bucket",
    training_role_arn="arn:aws:iam::123456789012:role/training",
    endpoint_role_arn="arn:aws:iam::123456789012:role/endpoint",
    instance_profile="a-profile",
    instance_security_group_id="sg-0123456789abcdef0",
    command_log_group="/aws/ssm/sagemaker-flows",
    lambda_role_arn="arn:aws:iam::123456789012:role/front",
    reaper_role_arn="arn",
    front_endpoint="flows-live",
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


def tuning_spec(**config: object) -> TuningSpec:
    return TuningSpec(trial=training_spec(step="tune"), config=TuningConfig(**config))


def ec2_spec(**changes: object) -> Ec2TrainingSpec:
    fields = {
        "dataset": dataset(),
        "hyperparameters": Hyperparameters(),
        "compute": Ec2Compute(),
        "program_s3_uri": "s3://a-bucket/code/training-1.tar.gz",
        "image_id": "ami-0123456789abcdef0",
        "root_device": "/dev/sda1",
    }
    return Ec2TrainingSpec(**(fields | changes))


def complaints(operation: str, request: dict[str, object], service: str = "sagemaker") -> str:
    shape = boto3.client(service, region_name="us-east-1").meta.service_model.operation_model(operation).input_shape
    return ParamValidator().validate(request, shape).generate_report()


def test_every_request_holds_against_the_service_model() -> None:
    spec = endpoint_spec()
    assert complaints("CreateTrainingJob", training_job_request(training_spec(), SETTINGS, OWNER)) == ""
    assert complaints("CreateModel", model_request(spec, SETTINGS, OWNER)) == ""
    assert complaints("CreateEndpointConfig", endpoint_config_request(spec, "m", OWNER)) == ""
    assert complaints("CreateEndpoint", endpoint_request(spec, "c", OWNER)) == ""


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"strategy": "Random", "early_stopping": True},
        {"strategy": "Grid", "trials": 12},
        {"strategy": "Hyperband", "epochs": 9},
        {"warm_start_from": "flows-tune-000000000000"},
    ],
)
def test_every_kind_of_tuning_holds_against_the_service_model(config: dict[str, Any]) -> None:
    request = tuning_job_request(tuning_spec(**config), SETTINGS, OWNER)
    assert complaints("CreateHyperParameterTuningJob", request) == ""
    assert len(request["HyperParameterTuningJobName"]) <= 32


def test_what_is_searched_is_not_fixed_too() -> None:
    request = tuning_job_request(tuning_spec(epochs=3), SETTINGS, OWNER)
    fixed = request["TrainingJobDefinition"]["StaticHyperParameters"]
    assert not {"learning_rate", "batch_size"} & set(fixed)
    assert fixed["epochs"] == "3"
    ranges = request["HyperParameterTuningJobConfig"]["ParameterRanges"]
    assert ranges["ContinuousParameterRanges"][0]["ScalingType"] == "Logarithmic"
    assert ranges["CategoricalParameterRanges"] == [{"Name": "batch_size", "Values": ["32", "64", "128"]}]


def test_a_grid_is_choices_only_evenly_apart_on_its_scale() -> None:
    """SageMaker's Grid takes no continuous ranges, and counts the combinations itself."""
    search = SearchSpace(learning_rate=LearningRateRange(low=0.001, high=0.1, scale="log", steps=3), batch_size=())
    config = tuning_job_request(tuning_spec(strategy="Grid", search=search), SETTINGS, OWNER)[
        "HyperParameterTuningJobConfig"
    ]
    values = [json.loads(value) for value in config["ParameterRanges"]["CategoricalParameterRanges"][0]["Values"]]
    assert values == pytest.approx([0.001, 0.01, 0.1])
    assert "ContinuousParameterRanges" not in config["ParameterRanges"]
    assert "MaxNumberOfTrainingJobs" not in config["ResourceLimits"]


@pytest.mark.parametrize(
    ("search", "machines", "words"),
    [
        ({"trainable": ("head",)}, {}, "trials that could only fail: trainable='head' needs weights to build on"),
        ({"trainable": ("all", "head")}, {}, "trials that could only fail: trainable='head' needs weights"),
        ({}, {"fallbacks": ("ml.c5.xlarge", "ml.c5.2xlarge")}, r"cannot try ml\.c5\.xlarge, ml\.c5\.2xlarge in turn"),
    ],
)
def test_a_search_that_could_not_be_is_refused(search: dict[str, Any], machines: dict[str, Any], words: str) -> None:
    config = TuningConfig.model_validate({"search": search})
    with pytest.raises(RequestRefusedError, match=words):
        check_tuning(config, Hyperparameters(), Compute(**machines))


def test_a_search_that_its_trainings_could_be_given_is_not_refused() -> None:
    pretrained = Hyperparameters(architecture="resnet18", weights="imagenet")
    every = {"trainable": ("all", "head"), "weight_decay": {}, "augmentation": {}}
    for given, search in ((Hyperparameters(), {}), (pretrained, every)):
        check_tuning(TuningConfig.model_validate({"search": search}), given, Compute())


def test_the_objective_is_one_that_the_program_prints() -> None:
    for objective in ("valid_loss", "valid_accuracy"):
        request = tuning_job_request(tuning_spec(objective=objective), SETTINGS, OWNER)
        definitions = request["TrainingJobDefinition"]["AlgorithmSpecification"]["MetricDefinitions"]
        wanted = request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
        assert wanted["MetricName"] in {metric["Name"] for metric in definitions}
        assert wanted["Type"] == {"valid_loss": "Minimize", "valid_accuracy": "Maximize"}[objective]


INSTANCE = {
    "InstanceId": "i-0123456789abcdef0",
    "InstanceType": "m5.xlarge",
    "LaunchTime": datetime(2026, 11, 23, tzinfo=UTC),
}


@pytest.mark.parametrize("spot", [False, True])
def test_instances_and_commands_hold_against_the_service_models(spot: bool) -> None:  # noqa: FBT001 - a case
    run = run_instances_request(ec2_spec(), SETTINGS, OWNER, instance_type="m5.xlarge", spot=spot, attempt=1)
    assert complaints("RunInstances", run, "ec2") == ""
    assert ("InstanceMarketOptions" in run) == spot
    command = command_request(ec2_spec(), SETTINGS, "flows-train-ec2-1", INSTANCE, "/opt/pytorch")
    assert complaints("SendCommand", command, "ssm") == ""


def test_an_instance_has_no_way_in_an_encrypted_disk_and_its_own_end() -> None:
    request = run_instances_request(ec2_spec(), SETTINGS, OWNER, instance_type="m5.xlarge", spot=False, attempt=1)
    assert "KeyName" not in request
    assert request["MetadataOptions"]["HttpTokens"] == "required"
    assert request["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    assert request["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert "shutdown -h +75" in request["UserData"]  # an hour for the command, a quarter to get there
    assert {kind["ResourceType"] for kind in request["TagSpecifications"]} == {"instance", "volume"}


def test_the_same_content_and_attempt_have_one_token() -> None:
    def token(attempt: int = 1, **changes: object) -> str:
        request = run_instances_request(
            ec2_spec(**changes), SETTINGS, OWNER, instance_type="m5.xlarge", spot=False, attempt=attempt
        )
        return str(request["ClientToken"])

    assert token() == token()
    assert len({token(), token(2), token(hyperparameters=Hyperparameters(epochs=2)), token(image_id="ami-2")}) == 4


def test_nothing_of_the_spec_is_obeyed_by_the_shell() -> None:
    """A class folder or a bucket may be named anything."""
    spec = ec2_spec(program_s3_uri="s3://a-bucket/code/$(touch pwned).tar.gz")
    lines = training_script(spec, SETTINGS, "flows-train-ec2-1", INSTANCE, "/opt/a venv")
    assert "'s3://a-bucket/code/$(touch pwned).tar.gz'" in lines[5]
    assert "'/opt/a venv/bin/python'" in lines[-1]


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
