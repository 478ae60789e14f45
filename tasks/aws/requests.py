"""Requests to AWS, built from specs: pure functions without client, clock or environment."""

import json
from typing import Any

from pydantic import ValidationError

from tasks.aws.errors import RequestRefusedError
from tasks.aws.identity import Owner, digest_of, resource_name, tags_of
from tasks.aws.settings import Settings
from tasks.contracts import (
    Channel,
    Compute,
    Dataset,
    EndpointCompute,
    EndpointSpec,
    FloatRange,
    Hyperparameters,
    TrainingSpec,
    TuningConfig,
    TuningSpec,
)

# The training program prints `name=value`; a test holds these names against what it really prints.
METRICS = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "test_loss", "test_accuracy")
METRIC_DEFINITIONS = [{"Name": name, "Regex": rf"{name}=([-+0-9.eE]+)"} for name in METRICS]

TRAINING_PROGRAM = "training/train.py"
VARIANT = "AllTraffic"
_CHECKPOINTS = "/opt/ml/checkpoints"
_HOSTING_START_SECONDS = 600
_TUNING_NAME_LIMIT = 32


def training_digest(spec: TrainingSpec, owner: Owner) -> str:
    """Return the digest of all that decides a training's outcome.

    A fresh training is one more content: the flow run that wants it, so that its retries still find it.
    """
    return digest_of(
        {
            "dataset": spec.dataset.digest,
            "channels": {split: channel.model_dump() for split, channel in spec.dataset.channels.items()},
            "hyperparameters": spec.hyperparameters.model_dump(),
            "program": spec.program_s3_uri,
            "image": spec.image_uri,
            "instances": [spec.compute.instance_type, spec.compute.instance_count],
            "fresh": owner.flow_run_id if spec.fresh else None,
        }
    )


def training_job_request(spec: TrainingSpec, settings: Settings, owner: Owner) -> dict[str, Any]:
    """Return the request for a training job.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
    """
    digest = training_digest(spec, owner)
    name = resource_name(spec.step, digest)
    return {
        "TrainingJobName": name,
        **_definition(spec, settings),
        "HyperParameters": _program_hyperparameters(spec, settings) | encoded(spec.hyperparameters),
        # Every attempt at the same content shares its checkpoints: the second goes on where the first was lost.
        "CheckpointConfig": {"S3Uri": checkpoints_uri(settings, name), "LocalPath": _CHECKPOINTS},
        "Tags": tags_of(owner, digest),
    }


