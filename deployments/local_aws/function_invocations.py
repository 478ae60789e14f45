"""Lambda's Invoke: at once, later, or only tried."""

import base64
import json
import threading
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from deployments.local_aws.function_environment import Invocation, Outcome
from deployments.local_aws.function_pool import EnvironmentPool
from deployments.local_aws.function_store import Function, FunctionStore, conflict
from deployments.local_aws.function_versions import Version
from deployments.local_aws.protocol import AwsError

# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MOST_PAYLOAD_BYTES = 6 * 1024 * 1024
_MOST_EVENT_BYTES = 1024 * 1024
_LOG_TAIL_BYTES = 4096
_THROTTLED_SECONDS = 1.0


class Invocations:
    """The events of an account's functions.

    https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
    """

    # https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
    retry_seconds: Sequence[float] = (60.0, 120.0)

    def __init__(self, store: FunctionStore, pool: EnvironmentPool) -> None:
        self._store, self._pool = store, pool
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def invoke(self, request: dict[str, Any]) -> dict[str, Any]:
        """Give a function an event, and return what it answers unless nobody waits for that."""
        kind, payload = request.get("InvocationType", "RequestResponse"), request.get("Payload") or b"{}"
        with self._store.lock:
            function, qualifier = self._store.find(request)
            version, arn = function.version(qualifier), function.qualified_arn(qualifier)
        invocation = Invocation(_event(payload, kind), arn)
        _require_active(version)
        if kind == "DryRun":
            return {"StatusCode": HTTPStatus.NO_CONTENT, "Payload": b""}
        if kind == "Event":
            self._later(function, qualifier, invocation)
            return {"StatusCode": HTTPStatus.ACCEPTED, "Payload": b""}
        outcome = self._pool.run(version, invocation, function.reserved)
        return {
            "StatusCode": HTTPStatus.OK,
            "Payload": outcome.payload.encode("utf-8", "replace"),
            "ExecutedVersion": version.number,
            **({"FunctionError": "Unhandled"} if outcome.failed else {}),
            **({"LogResult": _tail(outcome)} if request.get("LogType") == "Tail" else {}),
        }

    def run(self, function: Function, qualifier: str | None, event: str) -> Outcome:
        """Give a function an event of a service's.

        Raises:
            AwsError: TooManyRequestsException, or the version is gone.
        """
        with self._store.lock:
            version, arn = function.version(qualifier), function.qualified_arn(qualifier)
        _require_active(version)
        return self._pool.run(version, Invocation(event, arn), function.reserved)

    def stop(self) -> None:
        """Return when no event waits any more."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _later(self, function: Function, qualifier: str | None, invocation: Invocation) -> None:
        thread = threading.Thread(
            target=self._until_done, args=[function, qualifier, invocation], daemon=True, name="function-event"
        )
        self._threads = [*(running for running in self._threads if running.is_alive()), thread]
        thread.start()

    def _until_done(self, function: Function, qualifier: str | None, invocation: Invocation) -> None:
        """Run an event of which nobody awaits the answer; what fails is tried again, twice."""
        waits = list(self.retry_seconds)
        while not self._stopping.is_set():
            try:
                with self._store.lock:
                    version = function.version(qualifier)
                if not self._pool.run(version, invocation, function.reserved).failed or not waits:
                    return
                self._stopping.wait(waits.pop(0))
            except AwsError as error:
                if error.status != HTTPStatus.TOO_MANY_REQUESTS:
                    return  # the version is gone
                self._stopping.wait(_THROTTLED_SECONDS)


def _event(payload: bytes, kind: str) -> str:
    """Return the text of an event.

    Raises:
        AwsError: It is too large, or no JSON.
    """
    limit = _MOST_EVENT_BYTES if kind == "Event" else MOST_PAYLOAD_BYTES
    if len(payload) > limit:
        code = "RequestTooLargeException"
        message = f"{len(payload)} byte payload is too large for the {kind} invocation type (limit {limit} bytes)"
        raise AwsError(code, message, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"Type": "User"})
    try:
        text = payload.decode()
        json.loads(text)
    except (ValueError, RecursionError) as error:
        code = "InvalidRequestContentException"
        message = f"Could not parse request body into json: {error}"
        raise AwsError(code, message, HTTPStatus.BAD_REQUEST, {"Type": "User"}) from None
    return text


def _require_active(version: Version) -> None:
    if version.is_new and not version.settled:
        message = (
            "The operation cannot be performed at this time. The function is currently in the following state: Pending"
        )
        raise conflict(message)


def _tail(outcome: Outcome) -> str:
    text = "".join(f"{line}\n" for line in outcome.lines).encode("utf-8", "replace")
    return base64.b64encode(text[-_LOG_TAIL_BYTES:]).decode()
