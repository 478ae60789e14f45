"""Container images: AWS's own, looked up in the sagemaker package, unless the environment names another."""

import os
from functools import cache

# The newest that AWS builds for SageMaker; the training program runs on it as it is.
_PYTORCH_VERSION = "2.10"
_RAY_SERVE_VERSION = "1"


def training_image_uri(region: str, instance_type: str) -> str:
    """Return the PyTorch training image for a machine; SAGEMAKER_FLOWS_TRAINING_IMAGE overrules it."""
    return os.environ.get("SAGEMAKER_FLOWS_TRAINING_IMAGE") or _retrieve(
        "pytorch", region, _PYTORCH_VERSION, instance_type, "training"
    )


def serving_image_uri(region: str, instance_type: str) -> str:
    """Return the Ray Serve inference image for a machine; SAGEMAKER_FLOWS_SERVING_IMAGE overrules it.

    The PyTorch inference images ended with TorchServe; Ray Serve's is the successor that AWS names.
    """
    return os.environ.get("SAGEMAKER_FLOWS_SERVING_IMAGE") or _retrieve(
        "ray-serve", region, _RAY_SERVE_VERSION, instance_type, "inference"
    )


@cache
def _retrieve(framework: str, region: str, version: str, instance_type: str, scope: str) -> str:
    # The import takes 1.6 s, each look another 0.3 s: only those pay who look an image up, and once.
    from sagemaker.core import image_uris  # noqa: PLC0415

    uri = image_uris.retrieve(framework, region=region, version=version, instance_type=instance_type, image_scope=scope)
    return str(uri)
