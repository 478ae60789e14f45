"""Lambda's execution environments: a process that a version of a function runs in, for one event at a time."""

import json
import math
import platform
import secrets
import socket
import struct
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployments.local_aws.account import Account
from deployments.local_aws.containers import Container, clean_environment
from deployments.local_aws.function_versions import Version
from deployments.local_aws.log_streams import LogStream

PRINCIPAL = "lambda.amazonaws.com"
_RUNTIME = Path(__file__).with_name("function_runtime.py")
_INIT_SECONDS = 10.0  # before it counts as the handler's time
_MOST_FRAME_BYTES = 32 * 1024 * 1024  # a response of 6 MB whose every character is escaped
_LAST_LINES_SECONDS = 2.0


@dataclass(frozen=True)
class Invocation:
    """One event on its way to a handler."""

    event: str
    arn: str
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True)
class Outcome:
    """What came of an invocation."""

    payload: str
    failed: bool
    lines: tuple[str, ...]


class ExecutionEnvironment:
    """A process with a version's handler; made cold, warm after the first event.

    https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html

    Args:
        account: Whose it is.
        version: What it runs.
        folder: Of its own; its /tmp is there.
        provisioned: Whether it was made ahead of its first event.
    """

    def __init__(self, account: Account, version: Version, folder: Path, *, provisioned: bool = False) -> None:
        self.version, self.folder, self.provisioned = version, folder, provisioned
        self.idle_since = time.monotonic()
        self.healthy = True
        self.loaded = False  # whether it can be given events
        self._failure: Mapping[str, Any] | None = None
        self._lines: list[str] = []
        self._mark, self._marked = secrets.token_hex(16), threading.Event()
        credentials = account.assume_as_service(version.role, PRINCIPAL, version.name)
        stream = f"{datetime.now(UTC):%Y/%m/%d}/[{version.number}]{secrets.token_hex(16)}"
        # Lambda writes them with the function's own role.
        self._log = LogStream(account.client_with("logs", credentials), version.log_group, stream)
        variables = {**account.environment(credentials), **self._variables(stream), **version.variables}
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._began = time.monotonic()
            command = [sys.executable, "-P", str(_RUNTIME), str(theirs.fileno()), self._mark, str(version.memory_mb)]
            environment = clean_environment(folder, variables)
            self._container = Container(command, environment, version.code.folder, self._on_line, [theirs.fileno()])
        self._init_seconds: float | None = None  # how long it took, until a REPORT has told

    def start(self) -> None:
        """Return when the handler is loaded, or cannot be: then the first invocation says so."""
        self._add(f"INIT_START Runtime Version: python:{platform.python_version()}")
        deadline = self._began + _INIT_SECONDS + self.version.timeout_seconds
        message = self._receive(deadline)
        self._init_seconds = time.monotonic() - self._began
        if message is None or "error" in message:
            timed_out = time.monotonic() >= deadline
            self.healthy = False
            self._end()
            self._failure = message["error"] if message else self._ended("", timed_out=timed_out)
            return
        self.loaded = True

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.healthy and self._container.returncode is None

    @property
    def failure(self) -> str:
        """Why the handler could not be loaded."""
        return str(self._failure["errorMessage"]) if self._failure else ""

    def invoke(self, invocation: Invocation) -> Outcome:
        """Have the handler answer; an environment that is not healthy afterwards is of no further use."""
        self._lines.clear()
        self._marked.clear()
        self._add(f"START RequestId: {invocation.request_id} Version: {self.version.number}")
        began, memory_mb = time.monotonic(), 0
        if self._failure is None:
            message = self._ask(invocation)
            memory_mb = message.get("memory_mb", 0)
        else:
            message = {"error": {**self._failure, "requestId": invocation.request_id}}
        seconds = time.monotonic() - began
        self._add(f"END RequestId: {invocation.request_id}")
        self._add(self._report(invocation.request_id, seconds, memory_mb))
        failed = "error" in message
        payload = json.dumps(message["error"]) if failed else str(message["result"])
        self.idle_since = time.monotonic()
        return Outcome(payload, failed, tuple(self._lines))

    def close(self) -> None:
        """End it; returns when its last line has arrived."""
        self.healthy = False
        self._end()
        self._log.close()

    def kill(self) -> None:
        """Begin to end it."""
        self.healthy = False
        self._container.kill()

    def _ask(self, invocation: Invocation) -> dict[str, Any]:
        limit = self.version.timeout_seconds
        event = {
            "event": invocation.event,
            "request_id": invocation.request_id,
            "arn": invocation.arn,
            "deadline": time.time() + limit,
        }
        deadline = time.monotonic() + limit
        body = json.dumps(event).encode()
        try:
            self._socket.settimeout(limit)
            self._socket.sendall(struct.pack(">I", len(body)) + body)
            message = self._receive(deadline)
        except OSError:
            message = None
        if message is None:
            self.healthy = False
            timed_out = time.monotonic() >= deadline
            self._end()
            return {"error": self._ended(invocation.request_id, timed_out=timed_out)}
        self._marked.wait(_LAST_LINES_SECONDS)
        if message.get("error", {}).get("errorType") == "Runtime.OutOfMemory":
            self.healthy = False
        return message

    def _ended(self, request_id: str, *, timed_out: bool) -> dict[str, str]:
        """Return the error of a process that did not answer."""
        if timed_out:
            words = f"Task timed out after {self.version.timeout_seconds:.2f} seconds"
            self._add(f"{datetime.now(UTC).isoformat(timespec='milliseconds')[:-6]}Z {request_id} {words}")
            return {"errorType": "Sandbox.Timedout", "errorMessage": f"RequestId: {request_id} Error: {words}"}
        code = self._container.returncode
        how = "without providing a reason" if code == 0 else f"with error: {_exit_words(code or 0)}"
        words = f"RequestId: {request_id} Error: Runtime exited {how}"
        self._add(words)
        return {"errorType": "Runtime.ExitError", "errorMessage": words}

    def _end(self) -> None:
        self._container.kill()
        self._container.wait()
        self._socket.close()

    def _report(self, request_id: str, seconds: float, memory_mb: int) -> str:
        init, self._init_seconds = self._init_seconds, None
        # Provisioned environments are paid for by the hour, their beginning too.
        billed = seconds + (0 if init is None or self.provisioned else init)
        parts = [
            f"REPORT RequestId: {request_id}",
            f"Duration: {seconds * 1000:.2f} ms",
            f"Billed Duration: {math.ceil(billed * 1000)} ms",
            f"Memory Size: {self.version.memory_mb} MB",
            f"Max Memory Used: {memory_mb} MB",
        ]
        if init is not None:
            parts.append(f"Init Duration: {init * 1000:.2f} ms")
        return "\t".join(parts) + "\t"

    def _receive(self, deadline: float) -> dict[str, Any] | None:
        """Return the process's next message; None when it ended or the time is over."""
        try:
            (length,) = struct.unpack(">I", self._read(4, deadline))
            if length > _MOST_FRAME_BYTES:
                return None
            message: dict[str, Any] = json.loads(self._read(length, deadline))
        except (OSError, EOFError, ValueError):
            return None
        return message

    def _read(self, count: int, deadline: float) -> bytes:
        body = bytearray()
        while len(body) < count:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            chunk = self._socket.recv(min(count - len(body), 1 << 20))
            if not chunk:
                raise EOFError
            body += chunk
        return bytes(body)

    def _on_line(self, line: str) -> None:
        if line.endswith(self._mark):
            line = line.removesuffix(self._mark)
            if line:  # one that has no end of its own
                self._add(line)
            self._marked.set()
        else:
            self._add(line)

    def _add(self, line: str) -> None:
        self._lines.append(line)
        self._log.add(line)

    def _variables(self, stream: str) -> dict[str, str]:
        """Return what Lambda sets.

        https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
        """
        version = self.version
        kind = "provisioned-concurrency" if self.provisioned else "on-demand"
        return {
            "_HANDLER": version.handler,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{version.runtime}",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(version.memory_mb),
            "AWS_LAMBDA_FUNCTION_NAME": version.name,
            "AWS_LAMBDA_FUNCTION_VERSION": version.number,
            "AWS_LAMBDA_INITIALIZATION_TYPE": kind,
            "AWS_LAMBDA_LOG_GROUP_NAME": version.log_group,
            "AWS_LAMBDA_LOG_STREAM_NAME": stream,
            "LAMBDA_RUNTIME_DIR": str(_RUNTIME.parent),
            "LAMBDA_TASK_ROOT": str(version.code.folder),
            "PYTHONPATH": str(version.code.folder),
            "TZ": ":UTC",
            # The metadata service of the machine around is none of the function's business.
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def _exit_words(code: int) -> str:
    names = {137: "signal: killed", 139: "signal: segmentation fault", 134: "signal: aborted"}
    return names.get(code, f"exit status {code}")
