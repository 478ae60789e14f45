"""Lambda function URLs: HTTP requests as events, signed as every request to the local AWS.

On AWS each URL has a host of its own; here all have one port on loopback, and each a path.
"""

import base64
import json
import secrets
import string
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote

from deployments.local_aws import security
from deployments.local_aws.account import Account
from deployments.local_aws.function_invocations import MOST_PAYLOAD_BYTES, Invocations
from deployments.local_aws.function_store import (
    Function,
    FunctionStore,
    FunctionUrl,
    conflict,
    invalid,
    not_found,
    page,
)
from deployments.local_aws.policy_evaluation import Access, evaluate
from deployments.local_aws.principals import Principal, Principals
from deployments.local_aws.protocol import AwsError, Operation
from deployments.local_aws.signatures import SignatureCheck, raw_path
from deployments.local_aws.wire import Response
from deployments.local_aws.wsgi_server import listening

_ID_LETTERS = 32
_FORBIDDEN = (
    "Forbidden. For troubleshooting Function URL authorization issues, see: "
    "https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html"
)
_TEXT_TYPES = (
    "text/",
    "application/json",
    "application/javascript",
    "application/xml",
    "application/x-www-form-urlencoded",
)
_NOT_PASSED_ON = frozenset({"authorization", "connection", "content-length", "keep-alive", "transfer-encoding"})


