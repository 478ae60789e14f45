"""Containers without Docker: a command with a clean environment, all of whose processes end with it."""

import contextlib
import io
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_TAIL_LINES = 40
_MOST_LINE_CHARACTERS = 60_000  # CloudWatch Logs takes 256 kB an event, and a character has up to four bytes
_READER_SECONDS = 10.0
_POLL_SECONDS = 0.02
# What a process needs of this machine to run at all; nothing that could carry a secret.
_INHERITED = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "OPENBLAS_CORETYPE",
)


def clean_environment(home: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a container: a home and a scratch folder of its own, and what it is given."""
    scratch = home / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    own = {"HOME": str(home), "TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**inherited, **own, **variables}


class ProcessTree:
    """A running command and all that comes of it.

    Args:
        command: What to run, without a shell.
        environment: All of its environment.
        folder: Its working folder.
        stdout: Where its output goes, as subprocess takes it.
        stderr: Where its error output goes.
        inherited: File descriptors that it gets, by the numbers they have here.
        lingering: Whether what it leaves behind lives on until `kill`, as on a machine; in a container it ends with it.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        *,
        stdout: int | IO[bytes],
        stderr: int | IO[bytes],
        inherited: Sequence[int] = (),
        lingering: bool = False,
    ) -> None:
        reading, writing = os.pipe() if lingering else (-1, -1)
        self._end = open(reading, "rb", buffering=0) if lingering else None  # noqa: PTH123, SIM115 - a descriptor; see wait
        self._code: int | None = None
        self._lock = threading.Lock()
        options = ("--linger", str(writing)) if lingering else ()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - a container runs what it is given
                # -I -S: the supervisor itself needs no site-packages; what it runs has its own interpreter.
                [sys.executable, "-I", "-S", str(_SUPERVISOR), *options, *command],
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                pass_fds=(*inherited, writing) if lingering else inherited,
            )
        finally:
            if lingering:
                os.close(writing)

    @property
    def returncode(self) -> int | None:
        """The exit code, None while it runs; 128 and more when a signal ended it."""
        if self._end is None:
            return self._process.poll()
        with self._lock:
            if self._code is None and select.select([self._end], [], [], 0)[0]:
                text = self._end.read(16)
                self._code = int(text) if text else self._process.wait()  # killed before it could tell
            return self._code

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Wait until all of it has ended; return the exit code, or None when it still runs."""
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None
        self.kill()  # closes the pipe
        code = self.returncode
        if self._end is not None:
            self._end.close()
        return code

    def terminate(self) -> None:
        """Ask its process group to end; the supervisor passes it on."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End all of its processes: the supervisor kills them when its input ends."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()


class Container(ProcessTree):
    """A running command; stdout and stderr are one stream of lines, in the order they were written.

    Args:
        command: What to run, without a shell.
        environment: All of its environment.
        folder: Its working folder.
        on_line: Called with every line, from a thread.
        inherited: File descriptors that it gets, by the numbers they have here.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        on_line: Callable[[str], None],
        inherited: Sequence[int] = (),
    ) -> None:
        super().__init__(
            command, environment, folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, inherited=inherited
        )
        self._on_line = on_line
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._reader = threading.Thread(target=self._read, daemon=True, name=f"container-{self._process.pid}")
        self._reader.start()

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines that it wrote."""
        return tuple(self._tail)

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Wait for its end and its last line; return the exit code, or None when it still runs."""
        code = super().wait(timeout_seconds)
        if code is not None:
            self._reader.join(_READER_SECONDS)
        return code

    def _read(self) -> None:
        if self._process.stdout is None:
            return
        with io.TextIOWrapper(self._process.stdout, "utf-8", errors="replace", newline="\n") as stream:
            while raw := stream.readline(_MOST_LINE_CHARACTERS):
                # Progress bars rewrite their line: the last state of it is the line.
                line = raw.rstrip("\r\n").rsplit("\r", 1)[-1]
                self._tail.append(line)
                self._on_line(line)


def stop_all(containers: Sequence[ProcessTree], kill_at: Callable[[], float]) -> None:
    """Ask containers to end, all at once, and end those that have not at a time of the monotonic clock."""
    for container in containers:
        container.terminate()
    while any(container.returncode is None for container in containers) and time.monotonic() < kill_at():
        time.sleep(_POLL_SECONDS)
    for container in containers:
        container.kill()
    for container in containers:
        container.wait()
