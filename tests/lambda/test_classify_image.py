"""The function in front of an endpoint: what it takes, what it answers, and where it cannot be led."""

import base64
import http.client
import importlib.util
import io
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError

SOURCE = Path(__file__).parents[2] / "lambda" / "classify_image.py"
PNG = b"\x89PNG\r\n\x1a\n" + b"p" * 40
JPEG = b"\xff\xd8\xff" + b"j" * 40
PNG_TEXT = base64.b64encode(PNG).decode()
ANSWER = {
    "label": "beagle",
    "probability": 0.9,
    "top_k": [{"label": "beagle", "probability": 0.9}, {"label": "pug", "probability": 0.1}],
    "model_version": "v-7",
}
REQUEST_ID = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
PUBLIC = "93.184.216.34"


class Context:
    """What Lambda tells a handler; nothing of it may come back but the request id."""

    aws_request_id = REQUEST_ID
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:secret-context"

    def __init__(self, seconds: float = 30) -> None:
        self._seconds = seconds

    def get_remaining_time_in_millis(self) -> int:
        return int(self._seconds * 1000)


class Endpoint:
    """Stands for sagemaker-runtime."""

    def __init__(self, answer: Any = ANSWER, error: Exception | None = None) -> None:
        self.answer, self.error, self.calls = answer, error, list[dict[str, Any]]()

    def invoke_endpoint(self, **request: Any) -> dict[str, Any]:
        self.calls.append(request)
        if self.error:
            raise self.error
        body = self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()
        return {"Body": io.BytesIO(body), "ContentType": "application/json"}


class Objects:
    """Stands for S3."""

    def __init__(self, objects: Mapping[str, bytes], error: Exception | None = None) -> None:
        self.objects, self.error = objects, error

    def get_object(self, **request: Any) -> dict[str, Any]:
        if self.error:
            raise self.error
        body = self.objects.get(f"{request['Bucket']}/{request['Key']}")
        if body is None:
            raise refusal("NoSuchKey")
        return {"Body": io.BytesIO(body), "ContentLength": len(body)}


