"""How a rank knows that the others live: one that is lost ends all, within a minute and with the reason.

Every rank shows each second, in the store at the first rank, that it lives, and looks for the others. That finds what
a broken connection does not tell: a machine that vanished, a process that was frozen; and who it was. A collective has
no short timeout of its own, since a rank may rightly be waited for: while it reads more pictures, say. So each rank
judges itself whether it hangs: it does when it neither waits for others nor uses a processor.
"""

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import TracebackType
from typing import Self

from torch.distributed import TCPStore  # type: ignore[attr-defined] # it is there, torch lists it nowhere

from training.cluster import Cluster

_BEAT_SECONDS = 1.0
# After a connection broke: a rank that is silent for that long is the one that is lost.
_SUSPECT_SECONDS = 3.5
_SUSPICION_SECONDS = 6.0
_FAREWELL_SECONDS = 5.0
_BUSY_SHARE = 0.02
_FAILED = "failed"


class Heartbeats:
    """This rank's sign of life, and its eye on the others."""

    def __init__(self, store: TCPStore, cluster: Cluster) -> None:
        self.store, self._cluster = store, cluster
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="heartbeats", daemon=True)
        self._parent = os.getppid()
        self._suspicion = ("", math.inf)
        self._trouble: Callable[[], str | None] = lambda: None
        self._waits = 0
        now = time.monotonic()
        self._beats, self._seen = 0, {rank: ("", now) for rank in range(cluster.size) if rank != cluster.rank}
        self._busy_at, self._used = now, time.process_time()
        self.store.set(_key("beat", cluster.rank), "0")

    def missing(self) -> list[int]:
        """Return the ranks that have not come yet."""
        return [rank for rank in self._seen if not self.store.check([_key("beat", rank)])]

    def note(self, reason: str) -> None:
        """Leave the reason for the others; the first that is left counts."""
        with suppress(RuntimeError):
            self.store.compare_set(_FAILED, "", reason)
            self._part(_FAREWELL_SECONDS)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Tell that this rank waits for others; if that breaks off, the process ends here, with the reason."""
        self._waits += 1
        try:
            yield
        except RuntimeError as error:
            self._suspicion = ((str(error).splitlines() or ["?"])[0], time.monotonic())
            self._thread.join()  # it finds out who is lost, and ends the process
            raise
        finally:
            self._waits -= 1

    def ask_for_trouble(self, trouble: Callable[[], str | None]) -> None:
        """Ask each second, for a connection whose breaking raises nothing, what has happened to it."""
        self._trouble = trouble

    def reason(self) -> str | None:
        """Return why another rank has failed, if one has left word."""
        return self.store.get(_FAILED).decode() if self.store.check([_FAILED]) else None

    def __enter__(self) -> Self:
        self._busy_at = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if error is None:
            self._part(self._cluster.rank_timeout_seconds)
            return
        reason = str(error) or type(error).__name__
        self.note(f"{self._cluster.name_of(self._cluster.rank)}: {reason.splitlines()[0]}")

    def _part(self, patience_seconds: float) -> None:
        """Say goodbye; the first rank keeps the store until all have, so that none takes it for lost."""
        with suppress(RuntimeError):
            self.store.set(_key("bye", self._cluster.rank), "")
            if self._cluster.rank == 0:
                self.store.wait([_key("bye", rank) for rank in self._seen], timedelta(seconds=patience_seconds))

    def _watch(self) -> None:
        try:
            while not self._ended.wait(_BEAT_SECONDS):
                reason = self._look()
                if reason:
                    self._end(reason)
        except RuntimeError:
            if not self._ended.is_set():
                self._end(f"{self._cluster.name_of(0)} is lost: it ended without a word")

    def _look(self) -> str | None:
        """Show that this rank lives; return why the training cannot go on, if so."""
        if os.getppid() != self._parent:
            return "what started this rank is gone"
        self._beats += 1
        self.store.set(_key("beat", self._cluster.rank), str(self._beats))
        self._suspect()
        return self.reason() or self._lost() or self._hanging() or self._broken()

    def _suspect(self) -> None:
        if not self._suspicion[0] and (trouble := self._trouble()):
            self._suspicion = (trouble, time.monotonic())

    def _lost(self) -> str | None:
        now, (suspicion, _) = time.monotonic(), self._suspicion
        limit = _SUSPECT_SECONDS if suspicion else self._cluster.rank_timeout_seconds
        beats = self.store.multi_get([_key("beat", rank) for rank in self._seen])
        for rank, beat in zip(self._seen, (beat.decode() for beat in beats), strict=True):
            if beat != self._seen[rank][0]:
                self._seen[rank] = (beat, now)
        silent = [rank for rank, (_, since) in self._seen.items() if now - since > limit]
        if silent:
            names = ", ".join(map(self._cluster.name_of, silent))
            return f"{names} is lost: no sign of life for {limit:g} s"
        return None

    def _hanging(self) -> str | None:
        now, used = time.monotonic(), time.process_time()
        if self._waits or used - self._used > _BUSY_SHARE * _BEAT_SECONDS:
            self._busy_at = now
        self._used = used
        limit = self._cluster.rank_timeout_seconds
        if now - self._busy_at > limit:
            return f"{self._cluster.name_of(self._cluster.rank)} hangs: it has not computed anything for {limit:g} s"
        return None

    def _broken(self) -> str | None:
        suspicion, since = self._suspicion
        return f"the ranks lost contact: {suspicion}" if time.monotonic() - since > _SUSPICION_SECONDS else None

    def _end(self, reason: str) -> None:
        self.note(reason)
        # The main thread may be in a collective that never returns: nothing else can end it.
        sys.stdout.flush()
        sys.stderr.write(f"error: {reason}\n")
        sys.stderr.flush()
        os._exit(1)


def _key(kind: str, rank: int) -> str:
    return f"{kind}/{rank}"
