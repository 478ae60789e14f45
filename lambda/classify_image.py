"""A Lambda function that says what is on a picture: `classify_image.handler`.

Answers Invoke, a function URL and API Gateway (payload format 1.0 and 2.0). README.md beside this file lists what it
takes, what it answers and which variables it reads. Cold start fails with one sentence when they are wrong.
"""

import base64
import binascii
import http.client
import ipaddress
import json
import logging
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, ReadTimeoutError

CONNECT_SECONDS = 2.0
S3_SECONDS = 5.0
URL_SECONDS = 5.0
_MARGIN_SECONDS = 0.5  # to answer in, before the function itself is ended
_MOST_REDIRECTS = 3
_HTTPS_PORT = 443
_KEY_CHARACTERS = 1024  # S3's limit
_SENTENCE_CHARACTERS = 300
_CHUNK_BYTES = 64 * 1024
_SIGNATURES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}
_CONTROL = re.compile(r"[\x00-\x20\x7f\\]")
_MODEL, _S3 = "The model", "S3"  # whom a sentence blames
_MEMBERS = ("image", "s3_key", "url")
_THROTTLED = frozenset(
    {"Throttling", "ThrottlingException", "TooManyRequestsException", "ModelNotReadyException", "SlowDown"}
)
_NOT_READABLE = frozenset({"NoSuchKey", "AccessDenied", "404", "403", "InvalidObjectState"})
# Addresses of version 6 that carry one of version 4, which a gateway may lead anywhere: a public host needs none.
_CARRIERS = tuple(
    ipaddress.IPv6Network(network) for network in ("::/8", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16")
)

_log = logging.getLogger("classify_image")
_log.setLevel(logging.INFO)


class ConfigurationError(Exception):
    """The function's environment is wrong; the message is the one sentence that a cold start fails with."""


class RefusedError(Exception):
    """The question is not answered; ``status`` is the HTTP status, ``reason`` is for the log and not for the caller."""

    def __init__(self, status: HTTPStatus, sentence: str, reason: str = "") -> None:
        super().__init__(status, sentence, reason)
        self.status, self.sentence, self.reason = status, sentence, reason


@dataclass(frozen=True)
class Settings:
    """What the deployment decides."""

    endpoint_name: str
    threshold: float
    top_k: int
    max_image_bytes: int
    endpoint_seconds: float
    image_bucket: str
    image_prefix: str
    url_hosts: frozenset[str]


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings of an environment.

    Raises:
        ConfigurationError: A variable is missing, or its value is of no use.
    """
    endpoint_name = environment.get("ENDPOINT_NAME", "")
    if not endpoint_name:
        msg = "The variable ENDPOINT_NAME is not set: it names the endpoint that this function asks"
        raise ConfigurationError(msg)
    bucket, prefix = environment.get("IMAGE_BUCKET", ""), environment.get("IMAGE_PREFIX", "")
    if bool(bucket) != bool(prefix) or (prefix and (not prefix.endswith("/") or prefix.startswith("/"))):
        msg = "IMAGE_BUCKET and IMAGE_PREFIX belong together, and the prefix ends with a slash and begins with none"
        raise ConfigurationError(msg)
    hosts = (host.strip().lower() for host in environment.get("URL_HOSTS", "").split(","))
    return Settings(
        endpoint_name=endpoint_name,
        threshold=_number(environment, "CONFIDENCE_THRESHOLD", 0.5, 0, 1),
        top_k=int(_number(environment, "TOP_K", 5, 1, 1000)),
        max_image_bytes=int(_number(environment, "MAX_IMAGE_BYTES", 5 * 1024 * 1024, 1, 25 * 1024 * 1024)),
        endpoint_seconds=_number(environment, "ENDPOINT_SECONDS", 10, 0.1, 60),
        image_bucket=bucket,
        image_prefix=prefix,
        url_hosts=frozenset(filter(None, hosts)),
    )


def _number(environment: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
    try:
        value = float(environment.get(name) or default)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        msg = f"The variable {name} must be a number from {low:g} to {high:g}, and is {environment[name]!r}"
        raise ConfigurationError(msg)
    return value


def _client(service: str, read_seconds: float) -> Any:
    # One attempt: a second one would outlast the function, and the caller knows better whether to ask again.
    config = Config(connect_timeout=CONNECT_SECONDS, read_timeout=read_seconds, retries={"total_max_attempts": 1})
    return boto3.client(service, config=config)  # type: ignore[call-overload]


# At cold start, where a wrong environment shows at once and where clients are paid for once.
SETTINGS = read_settings(os.environ)
RUNTIME = _client("sagemaker-runtime", SETTINGS.endpoint_seconds)
S3 = _client("s3", S3_SECONDS) if SETTINGS.image_bucket else None


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Answer an event; nothing is raised, so that no stack trace leaves the function."""
    request_id = str(context.aws_request_id)
    headers: dict[str, str] = {}
    try:
        status, answer = HTTPStatus.OK, _answer(_image_of(event), context)
        _log.info("label=%s model=%s", answer["label"], answer["model_version"])
    except RefusedError as error:
        status, answer = error.status, {"error": error.sentence}
        headers = {"Allow": "POST"} if status == HTTPStatus.METHOD_NOT_ALLOWED else {}
        _log.warning("%d %s %s", status, error.sentence, error.reason)
    except Exception:  # noqa: BLE001 - a defect of ours is told in the log, and to nobody else
        status, answer = HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "The function failed; its log says why."}
        _log.exception("failed")
    return {
        "statusCode": int(status),
        "headers": {"Content-Type": "application/json", "Cache-Control": "no-store", **headers},
        "body": json.dumps({**answer, "request_id": request_id}),
        "isBase64Encoded": False,
    }


