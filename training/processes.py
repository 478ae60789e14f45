"""Several processes on one instance: started together, ended together."""

import os
import signal
import socket
import subprocess
import sys
import time
from types import FrameType

from training.cluster import Cluster

_POLL_SECONDS = 0.05
# A rank that hears of another's failure says so and ends by itself; this is how long it has for it.
_GRACE_SECONDS = 5.0
_SIGNALLED = 128


class _Processes:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._running: list[subprocess.Popen[bytes]] = []
        self._signal = 0

    def run(self) -> int:
        """Run this very command once for each local rank; return 0 only when all did."""
        signal.signal(signal.SIGTERM, self._pass_on)
        shared = self._environment()
        for local_rank in range(self._cluster.processes_per_host):
            environ = {**shared, "LOCAL_RANK": str(local_rank)}
            self._running.append(subprocess.Popen(_own_command(), env=environ))  # noqa: S603 - this program itself
        try:
            return self._wait()
        finally:
            self._end_all()

    def _wait(self) -> int:
        while True:
            codes = [process.poll() for process in self._running]
            for local_rank, code in enumerate(codes):
                if code and not self._signal:
                    return self._failed(local_rank, code)
            if None not in codes:
                return _SIGNALLED + self._signal if self._signal else 0
            time.sleep(_POLL_SECONDS)

    def _failed(self, local_rank: int, code: int) -> int:
        if code > 0:
            return code  # it has said why
        name = self._cluster.name_of(self._cluster.rank + local_rank)
        sys.stderr.write(f"error: {name} was ended by {signal.Signals(-code).name}\n")
        return _SIGNALLED - code

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self._signal = number
        for process in self._running:
            process.send_signal(number)

    def _end_all(self) -> None:
        deadline = time.monotonic() + _GRACE_SECONDS
        for process in self._running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _environment(self) -> dict[str, str]:
        """Return what the processes share: where they meet, how many they are, and the processors, not all for each."""
        processes = self._cluster.processes_per_host
        threads = max(1, (os.cpu_count() or 1) // processes)
        return {
            "OMP_NUM_THREADS": str(threads),
            **os.environ,
            "MASTER_ADDR": self._cluster.address,
            "MASTER_PORT": str(self._cluster.port or _free_port()),
            "SM_NUM_GPUS": str(processes),  # or each would count anew
        }


def run_processes(cluster: Cluster) -> int:
    """Run the processes of this instance; when one fails the others end too.

    Returns:
        The exit code: that of the first that failed, 128 and more where a signal ended one.
    """
    return _Processes(cluster).run()


def _own_command() -> list[str]:
    """Return how this process was started, with -m, -u and all."""
    return [sys.executable, *sys.orig_argv[1:]]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
