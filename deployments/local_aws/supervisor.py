"""Runs a container's command, and kills all that came of it as soon as the command, or whoever started it, is gone.

Started as a script, with a pipe as standard input that the local AWS holds open: when the pipe closes, for whatever
reason (kill -9 too), every descendant dies, also those that went into a session of their own, as torchrun's workers
do. The command has a process group of its own, so that it cannot signal the supervisor by signalling its group.
With --linger FD, as on a machine, what the command leaves behind lives on until the pipe closes: then the command's
exit code is written to that descriptor as soon as there is one. It imports little: every container pays.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

_SIGNALLED = 128
_PR_SET_CHILD_SUBREAPER = 36
_KILL_SECONDS = 5.0


class _Supervisor:
    def __init__(self) -> None:
        self._command: subprocess.Popen[bytes] | None = None
        self._asked_to_end = False

    def run(self, command: list[str], tell: int | None = None) -> int:
        _adopt_orphans()
        signal.signal(signal.SIGTERM, lambda *_: self._terminate())
        # What this process inherited on purpose, a listening socket, is the command's too.
        self._command = subprocess.Popen(  # noqa: S603 - a container runs what it is given
            command, stdin=subprocess.DEVNULL, close_fds=False, start_new_session=True
        )
        if self._asked_to_end:
            self._terminate()
        threading.Thread(target=self._die_with_the_starter, daemon=True).start()
        code = self._command.wait()
        code = code if code >= 0 else _SIGNALLED - code
        if tell is not None:
            with contextlib.suppress(BrokenPipeError):  # nobody is left to be told: the orphans are being killed
                os.write(tell, str(code).encode())
            _outlive_orphans()
        self._kill_all()
        return code

    def _terminate(self) -> None:
        self._asked_to_end = True
        self._signal_group(signal.SIGTERM)

    def _die_with_the_starter(self) -> None:
        os.read(0, 1)  # returns at the end of the pipe; nothing is ever written into it
        self._kill_all()
        os._exit(_SIGNALLED + signal.SIGKILL)

    def _kill_all(self) -> None:
        self._signal_group(signal.SIGKILL)
        deadline = time.monotonic() + _KILL_SECONDS
        while (left := _descendants()) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)

    def _signal_group(self, number: signal.Signals) -> None:
        # An ended command has been reaped only when returncode is set: until then the number is still its own.
        if self._command is not None and self._command.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._command.pid, number)


def _adopt_orphans() -> None:
    """Become the parent of whatever loses its own (Linux): so all that the command starts stays below this process."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _outlive_orphans() -> None:
    """Return when the last of what the command left behind has ended."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def _descendants() -> set[int]:
    """Return what lives below this process, as /proc knows it; nothing where there is no /proc."""
    parents: dict[int, int] = {}
    with contextlib.suppress(FileNotFoundError):
        for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - pathlib would be one more import
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 - the same
                state, parent = file.read().rpartition(b")")[2].split()[:2]
                if state != b"Z":
                    parents[int(name)] = int(parent)
    found: set[int] = set()
    newest = {os.getpid()}
    while newest:
        newest = {pid for pid, parent in parents.items() if parent in newest}
        found |= newest
    return found


def _main(arguments: list[str]) -> int:
    if arguments[0] != "--linger":
        return _Supervisor().run(arguments)
    tell = int(arguments[1])
    os.set_inheritable(tell, False)  # noqa: FBT003 - the command must not hold it
    return _Supervisor().run(arguments[2:], tell)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
