"""A container's lines on their way into CloudWatch Logs, in batches, complete and in order."""

import logging
import threading
import time
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

_BATCH_SECONDS = 0.2
_LAST_TRIES = 20
_MOST_EVENTS = 5_000
_MOST_BYTES = 900_000  # the service takes 1 MB a batch
_EVENT_OVERHEAD_BYTES = 26

_log = logging.getLogger(__name__)


class LogStream:
    """One stream of a group; made with its first line. What the service does not take is sent again.

    Args:
        logs: A client of CloudWatch Logs.
        group: The log group's name.
        stream: The log stream's name.
    """

    def __init__(self, logs: Any, group: str, stream: str) -> None:
        self._logs, self._group, self._stream = logs, group, stream
        self._events: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._made = False
        self._writer = threading.Thread(target=self._write, daemon=True, name=f"logs-{stream}")
        self._writer.start()

    def add(self, line: str) -> None:
        """Take a line; CloudWatch Logs refuses empty ones, so they become a blank."""
        with self._lock:
            self._events.append({"timestamp": int(time.time() * 1000), "message": line or " "})

    def close(self) -> None:
        """Return when every line has arrived."""
        self._closing.set()
        self._writer.join()

    def _write(self) -> None:
        while not self._closing.wait(_BATCH_SECONDS):
            self._flush()
        tries = 1
        while not self._flush():
            if tries == _LAST_TRIES:
                _log.error("%s/%s: %d lines could not be written", self._group, self._stream, len(self._events))
                return
            tries += 1
            time.sleep(_BATCH_SECONDS)

    def _flush(self) -> bool:
        """Send what waits; return whether all of it has arrived."""
        with self._lock:
            waiting = list(self._events)
        try:
            while waiting:
                count = self._send(waiting)
                waiting = waiting[count:]
                with self._lock:
                    del self._events[:count]
        except (ClientError, BotoCoreError) as error:
            _log.warning("%s/%s: %s", self._group, self._stream, error)
            self._made = False  # someone may have deleted it
            return False
        return True

    def _send(self, waiting: list[dict[str, Any]]) -> int:
        self._make()
        count = _batch_length(waiting)
        self._logs.put_log_events(logGroupName=self._group, logStreamName=self._stream, logEvents=waiting[:count])
        return count

    def _make(self) -> None:
        if self._made:
            return
        for make, names in (
            (self._logs.create_log_group, {"logGroupName": self._group}),
            (self._logs.create_log_stream, {"logGroupName": self._group, "logStreamName": self._stream}),
        ):
            try:
                make(**names)
            except self._logs.exceptions.ResourceAlreadyExistsException:
                continue
        self._made = True


def _batch_length(events: list[dict[str, Any]]) -> int:
    """Return how many of the first events fit into one request; one at least."""
    size = 0
    for count, event in enumerate(events[:_MOST_EVENTS]):
        size += len(event["message"].encode()) + _EVENT_OVERHEAD_BYTES
        if size > _MOST_BYTES:
            return max(count, 1)
    return min(len(events), _MOST_EVENTS)
