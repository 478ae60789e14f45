"""moto's services behind the gateway: what moto does it does; what it does not becomes an error in AWS's own form."""

import json
import logging
from collections.abc import Iterable
from http import HTTPStatus
from threading import Lock
from typing import Any

from flask import Flask
from moto.core.base_backend import BackendDict
from moto.iam.access_control import IAMPolicy, PermissionResult
from moto.moto_server.werkzeug_app import create_backend_app
from moto.s3.models import FakeBucket
from werkzeug.test import run_wsgi_app

from deployments.local_aws.protocol import AwsError
from deployments.local_aws.signatures import raw_path
from deployments.local_aws.wire import Response

_log = logging.getLogger(__name__)


# Parts of S3 that moto does not know: it would list the bucket, or write an object, and call that the answer.
_S3_ABSENT = frozenset(
    {
        "abac",
        "analytics",
        "annotation",
        "intelligent-tiering",
        "metadataAnnotationTable",
        "metadataConfiguration",
        "metadataInventoryTable",
        "metadataJournalTable",
        "metadataTable",
        "metrics",
        "renameObject",
        "requestPayment",
        "session",
        "torrent",
    }
)
# Settings that moto would keep and nobody would act on.
_S3_NEVER_DONE = frozenset({"accelerate", "logging", "notification", "replication", "website"})


def check_s3_request(environ: dict[str, Any]) -> None:
    """Refuse what moto's S3 would pretend.

    Raises:
        AwsError: NotImplemented, which is S3's own word.
    """
    parts = {part.partition("=")[0] for part in environ.get("QUERY_STRING", "").split("&")}
    absent = parts & (_S3_ABSENT | (_S3_NEVER_DONE if environ["REQUEST_METHOD"] == "PUT" else frozenset()))
    if absent:
        service = "s3"
        raise _not_implemented(service, environ, f"no {', '.join(sorted(absent))} here")


class MotoServices:
    """moto's WSGI applications, one per service, made when first called.

    Each is called by name, never through moto's dispatcher, so neither /moto-api nor the instance metadata is there.
    """

    def __init__(self) -> None:
        self._apps: dict[str, Flask] = {}
        self._lock = Lock()
        FakeBucket.get_permission = _bucket_permission  # type: ignore[method-assign, assignment]
        BackendDict.__getitem__ = _backend_of  # type: ignore[method-assign]

    def call(self, service: str, environ: dict[str, Any]) -> Response:
        """Return moto's answer.

        Raises:
            AwsError: moto does not implement what was asked for, or broke on it. The status is 501: botocore would
                repeat a 500, and nothing gets better by that.
        """
        environ["RAW_URI"] = raw_path(environ)
        environ.pop("HTTP_X_MOTO_ACCOUNT_ID", None)  # moto would let it choose another account
        try:
            body, status, headers = run_wsgi_app(self._app(service), environ)
        except Exception as error:  # moto raises whatever Python does where it has gone wrong
            raise _not_implemented(service, environ, f"{type(error).__name__}: {error}") from error
        response = Response(int(status.split(" ", 1)[0]), _own_headers(headers), body)
        _check(response, service, environ)
        return response

    def _app(self, service: str) -> Flask:
        with self._lock:
            if service not in self._apps:
                self._apps[service] = create_backend_app(service)  # type: ignore[arg-type] # its literals are no type
            return self._apps[service]


def _check(response: Response, service: str, environ: dict[str, Any]) -> None:
    headers = dict(response.headers)
    # An answer without a body is of that type too: it is Flask's default.
    is_page = headers.get("Content-Type", "").startswith("text/html") and headers.get("Content-Length") != "0"
    broken = response.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    if broken or (is_page and response.status >= HTTPStatus.BAD_REQUEST and environ["REQUEST_METHOD"] != "HEAD"):
        raise _not_implemented(service, environ, f"moto answered {response.status}")


def _own_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    # moto reflects whatever Origin asks: no page may read an answer.
    return [(name, value) for name, value in headers if not name.lower().startswith("access-control-")]


def _not_implemented(service: str, environ: dict[str, Any], reason: str) -> AwsError:
    asked = environ.get("HTTP_X_AMZ_TARGET") or f"{environ['REQUEST_METHOD']} {environ['REQUEST_URI']}"
    _log.warning("%s: %s: %s", service, asked, reason)
    return AwsError("NotImplemented", f"The local AWS does not implement {service}: {asked} ({reason})", 501)


def _backend_of(backends: "BackendDict[Any]", account: str) -> Any:
    """Return an account's backend, with moto's one lock only for the first to ask.

    moto takes the lock several times a request, and with many threads each time costs a turn of the interpreter.
    """
    if account not in backends:
        backends._create_account_specific_backend(account)  # noqa: SLF001 - what moto's own __getitem__ calls
    return dict.__getitem__(backends, account)


def _bucket_permission(bucket: FakeBucket, action: str, resource: str) -> PermissionResult:
    """Judge by the policy's unconditional statements only.

    moto reads "deny all but TLS" as "deny all", since it does not look at conditions in a bucket's policy; here
    loopback stands for TLS.
    """
    if bucket.policy is None:
        return PermissionResult.NEUTRAL
    document = json.loads(bucket.policy)
    statements = document["Statement"] if isinstance(document["Statement"], list) else [document["Statement"]]
    document["Statement"] = [statement for statement in statements if not statement.get("Condition")]
    return IAMPolicy(json.dumps(document)).is_action_permitted(action, resource)
