"""What ranks say to each other. One rank alone says nothing, and never imports torch.distributed."""

import io
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from training.cluster import Cluster
from training.errors import RankError

if TYPE_CHECKING:  # only several ranks import it
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    from training.heartbeats import Heartbeats

_POLL_SECONDS = 0.1
_CONNECT_SECONDS = 2.0
_SMALL = 16_384
# No rank waits that long: heartbeats tell sooner who is lost. It ends what can only be an error of this program.
_DEADLOCK = timedelta(minutes=30)
_LOOPBACK = ("lo", "lo0")


class Ranks:
    """All ranks of a training, as one of them sees them; every method must be called by all, in the same order."""

    def __init__(self, cluster: Cluster, heartbeats: "Heartbeats | None" = None) -> None:
        self.cluster, self.size, self.rank = cluster, cluster.size, cluster.rank
        self._heartbeats = heartbeats

    @property
    def first(self) -> bool:
        """Tell whether this is the one that speaks and writes."""
        return self.rank == 0

    def add_up(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over the ranks, all in one exchange, in the precision of the last.

        Every rank gets the very same bits.
        """
        if self.size == 1:
            return
        if len(tensors) == 1 and tensors[0].is_contiguous():
            self._add_up(tensors[0])
            return
        flat = torch.cat([tensor.reshape(-1).to(tensors[-1].dtype) for tensor in tensors])
        self._add_up(flat)
        for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view(tensor.shape))

    def _add_up(self, tensor: Tensor) -> None:
        from torch import distributed  # noqa: PLC0415 - only several ranks need it

        if tensor.is_cuda or tensor.numel() * self.size > _SMALL:
            with self._waiting():
                distributed.all_reduce(tensor)
            return
        # One message instead of several: gloo needs 0.6 ms for this and 1.0 for all_reduce, and BatchNorm asks often.
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        with self._waiting():
            distributed.all_gather(parts, tensor)
        tensor.copy_(torch.stack(parts).sum(dim=0))

    def gather(self, value: Any) -> list[Any]:
        """Return what each rank gave, in their order; it goes as JSON, so it can do nothing where it arrives."""
        if self.size == 1:
            return [value]
        from torch import distributed  # noqa: PLC0415 - only several ranks need it

        own = _as_tensor(json.dumps(value).encode())
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with self._waiting():
            distributed.all_gather(lengths, torch.tensor([len(own)]))
        longest = int(max(lengths))
        padded = [torch.zeros(longest, dtype=torch.uint8) for _ in lengths]
        own = functional.pad(own, (0, longest - len(own)))
        with self._waiting():
            distributed.all_gather(padded, own)
        return [json.loads(bytes(one[: int(length)].numpy())) for one, length in zip(padded, lengths, strict=True)]

    def share(self, value: Any) -> Any:
        """Return what rank 0 gave: tensors, numbers and text, in dicts and lists; nothing is unpickled."""
        if self.size == 1:
            return value
        from torch import distributed  # noqa: PLC0415 - only several ranks need it

        buffer = io.BytesIO()
        if self.first:
            torch.save(value, buffer)
        length = torch.tensor([buffer.getbuffer().nbytes])
        with self._waiting():
            distributed.broadcast(length, src=0)
        content = _as_tensor(buffer.getvalue()) if self.first else torch.empty(int(length), dtype=torch.uint8)
        with self._waiting():
            distributed.broadcast(content, src=0)
        return (
            value
            if self.first
            else torch.load(io.BytesIO(content.numpy().tobytes()), map_location="cpu", weights_only=True)
        )

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Wait for other ranks; when one is lost meanwhile, this process ends with the reason."""
        assert self._heartbeats is not None  # noqa: S101 - several ranks always have them
        with self._heartbeats.waiting():
            yield


ALONE = Ranks(Cluster())


@contextmanager
def joined(cluster: Cluster) -> Iterator[Ranks]:
    """Meet the other ranks, and part from them when all are done; what ends one early ends all with its reason.

    Raises:
        RankError: A rank did not come in time.
    """
    if cluster.size == 1:
        yield Ranks(cluster)
        return
    from torch import distributed  # noqa: PLC0415 - only several ranks need it

    from training.heartbeats import Heartbeats  # noqa: PLC0415 - the same

    deadline = time.monotonic() + cluster.join_timeout_seconds
    store = _meet(cluster, deadline)
    heartbeats = Heartbeats(store, cluster)
    _await_all(heartbeats, cluster, deadline)
    with heartbeats:
        _form_group(heartbeats, cluster)
        ranks = Ranks(cluster, heartbeats)
        yield ranks
        ranks.gather("done")
    distributed.destroy_process_group()


def _form_group(heartbeats: "Heartbeats", cluster: Cluster) -> None:
    # Much of torch would import it later, and what is imported while there is a group keeps it, with its threads, for
    # good: one of them may abort the process at its end, though all is done.
    import torch.distributed.nn  # noqa: PLC0415 - only several ranks need it
    from torch import distributed  # noqa: PLC0415 - the same

    _name_interface(cluster)
    # A connection of its own: one that waits for another rank must not hold up the heartbeats.
    store = distributed.distributed_c10d.PrefixStore("group", _connected(cluster))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    # Of the ways in which a rank may end for another's sake, ours alone says why.
    os.environ |= {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "0", "TORCH_NCCL_ENABLE_MONITORING": "0"}
    with heartbeats.waiting():
        distributed.init_process_group(
            backend, store=store, rank=cluster.rank, world_size=cluster.size, timeout=_DEADLOCK
        )
    if torch.cuda.is_available():
        heartbeats.ask_for_trouble(_trouble_of_nccl)


def _trouble_of_nccl() -> str | None:
    """Return what nccl came upon: its exchanges are only begun where they are called, so they raise nothing there."""
    from torch import distributed  # noqa: PLC0415 - only several ranks need it

    group = distributed.distributed_c10d._get_default_group()  # noqa: SLF001 - there is no other way
    error = group._get_backend(torch.device("cuda")).get_error()  # noqa: SLF001 - the same
    return None if error.name == "SUCCESS" else f"nccl says {error.name}"


def _meet(cluster: Cluster, deadline: float) -> "TCPStore":
    """Return the store at the meeting point; the first rank keeps it, the others wait until it is there."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # noqa: PLC0415 - only several ranks need it

    timeout = timedelta(seconds=cluster.rank_timeout_seconds)
    try:
        if cluster.rank == 0:
            return TCPStore(
                cluster.address,
                cluster.port,
                is_master=True,
                timeout=timeout,
                wait_for_workers=False,
                master_listen_fd=_listener(cluster),
            )
        _await_listener(cluster, deadline)
        return _connected(cluster)
    except (RuntimeError, OSError) as error:
        msg = f"the ranks cannot meet at {cluster.address}:{cluster.port}: {_first_line(error)}"
        raise RankError(msg) from error


def _connected(cluster: Cluster) -> "TCPStore":
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # noqa: PLC0415 - only several ranks need it

    timeout = timedelta(seconds=cluster.rank_timeout_seconds)
    return TCPStore(cluster.address, cluster.port, timeout=timeout, wait_for_workers=False)


def _listener(cluster: Cluster) -> int:
    """Return a socket that listens for the other ranks: where all are on one machine, for nobody else."""
    loopback = cluster.address == "localhost" or cluster.address.startswith("127.")
    family = socket.AF_INET if loopback or not socket.has_dualstack_ipv6() else socket.AF_INET6
    listener = socket.create_server(
        (cluster.address if loopback else "", cluster.port),
        family=family,
        backlog=cluster.size,
        dualstack_ipv6=family == socket.AF_INET6,
    )
    return listener.detach()


def _await_listener(cluster: Cluster, deadline: float) -> None:
    while True:
        try:
            socket.create_connection((cluster.address, cluster.port), _CONNECT_SECONDS).close()
        except OSError as error:  # a host's name is not known before it is up
            if time.monotonic() >= deadline:
                waited = f"within {cluster.join_timeout_seconds:g} s"
                msg = f"{cluster.name_of(0)} did not come {waited}: {cluster.address}:{cluster.port}: {error}"
                raise RankError(msg) from error
            time.sleep(_POLL_SECONDS)
        else:
            return


def _await_all(heartbeats: "Heartbeats", cluster: Cluster, deadline: float) -> None:
    try:
        while missing := heartbeats.missing():
            if reason := heartbeats.reason():
                raise RankError(reason)
            if time.monotonic() >= deadline:
                names = ", ".join(cluster.name_of(rank) for rank in missing)
                msg = f"{names} did not come within {cluster.join_timeout_seconds:g} s"
                heartbeats.note(msg)
                raise RankError(msg)
            time.sleep(_POLL_SECONDS)
    except RuntimeError as error:
        msg = f"{cluster.name_of(0)} is lost: {_first_line(error)}"
        raise RankError(msg) from error


def _name_interface(cluster: Cluster) -> None:
    """Tell gloo and nccl the network: gloo takes what the host's own name leads to, which is often the wrong one."""
    interface = cluster.interface
    if interface is None and cluster.address.startswith("127."):
        interface = next((name for _, name in socket.if_nameindex() if name in _LOOPBACK), None)
    if interface:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)


def _as_tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
