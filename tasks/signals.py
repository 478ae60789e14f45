"""Signals that wait while something is begun or ended that must not be cut in two."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType, TracebackType
from typing import Self

_HELD = (signal.SIGINT, signal.SIGTERM)
_STDERR = 2
_waiting: list[int] = []


def signal_waits() -> bool:
    """Tell whether a signal has come that is held back: what would only take time had better be left."""
    return bool(_waiting)


class SignalsHeld:
    """Holds Ctrl-C and SIGTERM back, so that there is no moment in which something exists that nobody knows to end.

        with SignalsHeld("the launch of a thing") as signals:
            thing = launch()
            with ended_afterwards(thing), signals.heard():
                use(thing)

    What comes meanwhile takes effect where signals are heard again: in `heard()`, else at the end. None is lost.
    Outside of the main thread, where Python raises no signal, there is nothing to hold.

    Args:
        what: What they wait for, to be told to who presses Ctrl-C.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._released = ExitStack()

    def __enter__(self) -> Self:
        """Hold signals back from here on."""
        if threading.current_thread() is threading.main_thread():
            self._released.callback(_deliver)
            for number in _HELD:
                self._released.callback(signal.signal, number, signal.signal(number, self._remember))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Hear signals again, those too that have come."""
        self._released.__exit__(kind, error, traceback)

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Hear signals for the length of a block."""
        try:
            self._released.close()
            yield
        finally:
            self.__enter__()

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        _waiting.append(number)
        # Logging takes locks, which the code that the signal has interrupted may hold: it would wait for itself.
        sentence = f"{signal.Signals(number).name} has come, and waits for {self._what}\n"
        with suppress(OSError):
            os.write(_STDERR, sentence.encode())


def _deliver() -> None:
    """Let each signal that waits take effect; the exception that one raises does not swallow the others."""
    if _waiting:
        try:
            signal.raise_signal(_waiting.pop(0))
        finally:
            _deliver()
