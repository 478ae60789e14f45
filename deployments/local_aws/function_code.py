"""A Lambda function's deployment package: brought, checked, unpacked once."""

import base64
import hashlib
import io
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from deployments.local_aws.account import Account
from deployments.local_aws.function_store import invalid
from deployments.local_aws.function_versions import Code
from deployments.local_aws.protocol import AwsError

MOST_ZIP_BYTES = 50 * 1024 * 1024
_MOST_UNZIPPED_BYTES = 250 * 1024 * 1024
_PERMISSIONS = 0o777


def code_of(account: Account, request: Mapping[str, Any], folders: Path) -> Code:
    """Return the deployment package of a request, unpacked below a folder by its content.

    https://docs.aws.amazon.com/lambda/latest/api/API_FunctionCode.html

    Raises:
        AwsError: There is none, it is too large, or no zip.
    """
    package = request["ZipFile"] if "ZipFile" in request else _from_s3(account, request)
    if len(package) > MOST_ZIP_BYTES and "ZipFile" in request:
        code, message = "RequestTooLargeException", f"Request must be smaller than {MOST_ZIP_BYTES} bytes"
        raise AwsError(code, message, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"Type": "User"})
    digest = hashlib.sha256(package).digest()
    folder = folders / digest.hex()
    if not folder.exists():
        _unpack(package, folder)
    return Code(base64.b64encode(digest).decode(), len(package), folder)


def _from_s3(account: Account, request: Mapping[str, Any]) -> bytes:
    if "S3Bucket" not in request or "S3Key" not in request:
        message = "Please provide a source for function code."
        raise invalid(message)
    version = {"VersionId": request["S3ObjectVersion"]} if "S3ObjectVersion" in request else {}
    try:
        found = account.client("s3").get_object(Bucket=request["S3Bucket"], Key=request["S3Key"], **version)
        return bytes(found["Body"].read())
    except ClientError as error:
        told = error.response["Error"]
        message = f"Error occurred while GetObject. S3 Error Code: {told['Code']}. S3 Error Message: {told['Message']}"
        raise invalid(message) from error
    except BotoCoreError as error:
        message = f"Error occurred while GetObject: {error}"
        raise invalid(message) from error


def _unpack(package: bytes, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        with zipfile.ZipFile(io.BytesIO(package)) as archive:
            _check(archive)
            for member in archive.infolist():
                path = Path(archive.extract(member, part))
                if not member.is_dir():
                    path.chmod((member.external_attr >> 16) & _PERMISSIONS | 0o400)
        part.chmod(0o755)  # mkdtemp's folder is for its owner only
        part.rename(folder)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError) as error:
        if not folder.exists():  # else another request was quicker
            message = "Could not unzip uploaded file. Please check your file, then try to upload again."
            raise invalid(message) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check(archive: zipfile.ZipFile) -> None:
    members = archive.infolist()
    if sum(member.file_size for member in members) > _MOST_UNZIPPED_BYTES:
        message = f"Unzipped size must be smaller than {_MOST_UNZIPPED_BYTES} bytes"
        raise invalid(message)
    for member in members:
        path = PurePosixPath(member.filename)
        if path.is_absolute() or ".." in path.parts:
            message = f"The deployment package has a member that would leave its folder: {member.filename}"
            raise invalid(message)
