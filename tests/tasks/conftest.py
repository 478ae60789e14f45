"""Jobs of tests: a program of a few lines in place of the training program, on a dataset of a few objects."""

import io
import json
import tarfile
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
StagePackage = Callable[..., str]
# An ASGI application that answers as a model server of this project does.
SERVED = """
import json

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": event + ".complete"})
            if event == "lifespan.shutdown":
                return
    while (await receive()).get("more_body"):
        pass
    cat = {"label": LABEL, "probability": 0.9}
    status = 200 if scope["path"] == "/ping" else STATUS
    answer = {**cat, "top_k": [cat], "model_version": "1"} if status == 200 else {"error": "the model is tired"}
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

def create():
    return app
"""
CONFIG = {"applications": [{"name": "a", "import_path": "served:app", "args": {"asgi_app": "served:create"}}]}


@pytest.fixture
def settings(local_aws: object) -> Settings:
    return load_settings()


@pytest.fixture
def stage(settings: Settings, request: pytest.FixtureRequest) -> Stage:
    """Stage a script as the training program, and return the spec of a training by it."""

    def staged(script: str) -> TrainingSpec:
        name = "".join(character for character in request.node.name if character.isalnum())
        s3 = boto3.client("s3")
        key = f"code/{name}.tar.gz"
        s3.put_object(Bucket=settings.bucket, Key=key, Body=_packed(script))
        return TrainingSpec(
            dataset=_dataset(s3, settings.bucket, name),
            hyperparameters=Hyperparameters(epochs=3),
            compute=Compute(max_runtime_seconds=60),
            program_s3_uri=f"s3://{settings.bucket}/{key}",
            image_uri="an-image",
            step="test",
        )

    return staged


@pytest.fixture(scope="session")
def stage_package(local_aws: object) -> StagePackage:
    """Stage a model package whose ASGI application answers with a label, or with a status that is no success."""

    def staged(name: str, label: str = "cat", status: int = 200) -> str:
        source = SERVED.replace("LABEL", repr(label)).replace("STATUS", str(status))
        files = {"served.py": source.encode(), "config.yaml": json.dumps(CONFIG).encode()}
        key = f"jobs/{name}/output/model.tar.gz"
        bucket = load_settings().bucket
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=_tar_gz(files))
        return f"s3://{bucket}/{key}"

    return staged


def _packed(script: str) -> bytes:
    files = {f"training/{name}": (TRAINING / name).read_bytes() for name in REAL}
    return _tar_gz(files | {"training/train.py": script.encode(), "requirements.txt": b""})


def _tar_gz(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, body in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    return buffer.getvalue()


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
