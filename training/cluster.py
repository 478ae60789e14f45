"""Who trains together: the hosts of a job and the processes on each, as SageMaker and the command line say it."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from training.errors import ArgumentError

# Where SageMaker's PyTorch image has its ranks meet too.
_PORT = 7777
_JOIN_SECONDS = 600.0
# Within a minute a job whose rank is lost must have failed, and there is more to do in it than to notice.
_RANK_SECONDS = 40.0
_MOST_PROCESSES = 64
_GPU_SECONDS = 30.0
_REPLICATED = "FullyReplicated"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The ranks of one training, numbered host by host, and which of them this process is.

    `address` and `port` are where they meet; `local_rank` is None in a process that is to start those of its host.
    """

    hosts: tuple[str, ...] = ("localhost",)
    host: str = "localhost"
    processes_per_host: int = 1
    local_rank: int | None = 0
    address: str = "127.0.0.1"
    port: int = 0
    interface: str | None = None
    join_timeout_seconds: float = _JOIN_SECONDS
    rank_timeout_seconds: float = _RANK_SECONDS

    @property
    def size(self) -> int:
        """Return the number of ranks."""
        return len(self.hosts) * self.processes_per_host

    @property
    def rank(self) -> int:
        """Return this process's number; 0 is the one that writes the model."""
        return self.hosts.index(self.host) * self.processes_per_host + (self.local_rank or 0)

    def name_of(self, rank: int) -> str:
        """Return how a rank is called in messages."""
        host, process = divmod(rank, self.processes_per_host)
        return f"rank {rank} ({self.hosts[host]}{f', process {process}' if self.processes_per_host > 1 else ''})"


def read_cluster(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Cluster:
    """Return the cluster that the flags and the environment describe; without any, this process alone.

    MASTER_ADDR and MASTER_PORT say where the ranks meet, as SageMaker's PyTorch image sets them; else the first host.

    Raises:
        ArgumentError: The description contradicts itself.
    """
    hosts, host = _hosts(environ)
    processes = _processes(flags, environ)
    return Cluster(
        hosts=hosts,
        host=host,
        processes_per_host=processes,
        local_rank=_local_rank(processes, environ),
        address=environ.get("MASTER_ADDR") or (hosts[0] if len(hosts) > 1 else "127.0.0.1"),
        port=_number("MASTER_PORT", environ, _PORT if len(hosts) > 1 else 0),
        interface=environ.get("SM_NETWORK_INTERFACE_NAME"),
        join_timeout_seconds=flags.get("join_timeout_seconds", _JOIN_SECONDS),
        rank_timeout_seconds=flags.get("rank_timeout_seconds", _RANK_SECONDS),
    )


def sharded_channels(environ: Mapping[str, str]) -> frozenset[str]:
    """Return the channels of which every host has other files.

    Raises:
        ArgumentError: SM_INPUT_DATA_CONFIG is not JSON.
    """
    channels: dict[str, dict[str, str]] = _json("SM_INPUT_DATA_CONFIG", environ, {})
    return frozenset(
        name for name, one in channels.items() if one.get("S3DistributionType", _REPLICATED) != _REPLICATED
    )


def _hosts(environ: Mapping[str, str]) -> tuple[tuple[str, ...], str]:
    hosts = tuple(map(str, _json("SM_HOSTS", environ, ["localhost"])))
    host = environ.get("SM_CURRENT_HOST") or hosts[0]
    if host not in hosts:
        msg = f"SM_CURRENT_HOST={host} is none of SM_HOSTS: {', '.join(hosts)}"
        raise ArgumentError(msg)
    return hosts, host


def _processes(flags: Mapping[str, Any], environ: Mapping[str, str]) -> int:
    """Return one process for each GPU, and one where there is none; the flag counts more."""
    processes: int = flags.get("processes_per_instance") or max(1, _gpus(environ))
    if not 1 <= processes <= _MOST_PROCESSES:
        msg = f"processes_per_instance={processes} is out of range: it must be at least 1 and at most {_MOST_PROCESSES}"
        raise ArgumentError(msg)
    return processes


def _gpus(environ: Mapping[str, str]) -> int:
    """Return the number of GPUs that torch will see, without importing it: by hand, nobody sets SM_NUM_GPUS."""
    if environ.get("SM_NUM_GPUS"):
        return _number("SM_NUM_GPUS", environ, 0)
    program = shutil.which("nvidia-smi", path=environ.get("PATH", ""))
    if program is None:
        return 0
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=_GPU_SECONDS, check=False)  # noqa: S603 - the driver's own
    except (OSError, subprocess.TimeoutExpired):
        return 0
    gpus = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    visible = environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
    return min(gpus, len(list(takewhile(lambda one: one.strip() not in {"", "-1"}, visible))))


def _local_rank(processes: int, environ: Mapping[str, str]) -> int | None:
    if processes == 1:
        return 0
    if "LOCAL_RANK" not in environ:
        return None
    local_rank = _number("LOCAL_RANK", environ, 0)
    if not 0 <= local_rank < processes:
        msg = f"LOCAL_RANK={local_rank} is none of the {processes} processes of this instance"
        raise ArgumentError(msg)
    return local_rank


def _number(variable: str, environ: Mapping[str, str], default: int) -> int:
    text = environ.get(variable) or str(default)
    if not text.isdecimal():
        msg = f"{variable}={text} is no whole number"
        raise ArgumentError(msg)
    return int(text)


def _json(variable: str, environ: Mapping[str, str], default: Any) -> Any:
    try:
        value = json.loads(environ.get(variable) or json.dumps(default))
    except json.JSONDecodeError as error:
        msg = f"{variable} is not JSON: {error}"
        raise ArgumentError(msg) from error
    if type(value) is not type(default) or (default and not value):
        msg = f"{variable}={json.dumps(value)} is not what SageMaker writes there"
        raise ArgumentError(msg)
    return value
