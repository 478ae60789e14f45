"""Runs a Lambda function's handler in its process, as AWS's Python runtime does: one event at a time, until the end.

Started as a script: SOCKET MARK MEMORY_MB. Events come over the socket and answers go back, each a frame of JSON with
its length before it. What the handler writes goes to stdout and stderr; MARK, alone on a line, says that it was all.
https://docs.aws.amazon.com/lambda/latest/dg/python-handler.html
"""

import importlib
import json
import logging
import os
import resource
import socket
import struct
import sys
import time
import traceback
from contextlib import suppress
from types import TracebackType
from typing import Any

_MOST_RESPONSE_BYTES = 6 * 1024 * 1024 + 100
_OUT_OF_MEMORY = "Runtime.OutOfMemory"


class LambdaContext:
    """What a handler is told of its invocation.

    https://docs.aws.amazon.com/lambda/latest/dg/python-context.html
    """

    identity = None
    client_context = None

    def __init__(self, invocation: dict[str, Any]) -> None:
        self.aws_request_id = invocation["request_id"]
        self.invoked_function_arn = invocation["arn"]
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self._deadline = invocation["deadline"]

    def get_remaining_time_in_millis(self) -> int:
        """Return how many milliseconds are left before the function is ended."""
        return max(int((self._deadline - time.time()) * 1000), 0)


class _Logs(logging.Handler):
    """The handler that Lambda puts on the root logger, with the request's id in every line."""

    request_id = ""

    def emit(self, record: logging.LogRecord) -> None:
        now = time.gmtime(record.created)
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', now)}.{int(record.msecs):03d}Z"
        sys.stdout.write(f"[{record.levelname}]\t{stamp}\t{self.request_id}\t{self.format(record)}\n")


def _main(arguments: list[str]) -> None:
    wire = socket.socket(fileno=int(arguments[0]))
    wire.set_inheritable(False)
    logs = _Logs()
    logging.getLogger().addHandler(logs)
    _limit_memory(int(arguments[2]))
    handler = None
    try:
        handler = _load(os.environ["_HANDLER"])
        _send(wire, {"ready": True})
    except SystemExit:
        raise  # the process ends, as Lambda's does
    except BaseException as error:  # noqa: BLE001 - whatever a module raises while it is imported
        failure = _failure(error, "")
        _write_failure(failure)
        _flush(arguments[1])
        _send(wire, {"error": failure})
        return
    while (invocation := _receive(wire)) is not None:
        logs.request_id = invocation["request_id"]
        answer = _answer(handler, invocation)
        _flush(arguments[1])
        _send(wire, answer)
        if answer.get("error", {}).get("errorType") == _OUT_OF_MEMORY:
            return  # as the process that Lambda kills then


def _limit_memory(megabytes: int) -> None:
    # Of data, and not of addresses: libraries map far more than they use. Enforced by Linux.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (megabytes * 2**20, megabytes * 2**20))


def _load(name: str) -> Any:
    module_name, _, function = name.rpartition(".")
    if not module_name:
        error_type = "Runtime.MalformedHandlerName"
        raise _RuntimeFailure(error_type, f"Bad handler '{name}': not enough values to unpack")
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        error_type = "Runtime.ImportModuleError"
        raise _RuntimeFailure(error_type, f"Unable to import module '{module_name}': {error}") from None
    except SyntaxError as error:
        words = f"Syntax error in module '{module_name}': {error}"
        error_type = "Runtime.UserCodeSyntaxError"
        raise _RuntimeFailure(error_type, words) from None
    if not callable(getattr(module, function, None)):
        error_type = "Runtime.HandlerNotFound"
        raise _RuntimeFailure(error_type, f"Handler '{function}' missing on module '{module_name}'")
    return getattr(module, function)


class _RuntimeFailure(Exception):  # noqa: N818 - a failure that has AWS's name for it
    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type


def _answer(handler: Any, invocation: dict[str, Any]) -> dict[str, Any]:
    try:
        result = handler(json.loads(invocation["event"]), LambdaContext(invocation))
        return {"result": _encoded(result), "memory_mb": _memory_mb()}
    except SystemExit:
        raise  # the process ends, as Lambda's does
    except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its answer
        failure = _failure(error, invocation["request_id"])
        _write_failure(failure)
        return {"error": failure, "memory_mb": _memory_mb()}


def _encoded(result: Any) -> str:
    try:
        text = json.dumps(result, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        error_type = "Runtime.MarshalError"
        raise _RuntimeFailure(error_type, f"Unable to marshal response: {error}") from None
    size = len(text.encode("utf-8", "replace"))
    if size > _MOST_RESPONSE_BYTES:
        limit = f"maximum allowed payload size ({_MOST_RESPONSE_BYTES} bytes)"
        words = f"Response payload size ({size} bytes) exceeded {limit}."
        error_type = "Function.ResponseSizeTooLarge"
        raise _RuntimeFailure(error_type, words)
    return text


def _failure(error: BaseException, request_id: str) -> dict[str, Any]:
    if isinstance(error, _RuntimeFailure):
        return {
            "errorMessage": str(error),
            "errorType": error.error_type,
            "requestId": request_id,
            "stackTrace": [],
        }
    if isinstance(error, MemoryError):
        words = f"RequestId: {request_id} Error: Runtime exited with error: signal: killed"
        return {"errorType": _OUT_OF_MEMORY, "errorMessage": words}
    return {
        "errorMessage": str(error),
        "errorType": type(error).__name__,
        "requestId": request_id,
        "stackTrace": _stack(error.__traceback__),
    }


def _stack(trace: TracebackType | None) -> list[str]:
    """Return the function's own part of a stack."""
    frames = [frame for frame in traceback.extract_tb(trace) if frame.filename != __file__]
    return traceback.format_list([frame for frame in frames if not frame.filename.startswith("<frozen importlib")])


def _write_failure(failure: dict[str, Any]) -> None:
    lines = [f"[ERROR] {failure['errorType']}: {failure['errorMessage']}"]
    if failure.get("stackTrace"):
        lines += ["Traceback (most recent call last):", *(entry.rstrip("\n") for entry in failure["stackTrace"])]
    with suppress(Exception):  # the handler may have closed it
        sys.stdout.write("\n".join(lines) + "\n")


def _flush(mark: str) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the handler may have closed or replaced it
            stream.flush()
    with suppress(OSError):
        os.write(1, f"{mark}\n".encode())


def _memory_mb() -> int:
    # Kilobytes on Linux, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)


def _send(wire: socket.socket, message: dict[str, Any]) -> None:
    body = json.dumps(message).encode()
    wire.sendall(struct.pack(">I", len(body)) + body)


def _receive(wire: socket.socket) -> dict[str, Any] | None:
    """Return the next event; None when there will be no more."""
    head = wire.recv(4, socket.MSG_WAITALL)
    if len(head) < 4:  # noqa: PLR2004 - the length of the length
        return None
    message: dict[str, Any] = json.loads(wire.recv(struct.unpack(">I", head)[0], socket.MSG_WAITALL))
    return message


if __name__ == "__main__":
    _main(sys.argv[1:])