class Function:
    """The module, loaded in an environment of its own as at a cold start."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.client = module, module.RUNTIME
        self.endpoint = Endpoint()
        self.resolved: list[str] = []
        module.RUNTIME = self.endpoint  # type: ignore[attr-defined]

    def answers(self, event: Any, context: Context | None = None) -> tuple[int, dict[str, Any]]:
        answer = self.module.handler(event, context or Context())
        assert answer["headers"]["Content-Type"] == "application/json"
        assert "secret" not in json.dumps(answer)
        body = json.loads(answer["body"])
        assert body["request_id"] == REQUEST_ID
        return answer["statusCode"], body

    def fails_with(self, error: Exception) -> tuple[int, str]:
        self.module.RUNTIME = Endpoint(error=error)  # type: ignore[attr-defined]
        status, body = self.answers({"image": PNG_TEXT})
        return status, body["error"]


Load = Callable[..., Function]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    def load(**environment: str) -> Function:
        for name, value in {
            "ENDPOINT_NAME": "flows-endpoint",
            "AWS_DEFAULT_REGION": "us-east-1",
            **environment,
        }.items():
            monkeypatch.setenv(name, value)
        spec = importlib.util.spec_from_file_location("classify_image", SOURCE)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "classify_image", module)
        spec.loader.exec_module(module)
        return Function(module)

    return load


@pytest.fixture
def function(load: Load) -> Function:
    return load()


def refusal(code: str, **details: Any) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "secret words"}, **details}, "Call")  # type: ignore[typeddict-item]


def model_error(status: int, message: str) -> ClientError:
    return refusal("ModelError", OriginalStatusCode=status, OriginalMessage=message)


def payload_2(body: str | None, *, is_base64: bool = False, method: str = "POST", **headers: str) -> dict[str, Any]:
    event = {"version": "2.0", "routeKey": "$default", "rawPath": "/", "rawQueryString": "", "headers": headers}
    event |= {"requestContext": {"http": {"method": method, "path": "/"}, "requestId": "secret"}}
    return event | {"isBase64Encoded": is_base64} | ({} if body is None else {"body": body})


def payload_1(body: str | None, *, is_base64: bool = False, method: str = "POST", **headers: str) -> dict[str, Any]:
    event: dict[str, Any] = {"resource": "/", "path": "/", "httpMethod": method, "headers": headers or None}
    return event | {"requestContext": {"requestId": "secret"}, "body": body, "isBase64Encoded": is_base64}


GATEWAYS = pytest.mark.parametrize("gateway", [payload_1, payload_2])


# --- cold start -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"ENDPOINT_NAME": ""}, "ENDPOINT_NAME is not set"),
        ({"CONFIDENCE_THRESHOLD": "high"}, "CONFIDENCE_THRESHOLD must be a number from 0 to 1"),
        ({"CONFIDENCE_THRESHOLD": "1.5"}, "CONFIDENCE_THRESHOLD"),
        ({"TOP_K": "0"}, "TOP_K"),
        ({"ENDPOINT_SECONDS": "nan"}, "ENDPOINT_SECONDS"),
        ({"IMAGE_BUCKET": "b"}, "belong together"),
        ({"IMAGE_BUCKET": "b", "IMAGE_PREFIX": "uploads"}, "ends with a slash"),
    ],
)
def test_a_wrong_environment_fails_the_cold_start_with_one_sentence(
    load: Load, environment: dict[str, str], words: str
) -> None:
    with pytest.raises(Exception, match=words) as caught:
        load(**environment)
    assert "\n" not in str(caught.value)
    assert type(caught.value).__name__ == "ConfigurationError"


def test_the_clients_give_up_before_the_function_does(load: Load) -> None:
    config = load(ENDPOINT_SECONDS="3").client.meta.config
    assert (config.read_timeout, config.connect_timeout) == (3, 2)
    assert config.retries["total_max_attempts"] == 1


# --- what it takes --------------------------------------------------------------------------------------------------


def test_called_directly_it_answers_label_probabilities_and_version(function: Function) -> None:
    assert function.answers({"image": PNG_TEXT}) == (
        200,
        {
            "known": True,
            "label": "beagle",
            "probability": 0.9,
            "top_k": ANSWER["top_k"],
            "threshold": 0.5,
            "model_version": "v-7",
            "request_id": REQUEST_ID,
        },
    )
    assert function.endpoint.calls == [
        {"EndpointName": "flows-endpoint", "ContentType": "image/png", "Accept": "application/json", "Body": PNG}
    ]


@GATEWAYS
@pytest.mark.parametrize(("image", "kind"), [(PNG, "image/png"), (JPEG, "image/jpeg")])
def test_a_gateway_sends_the_picture_in_base64(function: Function, gateway: Any, image: bytes, kind: str) -> None:
    status, _ = function.answers(gateway(base64.b64encode(image).decode(), is_base64=True))
    assert status == 200
    assert function.endpoint.calls[0]["Body"] == image
    assert function.endpoint.calls[0]["ContentType"] == kind


@GATEWAYS
@pytest.mark.parametrize("encoded", [False, True])
def test_a_gateway_sends_json(function: Function, gateway: Any, encoded: bool) -> None:  # noqa: FBT001
    text = json.dumps({"image": PNG_TEXT})
    body = base64.b64encode(text.encode()).decode() if encoded else text
    status, _ = function.answers(gateway(body, is_base64=encoded))
    assert (status, function.endpoint.calls[0]["Body"]) == (200, PNG)


def test_the_type_comes_from_the_bytes_and_not_from_the_header(function: Function) -> None:
    event = payload_2(base64.b64encode(JPEG).decode(), is_base64=True, **{"content-type": "image/png"})
    assert function.answers(event)[0] == 200
    assert function.endpoint.calls[0]["ContentType"] == "image/jpeg"


@pytest.mark.parametrize(
    ("event", "status", "words"),
    [
        ([], 400, "JSON object"),
        (None, 400, "JSON object"),
        ({}, 400, "exactly one member"),
        ({"image": PNG_TEXT, "s3_key": "uploads/a"}, 400, "exactly one member"),
        ({"picture": PNG_TEXT}, 400, "exactly one member"),
        ({"image": 7}, 400, "must be a string"),
        ({"image": ""}, 400, "not an empty one"),
        ({"image": "***"}, 400, "not base64"),
        ({"image": base64.b64encode(b"GIF89a").decode()}, 415, "neither PNG nor JPEG"),
        (payload_2(None), 400, "body is empty"),
        (payload_1(None), 400, "body is empty"),
        (payload_2("***", is_base64=True), 400, "The body is not base64"),
        (payload_2("{"), 400, "not JSON"),
        (payload_2("[1]"), 415, "nor JSON"),
        (payload_2(base64.b64encode(b"GIF89a").decode(), is_base64=True), 415, "neither a PNG or JPEG"),
        (payload_1("\ufffdPNG", **{"Content-Type": "image/png"}), 415, "binary media type"),
        (payload_2(None, method="GET"), 405, "Only POST"),
        (payload_1(None, method="GET"), 405, "Only POST"),
        ({"s3_key": "uploads/a.png"}, 400, "not taken by this deployment"),
        ({"url": "https://example.com/a.png"}, 400, "not taken by this deployment"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_one_sentence(
    function: Function, event: Any, status: int, words: str
) -> None:
    answered, body = function.answers(event)
    assert answered == status
    assert words in body["error"]
    assert function.endpoint.calls == []


@pytest.mark.parametrize("extra", [1, 10_000])
def test_a_picture_that_is_too_large_is_refused(load: Load, extra: int) -> None:
    function = load(MAX_IMAGE_BYTES="1000")
    text = base64.b64encode(PNG.ljust(1000 + extra, b"x")).decode()
    for event in ({"image": text}, payload_2(text, is_base64=True), payload_1(json.dumps({"image": text}))):
        status, body = function.answers(event)
        assert (status, body["error"]) == (413, "The picture is larger than 1000 bytes.")
    assert function.answers({"image": base64.b64encode(PNG.ljust(1000, b"x")).decode()})[0] == 200


# --- what it says of the model's answer -----------------------------------------------------------------------------


def test_a_picture_of_no_known_class_gets_no_label(load: Load) -> None:
    function = load(CONFIDENCE_THRESHOLD="0.95")
    _, body = function.answers({"image": PNG_TEXT})
    assert (body["known"], body["label"], body["probability"]) == (False, None, 0.9)
    assert body["message"].endswith("the best guess, beagle, has a probability of 0.90, below 0.95.")


def test_as_many_probabilities_come_back_as_the_deployment_says(load: Load) -> None:
    assert load(TOP_K="1").answers({"image": PNG_TEXT})[1]["top_k"] == ANSWER["top_k"][:1]  # type: ignore[index]


@pytest.mark.parametrize("answer", [b"<html>", b"[]", {}, {**ANSWER, "top_k": [{"label": "x"}]}])
def test_an_answer_that_cannot_be_read_is_a_bad_gateway(function: Function, answer: Any) -> None:
    function.module.RUNTIME = Endpoint(answer)  # type: ignore[attr-defined]
    assert function.answers({"image": PNG_TEXT})[0] == 502


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (model_error(400, '{"error": "the picture is broken"}'), 400, "the picture is broken"),
        (model_error(413, '{"error": "too many pixels"}'), 413, "too many pixels"),
        (model_error(400, "Traceback: secret"), 400, "The model refused this picture."),
        (model_error(500, '{"error": "secret"}'), 502, "The model failed at this picture."),
        (model_error(503, "secret"), 502, "The model failed at this picture."),
        (model_error(0, "secret timed out"), 504, "The model did not answer in time."),
        (refusal("ThrottlingException"), 429, "The model is busy: ask again in a moment."),
        (refusal("ValidationError"), 502, "The model could not be asked."),
        (refusal("AccessDeniedException"), 502, "The model could not be asked."),
        (refusal("ServiceUnavailable"), 502, "The model could not be asked."),
        (ReadTimeoutError(endpoint_url="secret"), 504, "The model did not answer in time."),
        (ConnectTimeoutError(endpoint_url="secret"), 504, "The model did not answer in time."),
        (EndpointConnectionError(endpoint_url="secret"), 502, "The model could not be asked."),
        (RuntimeError("secret"), 500, "The function failed; its log says why."),
    ],
)
def test_a_failing_endpoint_is_told_without_internals(
    function: Function, error: Exception, status: int, sentence: str
) -> None:
    assert function.fails_with(error) == (status, sentence)


def test_the_endpoint_is_not_asked_when_no_time_is_left(function: Function) -> None:
    assert function.answers({"image": PNG_TEXT}, Context(seconds=5))[0] == 504
    assert function.endpoint.calls == []


# --- pictures in S3 -------------------------------------------------------------------------------------------------


@pytest.fixture
def with_bucket(load: Load) -> Function:
    function = load(IMAGE_BUCKET="b", IMAGE_PREFIX="uploads/", MAX_IMAGE_BYTES="100")
    objects = {"b/uploads/a.png": PNG, "b/uploads/big.png": PNG * 10, "b/uploads/a.txt": b"text", "b/secret.png": PNG}
    function.module.S3 = Objects(objects)  # type: ignore[attr-defined]
    return function


@pytest.mark.parametrize("wrap", [dict, lambda event: payload_2(json.dumps(event))])
def test_a_picture_below_the_prefix_is_read(with_bucket: Function, wrap: Any) -> None:
    assert with_bucket.answers(wrap({"s3_key": "uploads/a.png"}))[0] == 200
    assert with_bucket.endpoint.calls[0]["Body"] == PNG


@pytest.mark.parametrize(
    "key",
    [
        "secret.png",
        "/uploads/a.png",
        "uploads/../secret.png",
        "uploads/./a.png",
        "uploads//a.png",
        "uploads/",
        "uploads",
        "uploadsX/a.png",
        "Uploads/a.png",
        "uploads/a\n.png",
        "uploads/..\\secret.png",
        "s3://b/uploads/a.png",
    ],
)
def test_a_key_that_is_not_plainly_below_the_prefix_is_refused(with_bucket: Function, key: str) -> None:
    status, body = with_bucket.answers({"s3_key": key})
    assert (status, body["error"]) == (400, '"s3_key" must be a key below uploads/.')


@pytest.mark.parametrize(
    ("key", "status"),
    [("uploads/none.png", 400), ("uploads/big.png", 413), ("uploads/a.txt", 415), ("uploads/" + "x" * 1024, 400)],
)
def test_an_object_that_is_no_picture_is_refused(with_bucket: Function, key: str, status: int) -> None:
    assert with_bucket.answers({"s3_key": key})[0] == status


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (refusal("AccessDenied"), 400),
        (refusal("SlowDown"), 429),
        (refusal("InternalError"), 502),
        (ReadTimeoutError(endpoint_url="secret"), 504),
    ],
)
def test_a_failing_s3_is_told(with_bucket: Function, error: Exception, status: int) -> None:
    with_bucket.module.S3 = Objects({}, error)  # type: ignore[attr-defined]
    assert with_bucket.answers({"s3_key": "uploads/a.png"})[0] == status


# --- pictures at an address -----------------------------------------------------------------------------------------


class _Site(BaseHTTPRequestHandler):
    """A host on the list; it speaks HTTP, as the test's seam leaves TLS away."""

    def do_GET(self) -> None:
        release: threading.Event = self.server.release  # type: ignore[attr-defined]
        self.server.paths.append(self.path)  # type: ignore[attr-defined]
        if self.path.startswith("/to/"):
            self._answer(302, b"", Location=self.path.removeprefix("/to/"))
        elif self.path == "/missing":
            self._answer(404, b"")
        elif self.path == "/large":
            self._answer(200, PNG * 1000)
        elif self.path == "/short":
            self._answer(200, PNG, **{"Content-Length": "1000"})
        elif self.path == "/slow":
            self.wfile.write(b"HTTP/1.0 200 OK\r\n")
            release.wait(10)
        else:
            self._answer(200, PNG)

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        server.release = threading.Event()  # type: ignore[attr-defined]
        server.paths = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.release.set()  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


