"""InvokeEndpoint: a request goes to a model server, its answer back, and what happened to CloudWatch."""

import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from deployments.local_aws.account import Account
from deployments.local_aws.connections import Answer
from deployments.local_aws.endpoint_metrics import EndpointMetrics, Invocation
from deployments.local_aws.fleets import LOG_GROUP, Fleet, Instance
from deployments.local_aws.model_server import StartError
from deployments.local_aws.protocol import AwsError

INVOKE_SECONDS = 60.0  # the service's limit for one answer
_CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
_TIMED_OUT = (
    "Your invocation timed out while waiting for a response from container primary. Review the latency metrics for "
    "each container in Amazon CloudWatch, resolve the issue, and try again."
)
_FIRST_ERROR = 400
_FIRST_SERVER_ERROR = 500


class Invocations:
    """The runtime of an account's endpoints.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html

    Args:
        account: Whose they are.
        reserve: Returns a server for an endpoint's request, of a variant if one is named.
        metrics: Learns what happened.
    """

    def __init__(
        self, account: Account, reserve: Callable[[str, str | None], tuple[Fleet, Instance]], metrics: EndpointMetrics
    ) -> None:
        self._account, self._reserve, self._metrics = account, reserve, metrics

    def invoke(self, request: dict[str, Any]) -> dict[str, Any]:
        """Have a server of the endpoint answer."""
        began = time.perf_counter()
        name = request["EndpointName"]
        fleet, instance = self._reserve(name, request.get("TargetVariant"))
        if len(request["Body"]) > fleet.max_body_bytes:
            instance.server.release()
            raise _too_large(fleet.max_body_bytes)
        outcome = _ask(fleet, instance, request)
        self._metrics.record(
            Invocation(
                endpoint=name,
                variant=instance.variant,
                config=fleet.config_name,
                instances=fleet.shared_by(instance.variant),
                status=outcome.status,
                model_seconds=outcome.model_seconds,
                overhead_seconds=time.perf_counter() - began - outcome.model_seconds,
                setup_seconds=outcome.setup_seconds,
            )
        )
        if outcome.answer is None or outcome.status >= _FIRST_ERROR:
            raise self._model_error(name, outcome.status, outcome.words)
        return _result(outcome.answer, instance.variant)

    def _model_error(self, name: str, status: int, words: str) -> AwsError:
        region, account_id, group = self._account.region, self._account.account_id, f"{LOG_GROUP}/{name}"
        side = "client" if _FIRST_ERROR <= status < _FIRST_SERVER_ERROR else "server"
        console = (
            f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#logEventViewer:group={group}"
        )
        message = (
            f'Received {side} error ({status}) from primary with message "{words}". See {console} in account '
            f"{account_id} for more information."
        )
        arn = f"arn:aws:logs:{region}:{account_id}:log-group:{group}"
        details = {"OriginalStatusCode": status, "OriginalMessage": words, "LogStreamArn": arn}
        return AwsError("ModelError", message, 424, details)


@dataclass(frozen=True)
class _Outcome:
    status: int
    answer: Answer | None = None
    problem: str = ""
    model_seconds: float = 0.0
    setup_seconds: float | None = None

    @property
    def words(self) -> str:
        return self.answer.body.decode("utf-8", "replace") if self.answer else self.problem


def _ask(fleet: Fleet, instance: Instance, request: dict[str, Any]) -> _Outcome:
    try:
        setup_seconds = fleet.make_ready(instance)
    except StartError as error:
        return _Outcome(HTTPStatus.INTERNAL_SERVER_ERROR, problem=str(error))
    sent = time.perf_counter()
    outcome = _post(instance, request)
    return replace(outcome, model_seconds=time.perf_counter() - sent, setup_seconds=setup_seconds)


def _post(instance: Instance, request: dict[str, Any]) -> _Outcome:
    try:
        answer = instance.server.invoke(request["Body"], _headers(request), INVOKE_SECONDS)
    except TimeoutError:
        return _Outcome(0, problem=_TIMED_OUT)
    except (OSError, http.client.HTTPException) as error:
        return _Outcome(HTTPStatus.SERVICE_UNAVAILABLE, problem=f"The container did not answer: {error!r}")
    return _Outcome(answer.status, answer)


def _headers(request: dict[str, Any]) -> dict[str, str]:
    named = {
        "Content-Type": request.get("ContentType", "application/octet-stream"),
        "Accept": request.get("Accept", "*/*"),
        _CUSTOM_ATTRIBUTES: request.get("CustomAttributes", ""),
    }
    return {name: value for name, value in named.items() if value}


def _too_large(limit: int) -> AwsError:
    code, message = "413", f"HTTP content length exceeded {limit} bytes."  # as the gateway says it
    return AwsError(code, message, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


def _result(answer: Answer, variant: str) -> dict[str, Any]:
    attributes = answer.header(_CUSTOM_ATTRIBUTES)
    return {
        "Body": answer.body,
        "ContentType": answer.header("Content-Type") or "application/octet-stream",
        "InvokedProductionVariant": variant,
        **({"CustomAttributes": attributes} if attributes else {}),
    }
