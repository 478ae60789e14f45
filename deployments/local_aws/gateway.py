"""The one door of the local AWS: a WSGI application that checks who calls, finds the operation and has it answered."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from http import HTTPStatus
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs

from deployments.local_aws import security, wire
from deployments.local_aws.access_s3 import s3_members
from deployments.local_aws.authorization import Authorization
from deployments.local_aws.console.application import Console
from deployments.local_aws.moto_services import MotoServices, check_s3_request
from deployments.local_aws.principals import Principal
from deployments.local_aws.protocol import AwsError
from deployments.local_aws.services import Catalogue, Service, not_implemented
from deployments.local_aws.signatures import SignatureCheck
from deployments.local_aws.wire import Response

# Of every request but S3's and InvokeEndpoint's; the largest of AWS is CloudWatch Logs' 1 MB.
MAX_BODY_BYTES = 8 * 1024 * 1024

_log = logging.getLogger(__name__)


class Gateway:
    """The application. Whatever is not in the catalogue answers with an error, never with a pretended success.

    Args:
        signatures: Finds out who calls.
        catalogue: What there is to call.
        authorization: Decides whether the caller may; without one, whoever has a key may do everything.
        console: Answers browsers; without one, they are refused as everyone is who does not sign.
    """

    def __init__(
        self,
        signatures: SignatureCheck,
        catalogue: Catalogue,
        authorization: Authorization | None = None,
        console: Console | None = None,
    ) -> None:
        self._signatures, self._authorization, self._console = signatures, authorization, console
        self._services = catalogue.services
        self._moto = MotoServices()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        response = self._respond(environ)
        start_response(response.status_line, response.headers)
        # The answer to HEAD has the headers of GET's and no body.
        return [] if environ["REQUEST_METHOD"] == "HEAD" else response.body

    def _respond(self, environ: dict[str, Any]) -> Response:
        if self._console is not None and self._console.takes(environ):
            return self._console.respond(environ)
        reason = security.refusal(environ)
        if reason is not None:
            return Response(403, [("Content-Type", "text/plain; charset=utf-8")], [f"{reason}\n".encode()])
        service = ""
        try:
            signer = self._signatures.identify(environ)
            service = signer.service
            caller = self._authorization.find(signer.access_key_id) if self._authorization else None
            return self._dispatch(environ, service, caller if caller and not caller.is_administrator else None)
        except AwsError as error:
            return wire.refusal(error, wire.error_protocol(environ, service or _scope_service(environ)))

    def _dispatch(self, environ: dict[str, Any], signing_name: str, restricted: Principal | None) -> Response:
        """Have the request answered; ``restricted`` is a caller to whom not everything is allowed."""
        services = self._services.get(signing_name)
        if services is None:
            operation = _asked_operation(environ)
            raise not_implemented(signing_name, operation)
        if signing_name == "s3":
            check_s3_request(environ)
            if restricted:
                self._authorize_s3(environ, restricted)
            return self._moto.call(str(services[0].moto), environ)
        if not restricted and not any(service.needs_routing for service in services):
            return self._moto.call(str(services[0].moto), environ)
        body = _read_body(environ, max(service.max_body_bytes or MAX_BODY_BYTES for service in services))
        for service in services:
            call = wire.route(environ, body, service.name)
            if call is not None:
                if restricted:
                    self._authorize(service, call, environ, restricted)
                return self._perform(service, call, environ)
        raise not_implemented(signing_name, _asked_operation(environ))

    def _authorize(self, service: Service, call: wire.Call, environ: dict[str, Any], caller: Principal) -> None:
        if self._authorization is not None:
            self._authorization.check(caller, service.name, call.name, wire.parse(call), call.protocol)
            security.fix_operation(environ, call.name, call.protocol)

    def _authorize_s3(self, environ: dict[str, Any], caller: Principal) -> None:
        body = environ["wsgi.input"]
        call = wire.route(environ, b"", "s3")
        environ["wsgi.input"] = body
        if call is None or self._authorization is None:
            service = "s3"
            raise not_implemented(service, _asked_operation(environ))
        members = s3_members(environ, call.uri_members)
        if call.name == "DeleteObjects":  # the only one whose objects are named in its body
            whole = replace(call, body=_read_body(environ, MAX_BODY_BYTES))
            body.seek(0)
            members |= wire.parse(whole)
        self._authorization.check(caller, "s3", call.name, members, call.protocol)

    def _perform(self, service: Service, call: wire.Call, environ: dict[str, Any]) -> Response:
        guard = service.guards.get(call.name)
        if guard is not None:
            guard(wire.parse(call))
        operation = service.operations.get(call.name)
        if operation is not None:
            return wire.answer(call, _run(operation, service.name, call))
        if service.moto is None or not service.moto_has(call.name):
            raise not_implemented(service.name, call.name)
        environ["wsgi.input"] = BytesIO(call.body)
        return self._moto.call(service.moto, environ)


def _run(operation: Any, service: str, call: wire.Call) -> dict[str, Any]:
    request = wire.parse(call)
    try:
        result: dict[str, Any] = operation(request)
    except AwsError:
        raise
    except Exception as error:
        # A defect of ours, told as such; not as 500, which clients repeat though the operation may be half done.
        _log.exception("%s:%s failed", service, call.name)
        code, message = "InternalFailure", f"The local AWS failed at {service}:{call.name}: {error!r}"
        raise AwsError(code, message, HTTPStatus.NOT_IMPLEMENTED) from error
    return result


def _read_body(environ: dict[str, Any], limit: int) -> bytes:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > limit:
        # SageMaker's own words; its answer has no error code, so clients show the status in its place.
        code, message = "413", f"HTTP content length exceeded {limit} bytes."
        raise AwsError(code, message, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    body: bytes = environ["wsgi.input"].read()
    return body


def _asked_operation(environ: dict[str, Any]) -> str:
    target: str | None = environ.get("HTTP_X_AMZ_TARGET")
    if target is not None:
        return target.rpartition(".")[2]
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        form = parse_qs(_read_body(environ, MAX_BODY_BYTES).decode("utf-8", "replace"))
        return form.get("Action", ["?"])[0]
    return f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"


def _scope_service(environ: dict[str, Any]) -> str:
    """Return the service that a refused request says it is for."""
    parts = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].partition(",")[0].split("/")
    return parts[3] if len(parts) > 3 else "s3"  # noqa: PLR2004 - KEY/DATE/REGION/SERVICE/aws4_request
