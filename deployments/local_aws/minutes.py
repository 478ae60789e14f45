"""The thread in which every minute ends."""

import threading
import time
from collections.abc import Callable

from deployments.local_aws.clock import Clock

Work = Callable[[float], None]
"""Called with the POSIX time at which a minute ended."""

_LONGEST_SLEEP_SECONDS = 0.05


class Minutes:
    """Does its work as soon as a minute is over; minutes that it misses are not made up for."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="minutes")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Return when the last work is done."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        done = Clock.minute_of(time.time())
        # Short sleeps: the length of a minute may change meanwhile.
        while not self._stopping.wait(min(_LONGEST_SLEEP_SECONDS, Clock.minute_seconds / 10)):
            minute = Clock.minute_of(time.time())
            if minute > done:
                done = minute
                self._work(minute)
