"""Jobs of tests: a program of a few lines in place of the training program, on a dataset of a few objects."""

import json
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

from tasks.aws.settings import Settings, load_settings
from tasks.contracts import Channel, Compute, Dataset, Hyperparameters, TrainingSpec

TRAINING = Path(__file__).parents[2] / "training"
# What surrounds the script on a plain instance is the real one.
REAL = ("__init__.py", "instance_job.py")
Stage = Callable[[str], TrainingSpec]


@pytest.fixture
def settings(local_aws: object) -> Settings:
    return load_settings()


@pytest.fixture
def stage(settings: Settings, tar_gz: Callable[[dict[str, bytes]], bytes], request: pytest.FixtureRequest) -> Stage:
    """Stage a script as the training program, and return the spec of a training by it."""

    def staged(script: str) -> TrainingSpec:
        name = "".join(character for character in request.node.name if character.isalnum())
        s3 = boto3.client("s3")
        key = f"code/{name}.tar.gz"
        s3.put_object(Bucket=settings.bucket, Key=key, Body=tar_gz(_program(script)))
        return TrainingSpec(
            dataset=_dataset(s3, settings.bucket, name),
            hyperparameters=Hyperparameters(epochs=3),
            compute=Compute(max_runtime_seconds=60),
            program_s3_uri=f"s3://{settings.bucket}/{key}",
            image_uri="an-image",
            step="test",
        )

    return staged


def _program(script: str) -> dict[str, bytes]:
    files = {f"training/{name}": (TRAINING / name).read_bytes() for name in REAL}
    return files | {"training/train.py": script.encode(), "requirements.txt": b""}


def _dataset(s3: object, bucket: str, name: str) -> Dataset:
    """A dataset whose channels name one object each."""
    prefix, channels = f"datasets/{name}/files/", {}
    for split in ("train", "valid", "test"):
        s3.put_object(Bucket=bucket, Key=f"{prefix}0/{split}.png", Body=split.encode())  # type: ignore[attr-defined]
        manifest = json.dumps([{"prefix": f"s3://{bucket}/{prefix}"}, f"0/{split}.png"])
        key = f"datasets/{name}/versions/1/{split}.json"
        s3.put_object(Bucket=bucket, Key=key, Body=manifest.encode())  # type: ignore[attr-defined]
        channels[split] = Channel(s3_uri=f"s3://{bucket}/{key}")
    return Dataset(
        name=name,
        digest="0" * 64,
        bucket=bucket,
        classes=("0",),
        counts={split: {"0": 1} for split in channels},
        channels=channels,
        manifest_s3_uri=f"s3://{bucket}/datasets/{name}/versions/1/dataset.json",
        total_bytes=14,
    )
