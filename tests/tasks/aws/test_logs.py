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
    return LogFollower(group, prefix, lambda _host, line: sink(line), troubles.append), troubles


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


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("job/algo-1-1760000000", "algo-1"),
        ("job/algo-12", "algo-12"),
        ("AllTraffic/i-0abc", "i-0abc"),
        ("0f0e-command/i-0abc/aws-runShellScript/stdout", "i-0abc"),
    ],
)
def test_a_stream_says_where_it_is_written(group: str, name: str, host: str) -> None:
    said: list[tuple[str, str]] = []
    follow = LogFollower(group, name.split("/", maxsplit=1)[0], lambda *one: said.append(one), print)
    write(group, stream(group, name), "a line")
    follow.poll()
    assert said == [(host, "a line")]
    assert follow.tail() == ("a line",)


def test_last_lines_of_several_hosts_say_which(group: str) -> None:
    follow, _ = follower(group, lambda _line: None)
    write(group, stream(group, "job/algo-1-1760000000"), "all is well")
    write(group, stream(group, "job/algo-2-1760000000"), "out of cheese")
    follow.poll()
    assert sorted(follow.tail()) == ["algo-1: all is well", "algo-2: out of cheese"]


def test_a_line_without_end_is_cut(group: str) -> None:
    lines: list[str] = []
    follow, _ = follower(group, lines.append)
    write(group, stream(group, "job/algo-1"), "x" * 5000)
    follow.poll()
    assert lines == [f"{'x' * 1000}… (4000 more characters)"]
    assert follow.tail() == tuple(lines)
