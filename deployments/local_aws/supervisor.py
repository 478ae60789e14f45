"""Runs a container's command, and kills it with all its children as soon as whoever started it is gone.

Started as a script in a process group of its own, with a pipe as standard input that the local AWS holds open: when
the pipe closes, for whatever reason (kill -9 too), the whole group dies. It imports little: every container pays.
"""

import os
import signal
import subprocess
import sys
import threading

_SIGNALLED = 128


def _die_with_the_starter() -> None:
    os.read(0, 1)  # returns at the end of the pipe; nothing is ever written into it
    os.killpg(0, signal.SIGKILL)


def _main(command: list[str]) -> int:
    # A handler, not SIG_IGN: the command must not inherit deafness. The group gets the signal, the command decides.
    signal.signal(signal.SIGTERM, lambda *_: None)
    threading.Thread(target=_die_with_the_starter, daemon=True).start()
    code = subprocess.call(command, stdin=subprocess.DEVNULL)  # noqa: S603 - a container runs what it is given
    return code if code >= 0 else _SIGNALLED - code


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
