"""Flows as their users run them: commands, against the local AWS and a real Prefect server."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

# Looking AWS's own images up takes a process 3 s; tests/flows/test_journey.py does.
IMAGES = {"SAGEMAKER_FLOWS_TRAINING_IMAGE": "training:1", "SAGEMAKER_FLOWS_SERVING_IMAGE": "serving:1"}

RunFlow = Callable[..., subprocess.CompletedProcess[str]]
StartFlow = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def prefect_server(new_prefect_server: Any) -> Iterator[dict[str, str]]:
    """A Prefect server of this session; its clients' environment."""
    with new_prefect_server() as environment:
        yield environment


@pytest.fixture(scope="session")
def worker(local_aws: Any, prefect_server: dict[str, str]) -> dict[str, str]:
    """What makes a process the worker of this session's local AWS and Prefect server."""
    return {**local_aws.worker_environment, **prefect_server, **IMAGES}


@pytest.fixture(scope="session")
def run_flow(worker: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> RunFlow:
    """Run `python -m flows.NAME ARGUMENTS…` as the worker; `environment` changes variables, None removes."""
    folder = tmp_path_factory.mktemp("flows")

    def run(
        name: str, *arguments: str, environment: dict[str, str | None] | None = None
    ) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, **worker, **(environment or {})}
        return subprocess.run(
            [sys.executable, "-m", f"flows.{name}", *arguments],
            cwd=folder,
            env={key: value for key, value in variables.items() if value is not None},
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )

    return run


@pytest.fixture(scope="session")
def manifest(run_flow: RunFlow) -> str:
    """The S3 address of the digits."""
    uploaded = run_flow("upload_dataset")
    assert uploaded.returncode == 0, uploaded.stderr[-3000:]
    return uploaded.stdout.strip().splitlines()[-1]


@pytest.fixture
def start_flow(worker: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartFlow]:
    """Start `python -m flows.NAME ARGUMENTS…` as the worker, and make sure that it is gone after the test."""
    flows: list[subprocess.Popen[str]] = []

    def start(name: str, *arguments: str) -> "subprocess.Popen[str]":
        flow = subprocess.Popen(
            [sys.executable, "-m", f"flows.{name}", *arguments],
            cwd=tmp_path_factory.mktemp("flow"),
            env={**os.environ, **worker},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        flows.append(flow)
        return flow

    yield start
    for flow in flows:
        flow.kill()
        flow.communicate()


@pytest.fixture(scope="session")
def prefect_api(prefect_server: dict[str, str]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=prefect_server["PREFECT_API_URL"]) as client:
        yield client


@pytest.fixture(scope="session")
def assert_told(prefect_api: httpx.Client) -> Callable[[str, set[str]], None]:
    """Wait until an event was told of each of these; the server stores what is told a moment later."""

    def until_told(event: str, names: set[str]) -> None:
        query = {"filter": {"event": {"name": [f"sagemaker-flows.{event}"]}}, "limit": 50}
        found: set[str] = set()
        for _ in range(100):
            answer = prefect_api.post("/events/filter", json=query)
            if answer.is_success:  # it is refused while the server's database is busy
                found |= {one["resource"]["prefect.resource.name"] for one in answer.json()["events"]}
            if names <= found:
                return
            time.sleep(0.3)
        pytest.fail(f"{event} was told of {sorted(found)}, and not of {sorted(names - found)}")

    return until_told
