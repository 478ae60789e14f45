"""What a training job's request must be beyond what the service's model says, for a job that can run."""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from deployments.local_aws import script_mode
from deployments.local_aws.records import invalid

_CONTAINER_ROOT = "/opt/ml"
_CHECKPOINTS = "/opt/ml/checkpoints"


def check_training_request(request: dict[str, Any]) -> None:
    """Refuse a job that could only fail.

    Raises:
        AwsError: ValidationException that says what is wrong.
    """
    script_mode.check_hyperparameters(request.get("HyperParameters", {}))
    for member in ("InstanceType", "InstanceCount"):
        if member not in request.get("ResourceConfig", {}):
            message = f"ResourceConfig.{member} is required: the local AWS has no serverless jobs and instance groups"
            raise invalid(message)
    if request["ResourceConfig"]["InstanceCount"] < 1:
        message = "ResourceConfig.InstanceCount is 0: a training job needs an instance at least"
        raise invalid(message)
    _check_channels(request.get("InputDataConfig", []))
    _check_uri("OutputDataConfig.S3OutputPath", request["OutputDataConfig"]["S3OutputPath"])
    for metric in request["AlgorithmSpecification"].get("MetricDefinitions", []):
        try:
            re.compile(metric["Regex"])
        except re.error as error:
            message = f"The regex of the metric {metric['Name']} is none: {metric['Regex']!r}: {error}"
            raise invalid(message) from error
    checkpoints = request.get("CheckpointConfig")
    if checkpoints is not None:
        _check_uri("CheckpointConfig.S3Uri", checkpoints["S3Uri"])
        checkpoint_folder(checkpoints, Path(_CONTAINER_ROOT))


def checkpoint_folder(checkpoints: dict[str, Any], base: Path) -> Path:
    """Return where a job's checkpoints are: below its own folder, as they are below /opt/ml in a container.

    Raises:
        AwsError: The request wants them where only a container could have them.
    """
    path = PurePosixPath(os.path.normpath(checkpoints.get("LocalPath", _CHECKPOINTS)))
    if not path.is_relative_to(_CONTAINER_ROOT) or path == PurePosixPath(_CONTAINER_ROOT):
        message = f"The local AWS keeps CheckpointConfig.LocalPath below {_CONTAINER_ROOT} only, and not in {path}"
        raise invalid(message)
    return base / path.relative_to(_CONTAINER_ROOT)


def _check_channels(channels: list[dict[str, Any]]) -> None:
    names = [channel["ChannelName"] for channel in channels]
    if len(set(names)) < len(names):
        message = f"Channel names must be unique, and these are not: {', '.join(names)}"
        raise invalid(message)
    for channel in channels:
        source = channel["DataSource"].get("S3DataSource")
        if source is None:
            message = f"The channel {channel['ChannelName']} has no S3DataSource: the local AWS has no other"
            raise invalid(message)
        _check_uri(f"The S3Uri of the channel {channel['ChannelName']}", source["S3Uri"])


def _check_uri(what: str, uri: str) -> None:
    if not re.match(r"s3://[^/]+", uri):
        message = f"{what} is {uri!r}: it must begin with s3:// and a bucket"
        raise invalid(message)