# --- the question -----------------------------------------------------------------------------------------------------


def _image_of(event: Any) -> bytes:
    """Return the picture that an event asks about."""
    if not isinstance(event, dict):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "The event must be a JSON object.")
    method = _method(event)
    if method is None:
        return _image_in(event)
    if method != "POST":
        raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "Only POST is answered here.")
    body = _body(event)
    if _content_type(body) is not None:
        return _checked(body)
    return _image_in(_document(body, event))


def _method(event: Mapping[str, Any]) -> str | None:
    """Return the HTTP method of an event; None when the function was called directly.

    https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html
    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
    """
    context = event.get("requestContext")
    if isinstance(context, dict) and isinstance(context.get("http"), dict):
        return str(context["http"].get("method", ""))
    return str(event["httpMethod"]) if "httpMethod" in event else None


def _body(event: Mapping[str, Any]) -> bytes:
    body = event.get("body") or ""
    if not isinstance(body, str) or not body:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "The body is empty: send a picture.")
    return _from_base64(body, "The body") if event.get("isBase64Encoded") else body.encode()


def _document(body: bytes, event: Mapping[str, Any]) -> dict[str, Any]:
    if not body.lstrip().startswith(b"{"):
        headers = event.get("headers") or {}
        declared = next((str(value) for name, value in headers.items() if name.lower() == "content-type"), "")
        if declared.startswith("image/") and not event.get("isBase64Encoded"):
            # A REST API without binary media types sends bytes as text, and what is no text is lost on the way.
            sentence = (
                f"The gateway passed the picture on as text: make {declared.split(';')[0][:50]} a binary media type."
            )
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, sentence)
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body is neither a PNG or JPEG picture nor JSON.")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "The body is not JSON.") from None
    return dict(document)


def _image_in(document: Mapping[str, Any]) -> bytes:
    """Return the picture that a JSON document holds or names."""
    if len(document) != 1 or next(iter(document)) not in _MEMBERS:
        sentence = 'The JSON must have exactly one member: "image" with a picture in base64, "s3_key" or "url".'
        raise RefusedError(HTTPStatus.BAD_REQUEST, sentence)
    name, value = next(iter(document.items()))
    if not isinstance(value, str) or not value:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f'"{name}" must be a string, and not an empty one.')
    if name == "image":
        return _checked(_from_base64(value, '"image"'))
    return _checked(_from_s3(value) if name == "s3_key" else _from_url(value))


def _from_base64(text: str, subject: str) -> bytes:
    # Four characters are three bytes: what is too large is not decoded first. JSON may be larger than its picture.
    if len(text) > 2 * SETTINGS.max_image_bytes + _CHUNK_BYTES:
        raise _too_large()
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"{subject} is not base64.") from None


def _checked(image: bytes) -> bytes:
    if len(image) > SETTINGS.max_image_bytes:
        raise _too_large()
    if _content_type(image) is None:
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The picture is neither PNG nor JPEG.")
    return image


def _content_type(image: bytes) -> str | None:
    """Return what the bytes are; what the caller says they are counts for nothing."""
    return next((kind for start, kind in _SIGNATURES.items() if image.startswith(start)), None)


def _too_large() -> RefusedError:
    limit = SETTINGS.max_image_bytes
    size = f"{limit / 2**20:g} MB" if limit >= 2**20 else f"{limit} bytes"
    return RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The picture is larger than {size}.")


# --- a picture in S3 --------------------------------------------------------------------------------------------------