@pytest.fixture
def with_hosts(load: Load, site: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> Function:
    """Names are resolved by a table, and what was checked as public leads to the site on loopback."""
    function = load(URL_HOSTS="images.example, CDN.example, inside.example, mixed.example", MAX_IMAGE_BYTES="10000")
    names = {"images.example": [PUBLIC], "cdn.example": [PUBLIC], "mixed.example": [PUBLIC, "10.0.0.1"]}

    really = socket.getaddrinfo

    def resolve(host: str, *rest: Any, **options: Any) -> list[Any]:
        if host == "127.0.0.1":
            return really(host, *rest, **options)
        function.resolved.append(host)
        if host not in names:
            raise socket.gaierror(-2, "secret")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in names[host]]

    def connect(host: str, address: str, _deadline: float) -> http.client.HTTPConnection:
        assert (host in names, address) == (True, PUBLIC)
        return http.client.HTTPConnection(*site.server_address, timeout=5)  # type: ignore[misc]

    function.names = names  # type: ignore[attr-defined]
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(function.module, "_connection", connect)
    return function


def test_a_picture_of_a_listed_host_is_read(with_hosts: Function, site: Any) -> None:
    assert with_hosts.answers({"url": "https://images.example/a.png?size=1#x"})[0] == 200
    assert site.paths == ["/a.png?size=1"]
    assert with_hosts.endpoint.calls[0]["Body"] == PNG