def _definition(spec: TrainingSpec, settings: Settings) -> dict[str, Any]:
    """Return what a training job of its own and a trial of a tuning job are asked for in the same words."""
    return {
        "AlgorithmSpecification": {
            "TrainingImage": spec.image_uri,
            "TrainingInputMode": "File",
            "MetricDefinitions": METRIC_DEFINITIONS,
        },
        "RoleArn": settings.training_role_arn,
        "InputDataConfig": [
            _channel(name, channel) for name, channel in input_channels(spec.dataset, spec.hyperparameters).items()
        ],
        "OutputDataConfig": {"S3OutputPath": outputs_uri(settings)},
        "ResourceConfig": {
            "InstanceType": spec.compute.instance_type,
            "InstanceCount": spec.compute.instance_count,
            "VolumeSizeInGB": spec.compute.volume_gb,
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": spec.compute.max_runtime_seconds},
    }


def outputs_uri(settings: Settings) -> str:
    """Return where jobs leave their models, each below its name."""
    return f"s3://{settings.bucket}/jobs"


def checkpoints_uri(settings: Settings, name: str) -> str:
    """Return where a job keeps its checkpoints."""
    return f"s3://{settings.bucket}/checkpoints/{name}"


def check_tuning(config: TuningConfig, hyperparameters: Hyperparameters, compute: Compute) -> None:
    """Refuse a search whose trials could only fail, and machines that it cannot have, before anything is created.

    Raises:
        RequestRefusedError: With what to change.
    """
    if compute.fallbacks:
        msg = (
            "A tuning job has one type of machine for all of its trials, and cannot try "
            f"{', '.join(compute.fallbacks)} in turn: leave compute.fallbacks out"
        )
        raise RequestRefusedError(msg)
    for corner in config.search.corners:
        try:
            Hyperparameters.model_validate(hyperparameters.model_dump() | corner)
        except ValidationError as error:
            words = error.errors()[0]["msg"].removeprefix("Value error, ")
            msg = f"The search has trials that could only fail: {words}"
            raise RequestRefusedError(msg) from error


def tuning_job_request(spec: TuningSpec, settings: Settings, owner: Owner) -> dict[str, Any]:
    """Return the request for a hyperparameter tuning job.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateHyperParameterTuningJob.html
    """
    config, trial = spec.config, spec.trial
    digest = digest_of({"trial": training_digest(trial, owner), "config": config.model_dump()})
    fixed = {name: value for name, value in encoded(spec.hyperparameters).items() if name not in config.search.names}
    request = {
        "HyperParameterTuningJobName": resource_name(trial.step, digest, limit=_TUNING_NAME_LIMIT),
        "HyperParameterTuningJobConfig": _tuning_config(spec),
        # Without checkpoints: trials are short, and the next attempt's have other names.
        "TrainingJobDefinition": {
            **_definition(trial, settings),
            "StaticHyperParameters": _program_hyperparameters(trial, settings) | fixed,
        },
        "Tags": tags_of(owner, digest),
    }
    if config.warm_start_from:
        parents = [{"HyperParameterTuningJobName": config.warm_start_from}]
        request["WarmStartConfig"] = {
            "ParentHyperParameterTuningJobs": parents,
            "WarmStartType": "TransferLearning",  # the other type wants the very same data and image
        }
    return request


def _tuning_config(spec: TuningSpec) -> dict[str, Any]:
    config = spec.config
    limits = {"MaxParallelTrainingJobs": config.parallel}
    if config.strategy != "Grid":  # SageMaker counts the combinations of a grid itself
        limits["MaxNumberOfTrainingJobs"] = config.trials
    request: dict[str, Any] = {
        "Strategy": config.strategy,
        "HyperParameterTuningJobObjective": {
            "Type": "Minimize" if config.objective.endswith("loss") else "Maximize",
            "MetricName": config.objective,
        },
        "ResourceLimits": limits,
        "ParameterRanges": _parameter_ranges(spec),
        "TrainingJobEarlyStoppingType": "Auto" if config.early_stopping else "Off",
        "RandomSeed": config.seed,
    }
    if config.strategy == "Hyperband":
        # A trial that reaches the most is stopped; one that ends by itself prints each epoch, and its best once more.
        resource = {"MinResource": 1, "MaxResource": spec.hyperparameters.epochs + 2}
        request["StrategyConfig"] = {"HyperbandStrategyConfig": resource}
    return request


def _parameter_ranges(spec: TuningSpec) -> dict[str, list[dict[str, Any]]]:
    """Return the ranges; values of a choice are JSON, as all our hyperparameters are."""
    search = spec.config.search
    choices: dict[str, tuple[float | str, ...]] = dict(search.choices)
    if spec.config.strategy == "Grid":  # which takes nothing but choices
        choices |= {name: between.grid() for name, between in search.ranges.items()}
    continuous = [] if spec.config.strategy == "Grid" else [_continuous(*item) for item in search.ranges.items()]
    categorical = [
        {"Name": name, "Values": [json.dumps(value) for value in values]} for name, values in choices.items()
    ]
    named = {"ContinuousParameterRanges": continuous, "CategoricalParameterRanges": categorical}
    return {kind: ranges for kind, ranges in named.items() if ranges}


def _continuous(name: str, between: FloatRange) -> dict[str, Any]:
    scale = {"linear": "Linear", "log": "Logarithmic"}[between.scale]
    return {"Name": name, "MinValue": str(between.low), "MaxValue": str(between.high), "ScalingType": scale}


def _program_hyperparameters(spec: TrainingSpec, settings: Settings) -> dict[str, str]:
    """Return what tells the SageMaker training toolkit which script to run (its script mode)."""
    values = {
        "sagemaker_program": TRAINING_PROGRAM,
        "sagemaker_submit_directory": spec.program_s3_uri,
        "sagemaker_container_log_level": 20,
        "sagemaker_region": settings.region,
    }
    return {name: json.dumps(value) for name, value in values.items()}


def encoded(hyperparameters: Hyperparameters) -> dict[str, str]:
    """Return the hyperparameters as the API wants them: strings of JSON, with a weights file turned into a channel."""
    values = hyperparameters.model_dump()
    if hyperparameters.weights.startswith("s3://"):
        values["weights"] = "channel"
    return {name: json.dumps(value) for name, value in values.items()}


def input_channels(dataset: Dataset, hyperparameters: Hyperparameters) -> dict[str, Channel]:
    """Return what a training reads, by channel name: the splits, and the file of weights that it starts from."""
    channels: dict[str, Channel] = {str(split): channel for split, channel in dataset.channels.items()}
    if hyperparameters.weights.startswith("s3://"):
        channels["weights"] = Channel(s3_uri=hyperparameters.weights, data_type="S3Prefix")
    return channels


def _channel(name: str, channel: Channel) -> dict[str, Any]:
    source = {
        "S3DataType": channel.data_type,
        "S3Uri": channel.s3_uri,
        "S3DataDistributionType": "FullyReplicated",
    }
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, "InputMode": "File"}


