"""What of a SageMaker request the local AWS does: whatever is not in these tables is refused, never pretended.

A path names a member and all that is below it; lists are passed through. No path is the beginning of another.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from deployments.local_aws.refusals import Supported

_PAGES = (
    "CreationTimeAfter",
    "CreationTimeBefore",
    "LastModifiedTimeAfter",
    "LastModifiedTimeBefore",
    "MaxResults",
    "NameContains",
    "NextToken",
    "SortBy",
    "SortOrder",
)

# What a training job and a trial of a tuning job are asked for in the same words.
_TRAINING_HONOURED = (
    "AlgorithmSpecification.MetricDefinitions",
    "Environment",
    "InputDataConfig.ChannelName",
    "InputDataConfig.ContentType",
    "InputDataConfig.DataSource.S3DataSource.S3DataDistributionType",
    "InputDataConfig.DataSource.S3DataSource.S3Uri",
    "OutputDataConfig.S3OutputPath",
    "ResourceConfig.InstanceCount",
    "RoleArn",
    "StoppingCondition.MaxRuntimeInSeconds",
)
_TRAINING_RECORDED = (
    "AlgorithmSpecification.TrainingImage",
    "EnableInterContainerTrafficEncryption",
    "OutputDataConfig.KmsKeyId",
    "ResourceConfig.InstanceType",
    "ResourceConfig.VolumeKmsKeyId",
    "ResourceConfig.VolumeSizeInGB",
    "StoppingCondition.MaxPendingTimeInSeconds",
    "VpcConfig",
)
# FastFile means File here: the files are there before the script begins, and it reads them in the same way.
_TRAINING_ONLY: Mapping[str, tuple[Any, ...]] = {
    "AlgorithmSpecification.TrainingInputMode": ("File", "FastFile"),
    "EnableManagedSpotTraining": (False,),
    "EnableNetworkIsolation": (False,),
    "InputDataConfig.CompressionType": ("None",),  # AWS has another for Pipe only
    "InputDataConfig.DataSource.S3DataSource.S3DataType": ("S3Prefix", "ManifestFile"),
    "InputDataConfig.InputMode": ("File", "FastFile"),
    "InputDataConfig.RecordWrapperType": ("None",),
    "OutputDataConfig.CompressionType": ("GZIP",),
    "ResourceConfig.KeepAlivePeriodInSeconds": (0,),
}

# Without RollingUpdatePolicy.
_DEPLOYMENT = ("DeploymentConfig.BlueGreenUpdatePolicy", "DeploymentConfig.AutoRollbackConfiguration.Alarms")


def _of_trials(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"TrainingJobDefinition.{path}" for path in paths)


# What happens as it is asked for.
HONOURED: Mapping[str, tuple[str, ...]] = {
    "CreateTrainingJob": (*_TRAINING_HONOURED, "TrainingJobName", "CheckpointConfig", "HyperParameters", "Tags"),
    "ListTrainingJobs": (*_PAGES, "StatusEquals"),
    # Without CheckpointConfig: trials would have one folder together, and each go on where another was.
    "CreateHyperParameterTuningJob": (
        *_of_trials((*_TRAINING_HONOURED, "StaticHyperParameters")),
        "HyperParameterTuningJobName",
        "HyperParameterTuningJobConfig.HyperParameterTuningJobObjective",
        "HyperParameterTuningJobConfig.ParameterRanges.CategoricalParameterRanges",
        "HyperParameterTuningJobConfig.ParameterRanges.ContinuousParameterRanges",
        "HyperParameterTuningJobConfig.ParameterRanges.IntegerParameterRanges",
        "HyperParameterTuningJobConfig.RandomSeed",
        "HyperParameterTuningJobConfig.ResourceLimits",
        "HyperParameterTuningJobConfig.Strategy",
        "HyperParameterTuningJobConfig.StrategyConfig.HyperbandStrategyConfig",
        "HyperParameterTuningJobConfig.TrainingJobEarlyStoppingType",
        "HyperParameterTuningJobConfig.TuningJobCompletionCriteria.BestObjectiveNotImproving",
        "HyperParameterTuningJobConfig.TuningJobCompletionCriteria.TargetObjectiveMetricValue",
        "Tags",
        "WarmStartConfig",
    ),
    "ListHyperParameterTuningJobs": (*_PAGES, "StatusEquals"),
    "ListTrainingJobsForHyperParameterTuningJob": (
        "HyperParameterTuningJobName",
        "MaxResults",
        "NextToken",
        "SortBy",
        "SortOrder",
        "StatusEquals",
    ),
    "CreateModel": (
        "ModelName",
        "ExecutionRoleArn",
        "PrimaryContainer.Environment",
        "PrimaryContainer.ModelDataUrl",
        "Tags",
    ),
    "ListModels": _PAGES,
    "CreateEndpointConfig": (
        "EndpointConfigName",
        "ProductionVariants.ContainerStartupHealthCheckTimeoutInSeconds",
        "ProductionVariants.InitialInstanceCount",
        "ProductionVariants.InitialVariantWeight",
        "ProductionVariants.ModelName",
        "ProductionVariants.ServerlessConfig",
        "ProductionVariants.VariantName",
        "Tags",
    ),
    "ListEndpointConfigs": _PAGES,
    "CreateEndpoint": ("EndpointName", "EndpointConfigName", "Tags"),
    "UpdateEndpoint": (
        "EndpointName",
        "EndpointConfigName",
        *_DEPLOYMENT,
        "ExcludeRetainedVariantProperties",
        "RetainAllVariantProperties",
        "RetainDeploymentConfig",
    ),
    "UpdateEndpointWeightsAndCapacities": (
        "EndpointName",
        "DesiredWeightsAndCapacities.DesiredInstanceCount",
        "DesiredWeightsAndCapacities.DesiredWeight",
        "DesiredWeightsAndCapacities.VariantName",
    ),
    "ListEndpoints": (*_PAGES, "StatusEquals"),
    "InvokeEndpoint": ("EndpointName", "Body", "ContentType", "Accept", "CustomAttributes", "TargetVariant"),
}

# What changes nothing here, and is only recorded: this machine's Python runs the code whatever the image is; all is one
# machine, so there are no disks, networks and instance types to choose; nothing is kept under keys.
RECORDED: Mapping[str, tuple[str, ...]] = {
    "CreateTrainingJob": (
        *_TRAINING_RECORDED,
        "AlgorithmSpecification.EnableSageMakerMetricsTimeSeries",
        "AlgorithmSpecification.TrainingImageConfig",
        "ExperimentConfig",
        "InfraCheckConfig",
        "ProfilerConfig",
    ),
    "CreateHyperParameterTuningJob": _of_trials(_TRAINING_RECORDED),
    "CreateModel": (
        "PrimaryContainer.ContainerHostname",
        "PrimaryContainer.Image",
        "PrimaryContainer.ImageConfig",
        "VpcConfig",
    ),
    "CreateEndpointConfig": (
        "KmsKeyId",
        "ProductionVariants.InferenceAmiVersion",
        "ProductionVariants.InstanceType",
        "ProductionVariants.ModelDataDownloadTimeoutInSeconds",
        "ProductionVariants.VariantInstanceProvisionTimeoutInSeconds",
        "ProductionVariants.VolumeSizeInGB",
        "VpcConfig",
    ),
    "CreateEndpoint": _DEPLOYMENT,  # for an update that retains it: there is no fleet to shift traffic from
    "InvokeEndpoint": ("InferenceId",),
}

# What is there with some of its values only.
ONLY: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "CreateTrainingJob": {**_TRAINING_ONLY, "RemoteDebugConfig.EnableRemoteDebug": (False,)},
    "CreateHyperParameterTuningJob": {
        **dict(zip(_of_trials(_TRAINING_ONLY), _TRAINING_ONLY.values(), strict=True)),
        "HyperParameterTuningJobConfig.TuningJobCompletionCriteria.ConvergenceDetected.CompleteOnConvergence": (
            "Disabled",
        ),
    },
    "CreateModel": {
        "EnableNetworkIsolation": (False,),
        "PrimaryContainer.Mode": ("SingleModel",),
    },
    "CreateEndpointConfig": {
        "EnableNetworkIsolation": (False,),
        "ProductionVariants.EnableSSMAccess": (False,),
        "ProductionVariants.RoutingConfig.RoutingStrategy": ("LEAST_OUTSTANDING_REQUESTS",),
    },
}


def refuse_unsupported(operation: str, request: Mapping[str, Any], code: str = "ValidationException") -> None:
    """Refuse a request that asks for something that would not happen.

    Raises:
        AwsError: Of the code; it names what is not implemented.
    """
    supported = Supported(HONOURED.get(operation, ()), RECORDED.get(operation, ()), ONLY.get(operation, {}))
    supported.check(operation, request, code)
