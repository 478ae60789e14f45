"""Between HTTP and operations: which operation a request calls, its members, and the answer in the same protocol.

Routing, parsing and serialising are moto's, which follow botocore's models for every protocol.
"""

import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from io import BytesIO
from typing import Any
from xml.sax.saxutils import escape

from botocore.exceptions import UnknownServiceError
from moto.core.model import OperationModel, ServiceModel
from moto.core.parse import PROTOCOL_PARSERS
from moto.core.request import Request
from moto.core.routing import ProtocolRouter, get_router_class
from moto.core.serialize import get_serializer_class
from moto.core.utils import get_service_model
from werkzeug.exceptions import NotFound

from deployments.local_aws.protocol import AwsError
from deployments.local_aws.signatures import raw_path
from deployments.local_aws.validation import unknown_members, validate


@dataclass(frozen=True)
class Response:
    """An HTTP answer."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: Iterable[bytes] = ()

    @property
    def status_line(self) -> str:
        """The status as WSGI wants it."""
        return f"{self.status} {HTTPStatus(self.status).phrase}"


@dataclass(frozen=True)
class Call:
    """A request that was routed to an operation."""

    model: OperationModel
    protocol: str
    request: Request
    body: bytes
    uri_members: dict[str, Any]

    @property
    def name(self) -> str:
        """The operation as AWS spells it, such as CreateTrainingJob."""
        return str(self.model.name)


def route(environ: dict[str, Any], body: bytes, service: str) -> Call | None:
    """Return the operation of the service that the request calls, or None."""
    model = get_service_model(service)
    protocol = _protocol(model, environ.get("CONTENT_TYPE", ""))
    environ["RAW_URI"] = raw_path(environ)  # where moto looks for the path before WSGI decoded it
    environ["wsgi.input"] = BytesIO(body)
    request = Request(environ)
    try:
        operation, uri_members = _router(service, protocol).match(request)
    except NotFound:
        return None
    finally:
        environ["wsgi.input"] = BytesIO(body)
    return Call(operation, protocol, request, body, uri_members)


def parse(call: Call) -> dict[str, Any]:
    """Return the members of the request, validated.

    Raises:
        AwsError: SerializationException or ValidationException.
    """
    if call.protocol == "json":
        _check_json(call)
    request = call.request
    parser = PROTOCOL_PARSERS[call.protocol](call.model)
    try:
        members: dict[str, Any] = parser.parse(
            {
                "method": request.method,
                "values": request.args if call.protocol.startswith("rest") else request.values,
                "headers": request.headers,
                "body": call.body,
                "url_path": request.path,
                "url_params": call.uri_members,
            }
        )
    except (ValueError, TypeError, AttributeError) as error:
        code = "SerializationException"
        raise AwsError(code, f"{call.name}: the request has a value of the wrong type: {error}") from error
    shape = call.model.input_shape
    payload = shape.serialization.get("payload") if shape is not None else None
    if shape is not None and payload is not None and shape.members[payload].type_name == "blob":
        members.setdefault(payload, b"")  # an empty body is a body; whether it will do is not ours to say
    validate(members, shape, _validation_code(call))
    return members


def _validation_code(call: Call) -> str:
    if call.model.service_model.service_name == "ec2":
        return "InvalidParameterValue"
    named = "ValidationError" in call.model.service_model.shape_names  # as in sagemaker-runtime
    return "ValidationError" if named or call.protocol == "query" else "ValidationException"


def _check_json(call: Call) -> None:
    code = "SerializationException"
    try:
        document = json.loads(call.body or b"{}")
    except ValueError as error:
        raise AwsError(code, f"{call.name}: the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise AwsError(code, f"{call.name}: the body must be a JSON object")
    unknown = list(unknown_members(document, call.model.input_shape))
    if unknown:
        message = f"{call.name} has no member {', '.join(unknown)} in the service's model that the local AWS knows"
        code = "ValidationException"
        raise AwsError(code, message)


def answer(call: Call, result: dict[str, Any]) -> Response:
    """Return the operation's result in the protocol of the call."""
    serializer_class = get_serializer_class(str(call.model.service_model.service_name), call.protocol)
    serialized = serializer_class(call.model).serialize(result)
    headers = dict(serialized["headers"])
    content_type = _modelled(call.model, result, "header", "Content-Type")
    if content_type is not None:
        headers["Content-Type"] = content_type  # moto's serializer puts its protocol's own over the modelled one
    # Lambda's Invoke says in a member which of its statuses it answers with.
    status = int(_modelled(call.model, result, "statusCode") or serialized["status_code"])
    body = b"" if status == HTTPStatus.NO_CONTENT else serialized["body"]  # the serializer's {} may not follow it
    return Response(
        status,
        [*headers.items(), ("x-amzn-RequestId", str(uuid.uuid4()))],
        [body.encode() if isinstance(body, str) else bytes(body)],
    )


