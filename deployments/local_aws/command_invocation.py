"""A command on one instance, as the instance's SSM agent runs it: script, output, time limit, outcome."""

import shlex
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from deployments.local_aws.account import Account
from deployments.local_aws.command_output import OutputFile
from deployments.local_aws.command_requests import CommandRequest
from deployments.local_aws.containers import ProcessTree
from deployments.local_aws.instance import Instance
from deployments.local_aws.log_streams import LogStream

STDOUT_CHARACTERS = 24_000
STDERR_CHARACTERS = 8_000
NOT_STARTED = -1
_STOPPED_PREEMPTIVELY = 137
_POLL_SECONDS = 0.05


@dataclass
class Outcome:
    """Where an invocation stands; what it wrote is told when it has ended."""

    status: str = "Pending"
    details: str = "Pending"
    code: int = NOT_STARTED
    started: datetime | None = None
    ended: datetime | None = None
    stdout: str = ""
    stderr: str = ""


class Invocation:
    """Runs a command on an instance, in a thread.

    https://docs.aws.amazon.com/systems-manager/latest/userguide/monitor-commands.html
    """

    def __init__(self, account: Account, request: CommandRequest, instance: Instance) -> None:
        self._account, self.request, self.instance = account, request, instance
        self._shell = instance.shell  # a stopped instance has another when it is started again
        self._outcome = Outcome()
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        # The agent's own folder for a command's files.
        agent = f"/var/lib/amazon/ssm/{instance.id}/document/orchestration/{request.id}/awsrunShellScript"
        self._folder = self._shell.path(f"{agent}/0.awsrunShellScript")
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"command-{request.id}")

    @property
    def outcome(self) -> Outcome:
        """Where it stands now. Of an instance that went away nothing is heard: its command expires."""
        with self._lock:
            outcome = self._outcome
            if outcome.ended is None and datetime.now(UTC) >= self.request.expires:
                outcome.status, outcome.details, outcome.ended = "TimedOut", "DeliveryTimedOut", self.request.expires
            return replace(outcome)

    def output_url(self, name: str) -> str:
        """Return where the whole of stdout or stderr will be; empty without a bucket."""
        if self.request.bucket is None:
            return ""
        prefix = self.request.output_prefix(self.instance.id)
        return f"{self._account.endpoint_url}/{self.request.bucket}/{prefix}/{name}"

    def start(self) -> None:
        """Begin to run it."""
        self._thread.start()

    def join(self) -> None:
        """Return when it has ended, or its instance has."""
        self._thread.join()

    def cancel(self) -> None:
        """Begin to end it; what has ended stays as it is."""
        with self._lock:
            if self._outcome.ended is None:
                self._outcome.status = self._outcome.details = "Cancelling"
                self._cancelled.set()

    def _run(self) -> None:
        try:
            self._execute()
        except OSError:
            if not self._shell.closing.is_set():  # its files go with the instance
                raise
        finally:
            # Whatever went wrong here, the command must not be InProgress for ever.
            if self._outcome.ended is None and not self._shell.closing.is_set():
                self._end("Failed", 1, "", "InternalServerError: the local AWS failed")

    def _execute(self) -> None:
        if self._cancelled.is_set():
            self._end("Cancelled", NOT_STARTED)
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        stdout, stderr = (OutputFile(self._folder / name, self._streams(name)) for name in ("stdout", "stderr"))
        try:
            self._begin()
            process, ended = self._start(stdout, stderr)
            if process is not None:
                ended = self._watch(process, stdout, stderr)
            # The agent ends with its instance, and then reports nothing any more.
            if not self._shell.closing.is_set():
                self._report(ended, process.returncode if process else None, stdout, stderr)
        finally:
            stdout.close()
            stderr.close()

    def _report(self, ended: str, code: int | None, stdout: OutputFile, stderr: OutputFile) -> None:
        """Deliver the output, and say how it ended: by a status, or by what is wrong."""
        status = ended if ended in ("Success", "Cancelled", "ExecutionTimedOut") else "Failed"
        if status == "Failed":
            with stderr.path.open("a", encoding="utf-8") as text:
                text.write(f"failed to run commands: {ended}")
        for file in (stdout, stderr):
            file.follow(ended=True)
            file.close()
        self._upload([stdout, stderr])
        code = {"Cancelled": _STOPPED_PREEMPTIVELY, "ExecutionTimedOut": _STOPPED_PREEMPTIVELY}.get(status, code)
        self._end(status, 1 if code is None else code, stdout.head(STDOUT_CHARACTERS), stderr.head(STDERR_CHARACTERS))

    def _begin(self) -> None:
        with self._lock:
            self._outcome.started = datetime.now(UTC)
            if not self._cancelled.is_set():
                self._outcome.status = self._outcome.details = "InProgress"

    def _start(self, stdout: OutputFile, stderr: OutputFile) -> tuple[ProcessTree | None, str]:
        """Start the script; return its process, or what is wrong."""
        script = self._folder / "_script.sh"
        script.write_text(self.request.script, "utf-8")
        script.chmod(0o700)
        folder = self._shell.path(self.request.working_directory or "/root")
        if not folder.is_dir():
            return None, f"chdir {self.request.working_directory}: no such file or directory"
        variables = {
            **self.instance.variables(),
            "AWS_SSM_INSTANCE_ID": self.instance.id,
            "AWS_SSM_REGION_NAME": self._account.region,
        }
        # sh -c, as the agent: so a first line #!/bin/bash is obeyed.
        command = ["sh", "-c", shlex.quote(str(script))]
        return self._shell.start(command, variables, folder=folder, stdout=stdout.path, stderr=stderr.path), "gone"

    def _watch(self, process: ProcessTree, stdout: OutputFile, stderr: OutputFile) -> str:
        """Return how it ended: a status, or what the agent says of a failure."""
        deadline = time.monotonic() + self.request.execution_seconds
        while process.returncode is None:
            stopped = "Cancelled" if self._cancelled.wait(_POLL_SECONDS) else ""
            if not stopped and time.monotonic() >= deadline:
                stopped = "ExecutionTimedOut"
            if stopped:
                process.kill()
                process.wait()
                return stopped
            stdout.follow()
            stderr.follow()
        return "Success" if process.returncode == 0 else f"exit status {process.returncode}"

    def _streams(self, name: str) -> Callable[[], LogStream] | None:
        group, credentials = self.request.log_group, self.instance.credentials
        if group is None or credentials is None:
            return None
        stream = f"{self.request.id}/{self.instance.id}/aws-runShellScript/{name}"
        return lambda: LogStream(self._account.client_with("logs", credentials), group, stream)

    def _upload(self, files: Sequence[OutputFile]) -> None:
        credentials = self.instance.credentials
        if self.request.bucket is not None and credentials is not None:
            s3 = self._account.client_with("s3", credentials)
            for file in files:
                key = f"{self.request.output_prefix(self.instance.id)}/{file.path.name}"
                file.upload(s3, self.request.bucket, key)

    def _end(self, details: str, code: int, stdout: str = "", stderr: str = "") -> None:
        with self._lock:
            outcome = self._outcome
            if outcome.ended is not None:  # Systems Manager gave it up before
                return
            outcome.status = "TimedOut" if details == "ExecutionTimedOut" else details
            outcome.details = details
            outcome.code, outcome.stdout, outcome.stderr = code, stdout, stderr
            outcome.ended = datetime.now(UTC)
