"""Containers without Docker: a process group with a clean environment, whose lines go to CloudWatch Logs."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_TAIL_LINES = 40
_MOST_LINE_BYTES = 200_000  # CloudWatch Logs takes 256 kB an event
# What a process needs of this machine to run at all; nothing that could carry a secret.
_INHERITED = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OPENBLAS_CORETYPE")


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
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, on_line: Callable[[str], None]
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
        self.kill()  # what it left behind in the background
        self._reader.join()
        return self._process.returncode

    def terminate(self) -> None:
        """Ask the whole group to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the whole group."""
        self._signal(signal.SIGKILL)

    def stop(self, grace_seconds: float) -> int:
        """Ask it to end, and end it when it has not after the grace; return the exit code."""
        self.terminate()
        code = self.wait(grace_seconds)
        if code is None:
            self.kill()
            code = self.wait()
        return 0 if code is None else code

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _read(self) -> None:
        stream = self._process.stdout
        if stream is None:
            return
        with stream:
            while raw := stream.readline(_MOST_LINE_BYTES):
                # Progress bars rewrite their line: the last state of it is the line.
                line = raw.decode("utf-8", "replace").rstrip("\r\n").rsplit("\r", 1)[-1]
                self._tail.append(line)
                self._on_line(line)
