"""The last lines of a log group, of all its streams together."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

MOST_LINES = 200
_MOST_STREAMS = 10
_MOST_NAMED_STREAMS = 50  # a job has one for each instance


@dataclass(frozen=True)
class Line:
    """A line of a log; ``source`` is its stream's name, shortened to what tells it from the others."""

    when: datetime
    source: str
    text: str


def last_lines(logs: Any, group: str, prefix: str = "") -> Sequence[Line]:
    """Return the last lines of a group, of the streams whose name begins so; none where there is no such group."""
    # The service does not sort by time and search by prefix at once.
    asked: dict[str, Any] = {"orderBy": "LastEventTime", "descending": True, "limit": _MOST_STREAMS}
    if prefix:
        asked = {"logStreamNamePrefix": prefix, "limit": _MOST_NAMED_STREAMS}
    try:
        streams = logs.describe_log_streams(logGroupName=group, **asked)["logStreams"]
        lines = [line for stream in streams for line in _lines(logs, group, stream["logStreamName"], prefix)]
    except logs.exceptions.ResourceNotFoundException:
        return []
    return sorted(lines, key=lambda line: line.when)[-MOST_LINES:]


def _lines(logs: Any, group: str, stream: str, prefix: str) -> list[Line]:
    answer = logs.get_log_events(logGroupName=group, logStreamName=stream, limit=MOST_LINES, startFromHead=False)
    source = stream.removeprefix(prefix)
    return [
        Line(datetime.fromtimestamp(event["timestamp"] / 1000, UTC), source, event["message"].rstrip("\n"))
        for event in answer["events"]
    ]
