"""What of a SageMaker request the local AWS does not do: said when it is asked for, never pretended.

A path names a member; `[]` goes through a list, `=value` singles out a value. What is neither here nor honoured by the
executors is harmless here, and only recorded: VpcConfig and encryption keys (there is no network, and no disk of
others), ProfilerConfig, ExperimentConfig, and the image's name, since this machine's Python runs the code.
"""

from collections.abc import Iterator
from typing import Any

from deployments.local_aws.records import invalid

UNSUPPORTED: dict[str, tuple[str, ...]] = {
    "CreateTrainingJob": (
        "AlgorithmSpecification.AlgorithmName",
        "AlgorithmSpecification.ContainerEntrypoint",
        "AlgorithmSpecification.ContainerArguments",
        "AlgorithmSpecification.TrainingInputMode=Pipe",
        "DebugHookConfig",
        "DebugRuleConfigurations",
        "TensorBoardOutputConfig",
        "EnableManagedSpotTraining=True",
        "EnableNetworkIsolation=True",
        "InputDataConfig[].InputMode=Pipe",
        "InputDataConfig[].CompressionType=Gzip",
        "InputDataConfig[].RecordWrapperType=RecordIO",
        "InputDataConfig[].ShuffleConfig",
        "InputDataConfig[].DataSource.FileSystemDataSource",
        "InputDataConfig[].DataSource.DatasetSource",
        "InputDataConfig[].DataSource.S3DataSource.S3DataType=AugmentedManifestFile",
        "InputDataConfig[].DataSource.S3DataSource.S3DataType=Converse",
        "InputDataConfig[].DataSource.S3DataSource.InstanceGroupNames",
        "ModelPackageConfig",
        "MlflowConfig",
        "OutputDataConfig.CompressionType=NONE",
        "ResourceConfig.InstanceGroups",
        "ResourceConfig.KeepAlivePeriodInSeconds",
        "ResourceConfig.TrainingPlanArn",
        "RetryStrategy",
        "ServerlessJobConfig",
        "SessionChainingConfig",
    ),
    "CreateModel": (
        "Containers",
        "InferenceExecutionConfig",
        "EnableNetworkIsolation=True",
        "PrimaryContainer.Mode=MultiModel",
        "PrimaryContainer.ModelDataSource",
        "PrimaryContainer.AdditionalModelDataSources",
        "PrimaryContainer.ModelPackageName",
        "PrimaryContainer.InferenceSpecificationName",
        "PrimaryContainer.MultiModelConfig",
    ),
    "CreateEndpointConfig": (
        "AsyncInferenceConfig",
        "DataCaptureConfig",
        "EnableNetworkIsolation=True",
        "ExecutionRoleArn",
        "ExplainerConfig",
        "MetricsConfig",
        "ShadowProductionVariants",
        "ProductionVariants[].ServerlessConfig",
        "ProductionVariants[].ManagedInstanceScaling",
        "ProductionVariants[].RoutingConfig",
        "ProductionVariants[].InstancePools",
    ),
    "CreateEndpoint": ("DeploymentConfig",),
    "UpdateEndpoint": ("DeploymentConfig", "RetainAllVariantProperties=True", "ExcludeRetainedVariantProperties"),
}


def refuse_unsupported(operation: str, request: dict[str, Any]) -> None:
    """Refuse a request that asks for something that would not happen.

    Raises:
        AwsError: ValidationException that names what is not implemented.
    """
    for path in UNSUPPORTED[operation]:
        members, _, value = path.partition("=")
        found = [item for item in _reach(request, members.split(".")) if not value or str(item) == value]
        if found:
            message = f"The local AWS does not implement {path.replace('[]', '')} of {operation}: leave it out"
            raise invalid(message)


def _reach(value: Any, members: list[str]) -> Iterator[Any]:
    if not members:
        yield value
        return
    name, rest = members[0].removesuffix("[]"), members[1:]
    if not isinstance(value, dict) or name not in value:
        return
    inner = value[name]
    for item in inner if members[0].endswith("[]") else [inner]:
        yield from _reach(item, rest)
