"""The training program as a package: the same bytes for the same files, requirements where the toolkit looks."""

import io
import tarfile
from pathlib import Path

import boto3
import pytest

from tasks.aws.settings import load_settings
from tasks.programs import pack_program, upload_training_program


@pytest.fixture
def program(tmp_path: Path) -> Path:
    folder = tmp_path / "training"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "__pycache__" / "train.pyc").write_bytes(b"x")
    (folder / "train.py").write_text("print('hello')")
    (folder / "requirements.txt").write_text("safetensors\n")
    return folder


def members(archive: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return set(tar.getnames())


def test_the_package_holds_the_folder_and_its_requirements_at_the_root(program: Path) -> None:
    assert members(pack_program(program)) == {"training/train.py", "training/requirements.txt", "requirements.txt"}


def test_the_same_files_give_the_same_bytes(program: Path) -> None:
    before = pack_program(program)
    (program / "train.py").touch()
    assert pack_program(program) == before


@pytest.mark.usefixtures("local_aws")
def test_the_program_is_uploaded_once_under_its_digest() -> None:
    settings = load_settings()
    first = upload_training_program.fn(settings)
    assert upload_training_program.fn(settings) == first
    bucket, key = first.removeprefix("s3://").split("/", 1)
    body = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    assert "training/train.py" in members(body)
