"""A job's lines are handed over once each, in order, from streams that appear late; trouble never fails a run."""

import time
from collections.abc import Callable
from itertools import count
from typing import Any

import boto3
import pytest

from tasks.aws.logs import LogFollower

pytestmark = pytest.mark.usefixtures("local_aws")
_groups = count()


@pytest.fixture
def group() -> str:
    name = f"/test/logs-{next(_groups)}"
    boto3.client("logs").create_log_group(logGroupName=name)
    return name


def write(group: str, stream: str, *lines: str) -> None:
    logs = boto3.client("logs")
    events = [{"timestamp": int(time.time() * 1000), "message": line} for line in lines]
    logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)


def stream(group: str, name: str) -> str:
    boto3.client("logs").create_log_stream(logGroupName=group, logStreamName=name)
    return name


def follower(group: str, sink: Callable[[str], None], prefix: str = "job/") -> tuple[LogFollower, list[str]]:
    troubles: list[str] = []
    return LogFollower(group, prefix, sink, troubles.append), troubles


def test_each_line_is_handed_over_once_and_in_order(group: str) -> None:
    lines: list[str] = []
    follow, _ = follower(group, lines.append)
    first = stream(group, "job/algo-1")
    write(group, first, "one", "two")
    follow.poll()
    write(group, first, "three")
    follow.poll()
    follow.poll()
    assert lines == ["one", "two", "three"]


def test_streams_that_come_late_are_found(group: str) -> None:
    lines: list[str] = []
    follow, _ = follower(group, lines.append)
    follow.poll()
    write(group, stream(group, "job/algo-1"), "early")
    follow.poll()
    write(group, stream(group, "job/algo-2"), "late")
    follow.poll()
    assert lines == ["early", "late"]


def test_another_jobs_lines_are_not_ours(group: str) -> None:
    lines: list[str] = []
    follow, _ = follower(group, lines.append)
    write(group, stream(group, "job-2/algo-1"), "not ours")
    follow.poll()
    assert lines == []


def test_a_group_that_is_not_there_yet_is_no_trouble() -> None:
    lines: list[str] = []
    follow, troubles = follower("/test/nothing-here", lines.append)
    assert (follow.poll(), troubles) == (0, [])


def test_trouble_is_said_once_and_does_not_fail(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    follow, troubles = follower(group, print)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    follow.poll()
    follow.poll()
    assert len(troubles) == 1
    assert "cannot be read" in troubles[0]


def test_draining_brings_what_was_still_on_its_way(group: str) -> None:
    lines: list[str] = []
    follow, _ = follower(group, lines.append)
    first = stream(group, "job/algo-1")
    late: list[Any] = ["last words"]
    follow.drain(lambda: write(group, first, late.pop()) if late else None)
    assert lines == ["last words"]
    assert follow.tail() == ("last words",)
