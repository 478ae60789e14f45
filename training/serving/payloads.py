"""What is asked: reads a request's body within limits, and finds the picture in it."""

import base64
import binascii
import json
from dataclasses import dataclass
from http import HTTPStatus

from starlette.requests import Request

from .errors import RequestError

# What SageMaker's InvokeEndpoint takes.
MAX_BODY_BYTES = 25 * 1024 * 1024
# A client that is still sending reads no answer: so much too much is read and thrown away before it gets one.
_MAX_DRAINED_BYTES = 4 * MAX_BODY_BYTES
_IMAGE_TYPES = ("image/jpeg", "image/png")
_JSON_TYPE = "application/json"
_DEFAULT_TOP_K = 5


@dataclass(frozen=True, slots=True)
class Question:
    """A picture as it came, and how many classes the answer should hold."""

    image: bytes
    top_k: int


async def read_question(request: Request, classes: int) -> Question:
    """Return what a request asks.

    Raises:
        RequestError: The type, the size or the form of the body is wrong.
    """
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content_type not in {*_IMAGE_TYPES, _JSON_TYPE}:
        msg = f"Content-Type {content_type or 'is missing'}: send image/jpeg, image/png or application/json"
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, msg)
    body = await _body(request)
    if not body:
        raise RequestError(HTTPStatus.BAD_REQUEST, "the body is empty: send the bytes of a picture")
    if content_type == _JSON_TYPE:
        return _from_json(body, classes)
    return Question(body, min(_DEFAULT_TOP_K, classes))


async def _body(request: Request) -> bytes:
    """Read the body and never keep more than the limit, whatever Content-Length says."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size <= MAX_BODY_BYTES:
            parts.append(part)
        elif size > _MAX_DRAINED_BYTES:
            break
        else:
            parts.clear()
    if size > MAX_BODY_BYTES:
        msg = f"the body is larger than {MAX_BODY_BYTES // 2**20} MB"
        raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, msg)
    return b"".join(parts)


def _from_json(body: bytes, classes: int) -> Question:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(HTTPStatus.BAD_REQUEST, "the body is not JSON") from None
    if not isinstance(value, dict) or not isinstance(value.get("image"), str) or set(value) - {"image", "top_k"}:
        msg = 'the JSON must be an object with "image", a picture in base64, and perhaps "top_k"'
        raise RequestError(HTTPStatus.BAD_REQUEST, msg)
    top_k = value.get("top_k", min(_DEFAULT_TOP_K, classes))
    if type(top_k) is not int or not 1 <= top_k <= classes:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"top_k must be a whole number from 1 to {classes}")
    return Question(_from_base64(value["image"]), top_k)


def _from_base64(text: str) -> bytes:
    try:
        image = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(HTTPStatus.BAD_REQUEST, '"image" is not base64') from None
    if not image:
        raise RequestError(HTTPStatus.BAD_REQUEST, '"image" is empty: send the bytes of a picture in base64')
    return image