def test_a_redirect_to_a_listed_host_is_followed(with_hosts: Function) -> None:
    assert with_hosts.answers({"url": "https://images.example/to/https://cdn.example/a.png"})[0] == 200
    assert with_hosts.answers({"url": "https://images.example/to//a.png"})[0] == 200  # to /a.png of the same host
    assert with_hosts.resolved == ["images.example", "cdn.example", "images.example", "images.example"]


@pytest.mark.parametrize(
    "url",
    [
        "http://images.example/a.png",
        "HTTP://images.example/a.png",
        "ftp://images.example/a.png",
        "file:///etc/passwd",
        "//images.example/a.png",
        "images.example/a.png",
        "https://elsewhere.example/a.png",
        "https://images.example.elsewhere.example/",
        "https://ximages.example/",
        "https://images.example./",
        "https://images.example:8443/",
        "https://images.example:99999/",
        "https://images.example@169.254.169.254/",
        "https://169.254.169.254\\@images.example/",
        "https://user:password@images.example/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::ffff:169.254.169.254]/",
        "https://[fe80::1%25eth0]/",
        "https://2852039166/",
        "https://0xa9fea9fe/",
        "https://localhost/",
        "https://127.0.0.1/",
        "https://images.example/a\r\nHost: x",
        "https://images.example /",
        "https://imag\u00e9s.example/",
        "https://[",
        "https://",
    ],
)
def test_an_address_that_is_not_plainly_of_a_listed_host_is_never_resolved(with_hosts: Function, url: str) -> None:
    assert with_hosts.answers({"url": url})[0] == 400
    assert with_hosts.resolved == []


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104
        "224.0.0.1",
        "240.0.0.1",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:169.254.169.254",
        "::ffff:8.8.8.8",
        "::169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
    ],
)
def test_a_listed_host_with_an_address_that_is_not_public_is_not_asked(
    with_hosts: Function, site: Any, address: str
) -> None:
    with_hosts.names["inside.example"] = [address]  # type: ignore[attr-defined]
    status, body = with_hosts.answers({"url": "https://inside.example/"})
    assert (status, body["error"]) == (400, 'The host of "url" has no public address.')
    assert site.paths == []


