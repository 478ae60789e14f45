"""The training program as SageMaker takes it: a tar.gz in S3, named by its content."""

import gzip
import hashlib
import importlib.util
import io
import tarfile
from pathlib import Path

from botocore.exceptions import ClientError

from tasks.aws.clients import client
from tasks.aws.errors import is_code
from tasks.aws.settings import Settings
from tasks.retries import retried

_REQUIREMENTS = "requirements.txt"
_DIGEST_SHOWN = 16


@retried("upload the training program")
def upload_training_program(settings: Settings) -> str:
    """Pack the training program, send it unless it is there, and return its S3 URI.

    Safe to retry: the object's key is the digest of its content.
    """
    archive = pack_program(_program_folder())
    key = f"code/training-{hashlib.sha256(archive).hexdigest()[:_DIGEST_SHOWN]}.tar.gz"
    if not _exists(settings, key):
        client("s3").put_object(Bucket=settings.bucket, Key=key, Body=archive, ExpectedBucketOwner=settings.account_id)
    return f"s3://{settings.bucket}/{key}"


def pack_program(folder: Path) -> bytes:
    """Return a tar.gz of a program's folder, with its requirements.txt at the root, where the toolkit looks for it.

    The same files give the same bytes, whenever and wherever they are packed.
    """
    files = {f"{folder.name}/{path.relative_to(folder)}": path for path in sorted(folder.rglob("*")) if _belongs(path)}
    requirements = folder / _REQUIREMENTS
    if requirements.exists():
        files[_REQUIREMENTS] = requirements
    buffer = io.BytesIO()
    # mtime=0: gzip writes the time of packing into its header otherwise.
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name, path in files.items():
            _add(tar, name, path.read_bytes())
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, body: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(body), 0o644
    tar.addfile(member, io.BytesIO(body))


def _belongs(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")


def _program_folder() -> Path:
    """Find the program without importing it: it is shipped, never run in here."""
    spec = importlib.util.find_spec("training")
    if spec is None or spec.origin is None:
        msg = "the package `training` is not installed: run make install"
        raise FileNotFoundError(msg)
    return Path(spec.origin).parent


def _exists(settings: Settings, key: str) -> bool:
    try:
        client("s3").head_object(Bucket=settings.bucket, Key=key, ExpectedBucketOwner=settings.account_id)
    except ClientError as error:
        if is_code(error, "404", "NoSuchKey", "NotFound"):
            return False
        raise
    return True
