"""What AWS refuses of serverless variants, before anything is created or changed.

https://docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints.html
"""

from collections.abc import Mapping, Sequence
from typing import Any

from deployments.local_aws.records import Record, invalid

_MEMORY_SIZES = range(1024, 6144 + 1, 1024)
# What says what an instance is like: SageMaker chooses that where there is a ServerlessConfig.
_OF_INSTANCES = {
    "ContainerStartupHealthCheckTimeoutInSeconds",
    "InferenceAmiVersion",
    "InitialInstanceCount",
    "InstanceType",
    "ModelDataDownloadTimeoutInSeconds",
    "RoutingConfig",
    "VariantInstanceProvisionTimeoutInSeconds",
    "VolumeSizeInGB",
}


def is_serverless(variants: Sequence[Mapping[str, Any]]) -> bool:
    """Whether there is a serverless variant."""
    return any("ServerlessConfig" in variant for variant in variants)


def check_serverless(config: Mapping[str, Any], models: Sequence[Record]) -> None:
    """Refuse a configuration whose serverless variant AWS would not serve.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ProductionVariantServerlessConfig.html

    Args:
        config: The request of CreateEndpointConfig.
        models: The descriptions of its variants' models.

    Raises:
        AwsError: ValidationException.
    """
    variants = config["ProductionVariants"]
    if not is_serverless(variants):
        return
    if len(variants) > 1:
        message = f"A serverless endpoint has one production variant, not {len(variants)}"
        raise invalid(message)
    excluded = sorted(_OF_INSTANCES & variants[0].keys())
    if excluded:
        message = f"ServerlessConfig cannot be specified together with {', '.join(excluded)}"
        raise invalid(message)
    _check_sizes(variants[0]["ServerlessConfig"])
    image = models[0]["PrimaryContainer"].get("ImageConfig", {})
    if "VpcConfig" in config or "VpcConfig" in models[0] or image.get("RepositoryAccessMode") == "Vpc":
        message = "Serverless endpoints support neither VpcConfig nor images in a private Docker registry"
        raise invalid(message)


def check_conversion(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to make an endpoint with instances serverless; the other way round AWS allows it.

    https://docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints-update.html

    Raises:
        AwsError: ValidationException.
    """
    if is_serverless(new) and not is_serverless(old):
        message = "A real-time endpoint cannot be updated to a serverless endpoint: create another one"
        raise invalid(message)


def check_guardrails(deployment_config: Mapping[str, Any], variants: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to shift the traffic of a serverless endpoint in steps, or to watch alarms meanwhile.

    https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails.html

    Raises:
        AwsError: ValidationException.
    """
    if deployment_config and is_serverless(variants):
        message = "DeploymentConfig is for real-time and asynchronous endpoints only: this one is serverless"
        raise invalid(message)


def _check_sizes(serverless: Mapping[str, int]) -> None:
    if serverless["MemorySizeInMB"] not in _MEMORY_SIZES:
        sizes = ", ".join(str(size) for size in _MEMORY_SIZES)
        message = f"MemorySizeInMB must be one of {sizes}: it is {serverless['MemorySizeInMB']}"
        raise invalid(message)
    most = serverless["MaxConcurrency"]
    if serverless.get("ProvisionedConcurrency", 0) > most:
        message = f"ProvisionedConcurrency must be less than or equal to MaxConcurrency, which is {most}"
        raise invalid(message)