def _modelled(model: OperationModel, result: dict[str, Any], location: str, header: str | None = None) -> Any:
    """Return the member of a result that the model puts in that place, or None."""
    for name, member in (model.output_shape.members if model.output_shape else {}).items():
        place = member.serialization
        if place.get("location") == location and (header is None or place.get("name") == header):
            return result.get(name)
    return None


def refusal(error: AwsError, protocol: str) -> Response:
    """Return the error in the format of the protocol."""
    if protocol in ("json", "rest-json"):
        return _json_refusal(error)
    request_id = str(uuid.uuid4())
    fields = f"<Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message>"
    side = "Sender" if error.status < HTTPStatus.INTERNAL_SERVER_ERROR else "Receiver"
    document = {
        "rest-xml": f"<Error>{fields}<RequestId>{request_id}</RequestId></Error>",
        "ec2": f"<Response><Errors><Error>{fields}</Error></Errors><RequestID>{request_id}</RequestID></Response>",
    }.get(
        protocol,
        f"<ErrorResponse><Error><Type>{side}</Type>{fields}</Error><RequestId>{request_id}</RequestId></ErrorResponse>",
    )
    headers = [("Content-Type", "application/xml"), ("x-amz-request-id", request_id)]
    return Response(error.status, headers, [f'<?xml version="1.0" encoding="UTF-8"?>\n{document}'.encode()])


def _json_refusal(error: AwsError) -> Response:
    # Both spellings: botocore takes either, sagemaker-runtime's models say Message, the others say message.
    document = {"__type": error.code, "message": error.message, "Message": error.message, **error.details}
    headers = [
        ("Content-Type", "application/x-amz-json-1.1"),
        ("x-amzn-ErrorType", error.code),
        ("x-amzn-RequestId", str(uuid.uuid4())),
    ]
    return Response(error.status, headers, [json.dumps(document).encode()])


def error_protocol(environ: dict[str, Any], service: str) -> str:
    """Return the protocol to refuse a request in, even one for a service that is not known."""
    content_type = environ.get("CONTENT_TYPE", "")
    if "HTTP_X_AMZ_TARGET" in environ:
        return "json"
    try:
        return _protocol(get_service_model(service), content_type)
    except UnknownServiceError:
        return "query" if content_type.startswith("application/x-www-form-urlencoded") else "rest-json"


def _protocol(model: ServiceModel, content_type: str) -> str:
    declared = str(model.metadata["protocol"])
    if declared.startswith("rest"):  # the content type is that of the data
        return declared
    if content_type.startswith("application/x-amz-json"):
        return "json"
    if content_type.startswith("application/x-www-form-urlencoded"):
        return "ec2" if declared == "ec2" else "query"
    return declared


@cache
def _router(service: str, protocol: str) -> ProtocolRouter:
    router_class = get_router_class(service, protocol)
    if router_class is None:
        raise NotFound
    return router_class(get_service_model(service))