def _from_s3(key: str) -> bytes:
    """Return an object of the one bucket, below the one prefix.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
    """
    if S3 is None:
        raise RefusedError(HTTPStatus.BAD_REQUEST, '"s3_key" is not taken by this deployment.')
    parts = key.split("/")
    if not key.startswith(SETTINGS.image_prefix) or {"", ".", ".."} & set(parts) or _CONTROL.search(key):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f'"s3_key" must be a key below {SETTINGS.image_prefix}.')
    if len(key.encode()) > _KEY_CHARACTERS:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f'"s3_key" is longer than {_KEY_CHARACTERS} bytes.')
    try:
        found = S3.get_object(Bucket=SETTINGS.image_bucket, Key=key)
        if found["ContentLength"] > SETTINGS.max_image_bytes:
            raise _too_large()
        return bytes(found["Body"].read(SETTINGS.max_image_bytes + 1))
    except ClientError as error:
        # S3 answers AccessDenied for what does not exist, to a role that may not list.
        if error.response["Error"]["Code"] in _NOT_READABLE:
            sentence = '"s3_key" names no object that can be read.'
            raise RefusedError(HTTPStatus.BAD_REQUEST, sentence, str(error)) from None
        raise _unanswered(_S3, error) from None
    except BotoCoreError as error:
        raise _unanswered(_S3, error) from None


# --- a picture at an address ------------------------------------------------------------------------------------------


def _from_url(url: str) -> bytes:
    """Return what is at an address of a host on the list, which redirects must not leave."""
    if not SETTINGS.url_hosts:
        raise RefusedError(HTTPStatus.BAD_REQUEST, '"url" is not taken by this deployment.')
    deadline = time.monotonic() + URL_SECONDS  # for all of it
    for _ in range(_MOST_REDIRECTS + 1):
        parts = _allowed(url)
        found = _get(parts, deadline)
        if isinstance(found, bytes):
            return found
        url = urljoin(parts.geturl(), found)
    raise RefusedError(HTTPStatus.BAD_GATEWAY, f'The host of "url" redirects more than {_MOST_REDIRECTS} times.')


