"""Requests for the Lambda function in front of an endpoint, built from specs: pure."""

import base64
import hashlib
import io
import zipfile
from typing import Any

from tasks.aws.identity import Owner, digest_of, tags_of
from tasks.aws.settings import Settings
from tasks.contracts import FrontSpec

ALIAS = "live"
RUNTIME = "python3.13"
HANDLER = "classify_image.handler"
LOG_GROUP = "/aws/lambda"
# The endpoint has less time than the function, which has to fetch a picture before and to answer after it.
_ANSWER_SECONDS, _FETCH_SECONDS = 4, 10
_UPLOADS = "uploads/"
_SAME_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say


def pack_function(source: bytes, name: str = "classify_image.py") -> bytes:
    """Return the zip of a function's one file; the same file gives the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        member = zipfile.ZipInfo(name, date_time=_SAME_TIME)
        member.external_attr = 0o644 << 16  # without it Lambda may not read the file
        archive.writestr(member, source, compress_type=zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def code_sha256(package: bytes) -> str:
    """Return the digest of a package as Lambda says it."""
    return base64.b64encode(hashlib.sha256(package).digest()).decode()


def configuration_of(spec: FrontSpec, settings: Settings) -> dict[str, Any]:
    """Return what of a function is configured, in the words that create and update share.

    https://docs.aws.amazon.com/lambda/latest/api/API_UpdateFunctionConfiguration.html
    """
    config = spec.config
    variables = {
        "ENDPOINT_NAME": spec.endpoint_name,
        "CONFIDENCE_THRESHOLD": f"{config.confidence_threshold:g}",
        "ENDPOINT_SECONDS": str(config.timeout_seconds - _ANSWER_SECONDS - (_FETCH_SECONDS if config.fetches else 0)),
    }
    if config.takes_s3_keys:
        variables |= {"IMAGE_BUCKET": settings.bucket, "IMAGE_PREFIX": _UPLOADS}
    if config.url_hosts:
        variables["URL_HOSTS"] = ",".join(config.url_hosts)
    return {
        "FunctionName": config.name,
        "Runtime": RUNTIME,
        "Role": settings.lambda_role_arn,
        "Handler": HANDLER,
        "Timeout": config.timeout_seconds,
        "MemorySize": config.memory_mb,
        "Environment": {"Variables": variables},
    }


def create_function_request(spec: FrontSpec, settings: Settings, owner: Owner, package: bytes) -> dict[str, Any]:
    """Return the request for a new function.

    https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html
    """
    tags = {tag["Key"]: tag["Value"] for tag in tags_of(owner, digest_of({"function": spec.config.name}))}
    return {**configuration_of(spec, settings), "Code": {"ZipFile": package}, "Publish": False, "Tags": tags}


def changed_configuration(wanted: dict[str, Any], found: dict[str, Any]) -> bool:
    """Tell whether a function is configured otherwise than it should be."""
    return any(found.get(member) != value for member, value in wanted.items() if member != "FunctionName")