def endpoint_digest(spec: EndpointSpec, owner: Owner) -> str:
    """Return the digest of all that decides what an endpoint answers, and on how many machines."""
    return digest_of(
        {
            "model": spec.model_s3_uri,
            "image": spec.image_uri,
            "instances": [spec.compute.instance_type, spec.compute.instance_count],
            "serverless": spec.compute.serverless and spec.compute.serverless.model_dump(),
            # One endpoint's model and configuration are its own: they go when it is given others.
            "name": spec.name,
            "fresh": owner.flow_run_id if spec.fresh else None,
        }
    )


def model_request(spec: EndpointSpec, settings: Settings, owner: Owner) -> dict[str, Any]:
    """Return the request for the model behind an endpoint.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModel.html
    """
    digest = endpoint_digest(spec, owner)
    return {
        "ModelName": resource_name("endpoint", digest),
        "PrimaryContainer": {"Image": spec.image_uri, "ModelDataUrl": spec.model_s3_uri},
        "ExecutionRoleArn": settings.endpoint_role_arn,
        "Tags": tags_of(owner, digest),
    }


def endpoint_config_request(spec: EndpointSpec, model_name: str, owner: Owner) -> dict[str, Any]:
    """Return the request for the configuration of an endpoint: one variant that gets all the traffic.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpointConfig.html
    """
    variant = {"VariantName": VARIANT, "ModelName": model_name, "InitialVariantWeight": 1.0, **_servers(spec.compute)}
    digest = endpoint_digest(spec, owner)
    return {
        "EndpointConfigName": resource_name("endpoint", digest),
        "ProductionVariants": [variant],
        "Tags": tags_of(owner, digest),
    }


def _servers(compute: EndpointCompute) -> dict[str, Any]:
    """Return what a variant runs on."""
    if compute.serverless is None:
        return {
            "InstanceType": compute.instance_type,
            "InitialInstanceCount": compute.instance_count,
            "ContainerStartupHealthCheckTimeoutInSeconds": _HOSTING_START_SECONDS,
        }
    asked = {
        "MemorySizeInMB": compute.serverless.memory_mb,
        "MaxConcurrency": compute.serverless.max_concurrency,
        "ProvisionedConcurrency": compute.serverless.provisioned_concurrency,
    }
    return {"ServerlessConfig": {member: value for member, value in asked.items() if value is not None}}


def endpoint_request(spec: EndpointSpec, config_name: str, owner: Owner) -> dict[str, Any]:
    """Return the request for an endpoint.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpoint.html
    """
    digest = endpoint_digest(spec, owner)
    return {
        "EndpointName": spec.name or resource_name("endpoint", digest),
        "EndpointConfigName": config_name,
        "Tags": tags_of(owner, digest),
    }


def check_instance_type(instance_type: str, known: tuple[str, ...], what_for: str) -> None:
    """Refuse an instance type that SageMaker does not know, before anything is created.

    Raises:
        RequestRefusedError: The type is not among the known ones.
    """
    if instance_type not in known:
        family = instance_type.rsplit(".", 1)[0]
        near = [name for name in known if name.startswith(family + ".")] or list(known)
        msg = (
            f"SageMaker knows no instance type {instance_type} for {what_for}: choose one such as {', '.join(near[:6])}"
        )
        raise RequestRefusedError(msg)