def test_one_address_that_is_not_public_is_enough(with_hosts: Function) -> None:
    assert with_hosts.answers({"url": "https://mixed.example/"})[0] == 400


@pytest.mark.parametrize(
    "target",
    ["http://images.example/", "https://elsewhere.example/", "https://169.254.169.254/", "https://inside.example/"],
)
def test_a_redirect_leads_nowhere_that_is_not_allowed(with_hosts: Function, site: Any, target: str) -> None:
    with_hosts.names["inside.example"] = ["10.0.0.1"]  # type: ignore[attr-defined]
    assert with_hosts.answers({"url": f"https://images.example/to/{target}"})[0] == 400
    assert len(site.paths) == 1


def test_redirects_end(with_hosts: Function, site: Any) -> None:
    url = "https://images.example/a.png"
    for _ in range(4):
        url = url.replace("example/", "example/to/https://images.example/", 1)
    assert with_hosts.answers({"url": url})[0] == 502
    assert len(site.paths) == 4


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("https://images.example/missing", 502),
        ("https://images.example/large", 413),
        ("https://images.example/short", 502),
        ("https://inside.example/", 502),
    ],
)
def test_what_a_host_does_wrong_is_told(with_hosts: Function, url: str, status: int) -> None:
    assert with_hosts.answers({"url": url})[0] == status


def test_a_host_that_is_too_slow_is_left(with_hosts: Function, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(with_hosts.module, "URL_SECONDS", 0.1)
    assert with_hosts.answers({"url": "https://images.example/slow"})[0] == 504


def test_a_handshake_that_never_ends_is_left(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    function = load(URL_HOSTS="images.example")
    monkeypatch.setattr(function.module, "URL_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        reached = socket.create_connection(silent.getsockname())
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", (PUBLIC, 443))])
        monkeypatch.setattr(socket, "create_connection", lambda *_, **__: reached)
        assert function.answers({"url": "https://images.example/"})[0] == 504


def test_the_connection_goes_to_the_address_that_was_checked(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS may answer otherwise the second time; so there is no second time."""
    asked: list[Any] = []

    def connect(address: Any, *_: Any) -> Any:
        asked.append(address)
        raise ConnectionRefusedError

    function = load(URL_HOSTS="images.example")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", (PUBLIC, 443))])
    monkeypatch.setattr(socket, "create_connection", connect)
    assert function.answers({"url": "https://images.example/"})[0] == 502
    assert asked == [(PUBLIC, 443)]
