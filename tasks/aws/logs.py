"""A job's own lines, followed in CloudWatch Logs as they are written; trouble with logs never fails a run."""

import re
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from tasks.aws.clients import client
from tasks.aws.errors import is_code, sentence_for

TRAINING_GROUP = "/aws/sagemaker/TrainingJobs"
ENDPOINT_GROUP = "/aws/sagemaker/Endpoints"
_TAIL_LINES = 50
_MOST_CHARACTERS = 1000
_MOST_DRAINS = 10
_ALGORITHM_HOST = re.compile(r"algo-\d+")


class LogFollower:
    """Hands over every line of a job's streams once, in order per stream.

    Args:
        group: The log group.
        stream_prefix: What the names of the job's streams begin with; one stream per instance.
        sink: Called with where each line was written, algo-1 or an instance's id, and with the line.
        on_trouble: Called once, with a sentence, when the logs cannot be read.
        since: Older lines are left alone: what has a lasting name has a history.
    """

    def __init__(
        self,
        group: str,
        stream_prefix: str,
        sink: Callable[[str, str], None],
        on_trouble: Callable[[str], None],
        *,
        since: datetime | None = None,
    ) -> None:
        self._group, self._stream_prefix, self._sink, self._on_trouble = group, stream_prefix, sink, on_trouble
        self._start: dict[str, Any] = {"startTime": int(1000 * since.timestamp())} if since else {}
        self._tokens: dict[str, str | None] = {}
        self._tail: deque[tuple[str, str]] = deque(maxlen=_TAIL_LINES)
        self._troubled = False

    def tail(self) -> tuple[str, ...]:
        """Return the last lines handed over; those of several hosts begin with which."""
        if len({host_of(stream) for stream in self._tokens}) > 1:
            return tuple(f"{host}: {line}" for host, line in self._tail)
        return tuple(line for _, line in self._tail)

    def poll(self) -> int:
        """Hand over what is new, and return the number of lines."""
        try:
            self._discover_streams()
            return sum(self._read(stream) for stream in self._tokens)
        except (ClientError, BotoCoreError) as error:
            # The group and its streams come with the first line.
            missing = isinstance(error, ClientError) and is_code(error, "ResourceNotFoundException")
            if not missing and not self._troubled:
                self._troubled = True
                self._on_trouble(f"The logs in {self._group} cannot be read: {sentence_for(error)}")
            return 0

    def drain(self, pause: Callable[[], None]) -> None:
        """Hand over what is still on its way after the end: until a look brings nothing new."""
        for _ in range(_MOST_DRAINS):
            if self.poll() == 0:
                pause()
                if self.poll() == 0:
                    return

    def _discover_streams(self) -> None:
        """Look for streams anew each time: those of further instances, and of restarts, come late."""
        pages = (
            client("logs")
            .get_paginator("describe_log_streams")
            .paginate(logGroupName=self._group, logStreamNamePrefix=self._stream_prefix)
        )
        for page in pages:
            for stream in page["logStreams"]:
                self._tokens.setdefault(stream["logStreamName"], None)

    def _read(self, stream: str) -> int:
        lines = 0
        while True:
            place = {"logGroupName": self._group, "logStreamName": stream}
            request: dict[str, Any] = {**place, "startFromHead": True, **self._start}
            token = self._tokens[stream]
            if token:
                request["nextToken"] = token
            answer = client("logs").get_log_events(**request)
            for event in answer["events"]:
                for line in event["message"].splitlines():  # the SSM agent sends several lines as one event
                    self._take(host_of(stream), line)
            lines += len(answer["events"])
            self._tokens[stream] = answer["nextForwardToken"]
            # The same token twice means that there is nothing behind it, yet.
            if answer["nextForwardToken"] == token or not answer["events"]:
                return lines

    def _take(self, host: str, line: str) -> None:
        """Hand a line over; of one without end, what a person reads of it: the stream has it whole."""
        cut = len(line) - _MOST_CHARACTERS
        shown = line if cut <= 0 else f"{line[:_MOST_CHARACTERS]}… ({cut} more characters)"
        self._tail.append((host, shown))
        self._sink(host, shown)


def host_of(stream: str) -> str:
    """Return where a stream is written, which its name says after what it belongs to: algo-1, or an instance's id."""
    place = stream.split("/")[1]
    algorithm = _ALGORITHM_HOST.match(place)  # a time may follow
    return algorithm[0] if algorithm else place