class FunctionUrls:
    """The function URLs of an account.

    https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html
    """

    def __init__(self, account: Account, store: FunctionStore, invocations: Invocations) -> None:
        self._account, self._store, self._invocations = account, store, invocations
        self._signatures = SignatureCheck(account.find_credentials, account.region)
        self._principals = Principals(account.account_id)
        self._lock = threading.Lock()
        self._server = ExitStack()
        self._address = ""

    def operations(self) -> dict[str, Operation]:
        """Return its operations by their API names."""
        return {
            "CreateFunctionUrlConfig": self.create,
            "GetFunctionUrlConfig": self.get,
            "UpdateFunctionUrlConfig": self.update,
            "DeleteFunctionUrlConfig": self.delete,
            "ListFunctionUrlConfigs": self.list,
        }

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Give $LATEST or an alias an address."""
        self._listen()
        with self._store.lock:
            function, qualifier = self._found(request)
            if qualifier in function.urls:
                msg = (
                    f"Failed to create function url config for [functionArn = {function.qualified_arn(qualifier)}]. "
                    "Error message:  FunctionUrlConfig exists for this Lambda function"
                )
                raise conflict(msg)
            now = datetime.now(UTC)
            name = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(_ID_LETTERS))
            function.urls[qualifier] = FunctionUrl(name, qualifier, now, now)
            described = self._described(function, function.urls[qualifier])
            return {key: value for key, value in described.items() if key != "LastModifiedTime"}

    def get(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return an address."""
        with self._store.lock:
            function, qualifier = self._found(request)
            return self._described(function, _url(function, qualifier))

    def update(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return an address; there is nothing of it that could be changed."""
        with self._store.lock:
            function, qualifier = self._found(request)
            url = _url(function, qualifier)
            url.modified = datetime.now(UTC)
            return self._described(function, url)

    def delete(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take an address away."""
        with self._store.lock:
            function, qualifier = self._found(request)
            _url(function, qualifier)
            del function.urls[qualifier]
        return {}

    def list(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a page of a function's addresses."""
        with self._store.lock:
            function = self._store.find_unqualified(request)
            found = [self._described(function, url) for url in function.urls.values()]
            return page(request, "FunctionUrlConfigs", found)

    def stop(self) -> None:
        """Take no more requests."""
        self._server.close()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        response = self._respond(environ)
        start_response(response.status_line, response.headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else response.body

    def _respond(self, environ: dict[str, Any]) -> Response:
        reason = security.refusal(environ)
        if reason is not None:
            return _message(HTTPStatus.FORBIDDEN, reason)
        try:
            signer = self._signatures.identify(environ)
            caller = self._principals.find(signer.access_key_id)
        except AwsError as error:
            return _message(HTTPStatus.FORBIDDEN, error.message)
        if signer.service != "lambda":
            return _message(HTTPStatus.FORBIDDEN, "Credential should be scoped to correct service: 'lambda'.")
        found = self._addressed(environ)
        return self._invoke(*found, environ, caller) if found else _message(HTTPStatus.NOT_FOUND, None)

    def _invoke(self, function: Function, url: FunctionUrl, environ: dict[str, Any], caller: Principal) -> Response:
        if not _may_call(caller, function.qualified_arn(url.qualifier)):
            return _message(HTTPStatus.FORBIDDEN, _FORBIDDEN)
        if int(environ.get("CONTENT_LENGTH") or 0) > MOST_PAYLOAD_BYTES:
            return _message(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Request Entity Too Large")
        event = json.dumps(self._event(url, environ, caller))
        if len(event) > MOST_PAYLOAD_BYTES:  # in base64 it is a third larger
            return _message(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Request Entity Too Large")
        try:
            outcome = self._invocations.run(function, url.qualifier, event)
        except AwsError as error:
            return _message(HTTPStatus(error.status), error.message)
        if outcome.failed:
            return _message(HTTPStatus.BAD_GATEWAY, "Internal Server Error")
        return _answer(outcome.payload)

    def _addressed(self, environ: dict[str, Any]) -> tuple[Function, FunctionUrl] | None:
        name = raw_path(environ).split("/")[1]
        with self._store.lock:
            for function in self._store.all():
                for url in function.urls.values():
                    if url.id == name:
                        return function, url
        return None

    def _event(self, url: FunctionUrl, environ: dict[str, Any], caller: Principal) -> dict[str, Any]:
        """Return a request in payload format 2.0."""
        path = "/" + raw_path(environ).lstrip("/").partition("/")[2]
        query, now = environ.get("QUERY_STRING", ""), datetime.now(UTC)
        headers = _headers(environ)
        body = environ["wsgi.input"].read()
        is_text = headers.get("content-type", "").startswith(_TEXT_TYPES)
        event: dict[str, Any] = {
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": path,
            "rawQueryString": query,
            "headers": headers,
            "requestContext": {
                "accountId": self._account.account_id,
                "apiId": url.id,
                "authorizer": {"iam": {"accountId": self._account.account_id, "userArn": caller.arn}},
                "domainName": environ["HTTP_HOST"],
                "domainPrefix": url.id,
                "http": {
                    "method": environ["REQUEST_METHOD"],
                    "path": unquote(path),
                    "protocol": environ["SERVER_PROTOCOL"],
                    "sourceIp": environ["REMOTE_ADDR"],
                    "userAgent": headers.get("user-agent", ""),
                },
                "requestId": str(uuid.uuid4()),
                "routeKey": "$default",
                "stage": "$default",
                "time": f"{now:%d/%b/%Y:%H:%M:%S +0000}",
                "timeEpoch": int(time.time() * 1000),
            },
            "isBase64Encoded": bool(body) and not is_text,
        }
        if query:
            event["queryStringParameters"] = _joined(parse_qsl(query, keep_blank_values=True))
        if body:
            event["body"] = body.decode("utf-8", "replace") if is_text else base64.b64encode(body).decode()
        return event

    def _listen(self) -> None:
        with self._lock:
            if not self._address:
                self._address = self._server.enter_context(listening(self))

    def _found(self, request: dict[str, Any]) -> tuple[Function, str | None]:
        function, qualifier = self._store.find(request)
        if qualifier is not None and qualifier not in function.aliases:
            message = f"A function URL leads to $LATEST, without Qualifier, or to an alias, and {qualifier} is none"
            raise invalid(message)
        return function, qualifier

    def _described(self, function: Function, url: FunctionUrl) -> dict[str, Any]:
        return {
            "FunctionUrl": f"{self._address}/{url.id}/",
            "FunctionArn": function.qualified_arn(url.qualifier),
            "AuthType": "AWS_IAM",
            "InvokeMode": "BUFFERED",
            "CreationTime": url.created.isoformat(),
            "LastModifiedTime": url.modified.isoformat(),
        }


def _may_call(caller: Principal, arn: str) -> bool:
    """Return whether the caller's policies allow both actions that AWS wants.

    https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html
    """
    context = {**caller.context, "lambda:functionurlauthtype": ("AWS_IAM",), "lambda:invokedviafunctionurl": ("true",)}
    return caller.is_administrator or all(
        evaluate(caller.documents, Access(action, arn, context)).allowed
        for action in ("lambda:InvokeFunctionUrl", "lambda:InvokeFunction")
    )


def _url(function: Function, qualifier: str | None) -> FunctionUrl:
    if qualifier not in function.urls:
        msg = "The resource you requested does not exist."
        raise not_found(msg)
    return function.urls[qualifier]


def _headers(environ: Mapping[str, Any]) -> dict[str, str]:
    headers = {
        key[5:].replace("_", "-").lower(): str(value) for key, value in environ.items() if key.startswith("HTTP_")
    }
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(key):
            headers[key.replace("_", "-").lower()] = str(environ[key])
    # A function must not get what its caller could be impersonated with.
    return {name: value for name, value in headers.items() if name not in ("authorization", "x-amz-security-token")}


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in pairs:
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _answer(payload: str) -> Response:
    """Return a handler's result as the HTTP answer that it stands for."""
    result = json.loads(payload)
    if not isinstance(result, dict) or "statusCode" not in result:
        return Response(HTTPStatus.OK, [("Content-Type", "application/json")], [payload.encode("utf-8", "replace")])
    try:
        status = HTTPStatus(int(result["statusCode"]))
        body = result.get("body") or ""
        content = body if isinstance(body, str) else json.dumps(body)
        raw = base64.b64decode(content) if result.get("isBase64Encoded") else content.encode("utf-8", "replace")
        named = {str(name).lower(): str(value) for name, value in (result.get("headers") or {}).items()}
        headers = [(name, value) for name, value in named.items() if name not in _NOT_PASSED_ON]
        headers += [("set-cookie", str(cookie)) for cookie in result.get("cookies") or []]
    except (ValueError, TypeError, AttributeError):
        return _message(HTTPStatus.BAD_GATEWAY, "Internal Server Error")
    if any(set("\r\n") & set(f"{name}{value}") for name, value in headers):
        return _message(HTTPStatus.BAD_GATEWAY, "Internal Server Error")
    if "content-type" not in named:
        headers.append(("content-type", "application/json"))
    return Response(status, headers, [raw])


def _message(status: HTTPStatus, message: str | None) -> Response:
    body = json.dumps({"Message": message}).encode()
    return Response(status, [("Content-Type", "application/json")], [body])
