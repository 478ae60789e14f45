"""Flows as their users run them: commands, against the local AWS and a real Prefect server."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from deployments.prefect_server import running

RunFlow = Callable[..., subprocess.CompletedProcess[str]]
StartFlow = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Prefect server of this session; its clients' environment."""
    with running(tmp_path_factory.mktemp("prefect")) as environment:
        yield environment


@pytest.fixture(scope="session")
def run_flow(local_aws: Any, prefect_server: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> RunFlow:
    """Run `python -m flows.NAME ARGUMENTS…` as the worker; `environment` changes variables, None removes."""
    folder = tmp_path_factory.mktemp("flows")

    def run(
        name: str, *arguments: str, environment: dict[str, str | None] | None = None
    ) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, **local_aws.worker_environment, **prefect_server, **(environment or {})}
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


@pytest.fixture
def start_flow(
    local_aws: Any, prefect_server: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartFlow]:
    """Start `python -m flows.NAME ARGUMENTS…` as the worker, and make sure that it is gone after the test."""
    flows: list[subprocess.Popen[str]] = []

    def start(name: str, *arguments: str) -> "subprocess.Popen[str]":
        flow = subprocess.Popen(
            [sys.executable, "-m", f"flows.{name}", *arguments],
            cwd=tmp_path_factory.mktemp("flow"),
            env={**os.environ, **local_aws.worker_environment, **prefect_server},
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
