"""The command line, as a user runs it: in a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.slow

LOCAL_AWS = [sys.executable, "-m", "deployments.local_aws"]
# What a user's shell may hold; none of it may reach the command.
USERS_OWN = {
    "AWS_PROFILE": "work",
    "AWS_SESSION_TOKEN": "real",
    "AWS_ACCESS_KEY_ID": "AKIAREAL",
    "AWS_ENDPOINT_URL_S3": "https://s3.amazonaws.com",
    "AWS_REGION": "eu-west-1",
    "HTTP_PROXY": "http://127.0.0.1:9",
}
STARTUP_SECONDS = 60


def run(
    *arguments: str, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LOCAL_AWS, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=STARTUP_SECONDS,
        env={**os.environ, **(environment or {})},
        cwd=cwd,
    )


@contextmanager
def started(*arguments: str, cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*LOCAL_AWS, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_command_runs_against_a_local_aws_of_its_own() -> None:
    script = "import boto3; print(boto3.client('s3').list_buckets()['Buckets'][0]['Name'])"
    finished = run("--administrator", "--", sys.executable, "-c", script, environment=USERS_OWN)
    assert (finished.returncode, finished.stdout) == (0, "sagemaker-flows-123456789012-us-east-1\n"), finished.stderr


def test_a_command_is_the_worker_unless_it_asks_to_be_the_administrator() -> None:
    script = "import boto3; print(boto3.client('sts').get_caller_identity()['Arn'].rpartition('/')[2])"
    assert run("--", sys.executable, "-c", script).stdout == "flows-worker\n"
    assert run("--administrator", "--", sys.executable, "-c", script).stdout == "administrator\n"


def test_the_policy_of_a_run_is_printed_from_its_record(tmp_path: Path) -> None:
    script = "import boto3; boto3.client('cloudformation').describe_stacks(StackName='sagemaker-flows')"
    assert run("--root", str(tmp_path), "--", sys.executable, "-c", script).returncode == 0
    printed = run("policy", "--root", str(tmp_path))
    assert '"cloudformation:DescribeStacks"' in printed.stdout, printed.stderr


def test_the_command_sees_nothing_of_the_users_own_account() -> None:
    finished = run("--", "env", environment=USERS_OWN)
    seen = dict(line.partition("=")[::2] for line in finished.stdout.splitlines())
    assert {name: value for name, value in seen.items() if name.startswith("AWS_")} == {
        "AWS_ENDPOINT_URL": seen["AWS_ENDPOINT_URL"],
        "AWS_ACCESS_KEY_ID": seen["AWS_ACCESS_KEY_ID"],
        "AWS_SECRET_ACCESS_KEY": seen["AWS_SECRET_ACCESS_KEY"],
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    assert seen["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
    assert seen["AWS_ACCESS_KEY_ID"] != USERS_OWN["AWS_ACCESS_KEY_ID"]
    assert seen["SAGEMAKER_FLOWS_POLL_SECONDS"] == "0.5"
    assert "127.0.0.1" in seen["NO_PROXY"]


@pytest.mark.parametrize(("command", "code"), [("exit 7", 7), ("kill -KILL $$", 137)])
def test_the_commands_exit_code_is_ours(command: str, code: int) -> None:
    assert run("--", "sh", "-c", command).returncode == code


def test_a_command_that_does_not_exist_is_named() -> None:
    finished = run("--", "no-such-command")
    assert (finished.returncode, finished.stderr.strip()) == (127, "There is no command no-such-command")


def test_no_command_is_told_before_anything_starts() -> None:
    finished = run("--")
    assert finished.returncode == 2
    assert "no command after --" in finished.stderr


def test_the_commands_files_are_gone_afterwards(tmp_path: Path) -> None:
    environment = {"TMPDIR": str(tmp_path)}
    assert run("--", "true", environment=environment).returncode == 0
    assert not list(tmp_path.iterdir())
    assert tempfile.gettempdir() != str(tmp_path)


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "TERM"), (signal.SIGINT, "INT")])
def test_signals_reach_the_command_which_ends_in_its_own_way(number: signal.Signals, name: str) -> None:
    script = f"trap 'echo cleaned up; exit 3' {name}; echo ready; while :; do sleep 0.1; done"
    with started("--", "sh", "-c", script) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        output, _ = process.communicate(timeout=STARTUP_SECONDS)
    assert (output, process.returncode) == ("cleaned up\n", 3)


def test_serving_prints_exports_that_point_a_shell_at_it(tmp_path: Path) -> None:
    with started(cwd=tmp_path) as process:
        assert process.stderr
        assert "Ctrl-C" in process.stderr.readline()
        exports = tmp_path / ".local_aws" / "environment.sh"
        assert exports.stat().st_mode & 0o777 == 0o600
        shell = f". {exports} && aws sts get-caller-identity --query Account --output text"
        answer = subprocess.run(
            ["sh", "-c", shell],
            check=False,
            capture_output=True,
            text=True,
            timeout=STARTUP_SECONDS,
            env={**os.environ, "AWS_PROFILE": "work"},
        )
        assert answer.stdout == "123456789012\n", answer.stderr
        written = exports.read_text()
        others = tmp_path / ".local_aws" / "administrator.sh"
        assert (others.stat().st_mode & 0o777, others.read_text() != written) == (0o600, True)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=STARTUP_SECONDS)
    assert output == written
    assert process.returncode == 0
    assert not exports.exists()
    assert not others.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serving_ends_soon_after_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    with started("--root", str(tmp_path)) as process:
        assert process.stdout
        exports = [process.stdout.readline() for _ in range(2)]
        url = exports[1].removeprefix("export AWS_ENDPOINT_URL=").strip()
        assert httpx.get(url).status_code == 403
        begun = time.monotonic()
        process.send_signal(number)
        assert process.wait(timeout=STARTUP_SECONDS) == 0
        assert time.monotonic() - begun < 10
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


@pytest.mark.parametrize("command", [[], ["--", "true"]])
def test_a_taken_port_is_one_sentence(tmp_path: Path, command: list[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        finished = run("--port", str(port), "--root", str(tmp_path), *command)
    expected = f"Port {port} is in use: give another --port, or none for a free one"
    assert (finished.returncode, finished.stdout, finished.stderr.strip()) == (1, "", expected)


def test_a_kept_one_is_used_again_and_a_new_one_started_when_it_is_gone(tmp_path: Path) -> None:
    def make_bucket(name: str) -> subprocess.CompletedProcess[str]:
        script = (
            f"import boto3; s3 = boto3.client('s3'); s3.create_bucket(Bucket='{name}'); "
            "print(*(bucket['Name'] for bucket in s3.list_buckets()['Buckets']))"
        )
        return run("--kept", "--administrator", "--", sys.executable, "-c", script, environment=USERS_OWN, cwd=tmp_path)

    with started(cwd=tmp_path) as server:
        assert server.stdout
        while not server.stdout.readline().startswith("export SAGEMAKER_FLOWS_POLL_SECONDS"):
            assert server.poll() is None
        first, second = make_bucket("first"), make_bucket("second")
        server.terminate()
        server.wait(STARTUP_SECONDS)
    third = make_bucket("third")
    assert "kept running" in first.stderr
    assert set(second.stdout.split()) >= {"first", "second"}
    assert "Starting a local AWS" in third.stderr
    assert "first" not in third.stdout
