"""Containers without Docker: a command with a clean environment, all of whose processes end with it."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

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


class Container:
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
        self._on_line = on_line
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._process = subprocess.Popen(  # noqa: S603 - a container runs what it is given
            # -I -S: the supervisor itself needs no site-packages; what it runs has its own interpreter.
            [sys.executable, "-I", "-S", str(_SUPERVISOR), *command],
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=inherited,
        )
        self._reader = threading.Thread(target=self._read, daemon=True, name=f"container-{self._process.pid}")
        self._reader.start()

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines that it wrote."""
        return tuple(self._tail)

    @property
    def returncode(self) -> int | None:
        """The exit code, None while it runs; 128 and more when a signal ended it."""
        return self._process.poll()

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Wait for its end and its last line; return the exit code, or None when it still runs."""
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(_READER_SECONDS)
        self.kill()  # closes the pipe
        return self._process.returncode

    def terminate(self) -> None:
        """Ask its process group to end; the supervisor passes it on."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End all of its processes: the supervisor kills them when its input ends."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _read(self) -> None:
        if self._process.stdout is None:
            return
        with io.TextIOWrapper(self._process.stdout, "utf-8", errors="replace", newline="\n") as stream:
            while raw := stream.readline(_MOST_LINE_CHARACTERS):
                # Progress bars rewrite their line: the last state of it is the line.
                line = raw.rstrip("\r\n").rsplit("\r", 1)[-1]
                self._tail.append(line)
                self._on_line(line)


def stop_all(containers: Sequence[Container], kill_at: Callable[[], float]) -> None:
    """Ask containers to end, all at once, and end those that have not at a time of the monotonic clock."""
    for container in containers:
        container.terminate()
    while any(container.returncode is None for container in containers) and time.monotonic() < kill_at():
        time.sleep(_POLL_SECONDS)
    for container in containers:
        container.kill()
    for container in containers:
        container.wait()