def _allowed(url: str) -> SplitResult:
    """Return the parts of an address that may be asked."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise RefusedError(HTTPStatus.BAD_REQUEST, '"url" is no address.') from None
    # Parsers disagree about backslashes, blanks and users in an address: none of them is needed.
    if not url.isascii() or _CONTROL.search(url) or "@" in parts.netloc or parts.scheme != "https":
        raise RefusedError(HTTPStatus.BAD_REQUEST, '"url" must be a plain https address.')
    if parts.hostname not in SETTINGS.url_hosts or port not in (None, _HTTPS_PORT):
        raise RefusedError(HTTPStatus.BAD_REQUEST, 'The host of "url", or of where it redirects to, is not allowed.')
    return parts


def _get(parts: SplitResult, deadline: float) -> bytes | str:
    """Return the body at an address, or where it redirects to."""
    host = str(parts.hostname)
    connection = _connection(host, _public_address(host), deadline)
    # Socket timeouts start anew with every byte: the timer ends a host that answers slowly for ever.
    timer = threading.Timer(max(deadline - time.monotonic(), 0), _abort, [connection])
    timer.start()
    try:
        with closing(connection):
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", target, headers={"Accept": "image/png, image/jpeg"})
            return _received(connection.getresponse(), deadline)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, TimeoutError) or time.monotonic() >= deadline:
            sentence = 'The host of "url" did not answer in time.'
            raise RefusedError(HTTPStatus.GATEWAY_TIMEOUT, sentence, repr(error)) from None
        raise RefusedError(HTTPStatus.BAD_GATEWAY, 'The host of "url" did not answer.', repr(error)) from None
    finally:
        timer.cancel()


def _received(response: http.client.HTTPResponse, deadline: float) -> bytes | str:
    location = response.getheader("Location")
    if HTTPStatus.MULTIPLE_CHOICES <= response.status < HTTPStatus.BAD_REQUEST and location:
        return location
    if response.status != HTTPStatus.OK:
        raise RefusedError(HTTPStatus.BAD_GATEWAY, f'The host of "url" answered {response.status}.')
    body = b""
    while chunk := response.read(_CHUNK_BYTES):
        body += chunk
        if len(body) > SETTINGS.max_image_bytes:
            raise _too_large()
    if response.length or time.monotonic() >= deadline:  # what ends early ends without an exception
        raise http.client.IncompleteRead(body, response.length)
    return body


def _public_address(host: str) -> str:
    """Return an address of the host; refused when any of its addresses is not a public one."""
    try:
        found = socket.getaddrinfo(host, _HTTPS_PORT, type=socket.SOCK_STREAM)
    except OSError as error:
        raise RefusedError(HTTPStatus.BAD_GATEWAY, 'The host of "url" was not found.', repr(error)) from None
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(_is_public(address) for address in addresses):
        reason = f"{host} is {', '.join(addresses)}"
        raise RefusedError(HTTPStatus.BAD_REQUEST, 'The host of "url" has no public address.', reason)
    return addresses[0]


def _is_public(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and any(address in network for network in _CARRIERS):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class _HttpsTo(http.client.HTTPSConnection):
    """HTTPS with a host at an address that was checked: a second look-up could answer another one."""

    def __init__(self, host: str, address: str, deadline: float) -> None:
        self._tls = ssl.create_default_context()
        super().__init__(host, timeout=URL_SECONDS, context=self._tls)
        self._address, self._deadline = address, deadline

    def connect(self) -> None:
        plain = socket.create_connection((self._address, _HTTPS_PORT), CONNECT_SECONDS)
        plain.settimeout(URL_SECONDS)
        # Before the handshake, so that the timer can end that too.
        tls = self._tls.wrap_socket(plain, server_hostname=self.host, do_handshake_on_connect=False)
        self.sock = tls
        if time.monotonic() >= self._deadline:  # the timer found no socket yet
            raise TimeoutError
        tls.do_handshake()


def _connection(host: str, address: str, deadline: float) -> http.client.HTTPConnection:
    return _HttpsTo(host, address, deadline)


def _abort(connection: http.client.HTTPConnection) -> None:
    with suppress(OSError, AttributeError):  # there is no socket yet, or no longer
        connection.sock.shutdown(socket.SHUT_RDWR)


# --- the answer -------------------------------------------------------------------------------------------------------


def _answer(image: bytes, context: Any) -> dict[str, Any]:
    """Ask the endpoint.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html
    """
    needed = CONNECT_SECONDS + SETTINGS.endpoint_seconds + _MARGIN_SECONDS
    if context.get_remaining_time_in_millis() / 1000 < needed:
        raise RefusedError(HTTPStatus.GATEWAY_TIMEOUT, "There was no time left to ask the model.")
    try:
        answer = RUNTIME.invoke_endpoint(
            EndpointName=SETTINGS.endpoint_name,
            ContentType=_content_type(image),
            Accept="application/json",
            Body=image,
        )
        return _told(json.loads(answer["Body"].read()))
    except ClientError as error:
        raise _refused_by_model(error) from None
    except BotoCoreError as error:
        raise _unanswered(_MODEL, error) from None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        sentence = "The model's answer could not be read."
        raise RefusedError(HTTPStatus.BAD_GATEWAY, sentence, repr(error)) from None


def _told(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model's answer in our words; a picture of no known class gets no label."""
    candidates = [{"label": str(one["label"]), "probability": float(one["probability"])} for one in answer["top_k"]]
    label, probability = str(answer["label"]), float(answer["probability"])
    known = probability >= SETTINGS.threshold
    told: dict[str, Any] = {
        "known": known,
        "label": label if known else None,
        "probability": probability,
        "top_k": candidates[: SETTINGS.top_k],
        "threshold": SETTINGS.threshold,
        "model_version": str(answer["model_version"]),
    }
    if not known:
        told["message"] = (
            f"The picture shows probably none of the known classes: the best guess, {label}, has a probability "
            f"of {probability:.2f}, below {SETTINGS.threshold:g}."
        )
    return told


def _refused_by_model(error: ClientError) -> RefusedError:
    """Return what a refusal of the endpoint means: what the caller can change is told, the rest is for the log."""
    response: Mapping[str, Any] = error.response
    if response["Error"]["Code"] != "ModelError":
        return _unanswered(_MODEL, error)
    status = int(response.get("OriginalStatusCode") or 0)
    if status in (HTTPStatus.GATEWAY_TIMEOUT, 0):  # SageMaker's own, when the container did not answer
        return RefusedError(HTTPStatus.GATEWAY_TIMEOUT, "The model did not answer in time.", str(error))
    if not HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return RefusedError(HTTPStatus.BAD_GATEWAY, "The model failed at this picture.", str(error))
    try:
        sentence = str(json.loads(response["OriginalMessage"])["error"])[:_SENTENCE_CHARACTERS]
        return RefusedError(HTTPStatus(status), sentence)
    except (KeyError, TypeError, ValueError):
        return RefusedError(HTTPStatus.BAD_REQUEST, "The model refused this picture.", str(error))


def _unanswered(subject: str, error: ClientError | BotoCoreError) -> RefusedError:
    if isinstance(error, (ConnectTimeoutError, ReadTimeoutError)):
        return RefusedError(HTTPStatus.GATEWAY_TIMEOUT, f"{subject} did not answer in time.", repr(error))
    code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
    if code in _THROTTLED:
        return RefusedError(HTTPStatus.TOO_MANY_REQUESTS, f"{subject} is busy: ask again in a moment.", str(error))
    return RefusedError(HTTPStatus.BAD_GATEWAY, f"{subject} could not be asked.", repr(error))
