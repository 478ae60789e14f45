"""The automations, as `make deploy` puts them on a real Prefect server; what they do is tested with the flows."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PREFECT_FILE = ROOT / "deployments" / "prefect.yaml"


@pytest.fixture(scope="module")
def server(new_prefect_server: Any) -> Iterator[dict[str, str]]:
    """A Prefect server of this module; its clients' environment."""
    with new_prefect_server() as environment:
        yield environment


@pytest.fixture(scope="module")
def deployed(server: dict[str, str]) -> dict[str, str]:
    """The server, once it has what an automation may start; its clients' environment."""
    deploy = ["prefect", "--no-prompt", "deploy", "--name", "operationalize", "--prefect-file", str(PREFECT_FILE)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, **server, "PATH": path, "SAGEMAKER_FLOWS_CHECKOUT": str(ROOT)}
    for command in (["prefect", "work-pool", "create", "--type", "process", "sagemaker-flows"], deploy):
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=180
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return server


def apply(environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    variables = {key: value for key, value in os.environ.items() if key != "PREFECT_API_URL"}
    command = [sys.executable, "-m", "deployments.automations"]
    return subprocess.run(
        command, cwd=ROOT, env={**variables, **environment}, capture_output=True, text=True, check=False, timeout=180
    )


def test_the_file_is_the_truth(deployed: dict[str, str]) -> None:
    """However often it is put on the server, and whatever was changed there meanwhile."""
    with httpx.Client(base_url=deployed["PREFECT_API_URL"], timeout=30) as api:

        def on_the_server() -> list[dict[str, Any]]:
            answer: list[dict[str, Any]] = api.post("/automations/filter", json={}).raise_for_status().json()
            return answer

        done = apply(deployed)
        first = on_the_server()
        assert (done.returncode, [f"{one['name']}: on" in done.stdout for one in first]) == (0, [True] * len(first))
        assert "sagemaker-flows: crash lost runs" in [one["name"] for one in first]
        for one in first:
            api.patch(f"/automations/{one['id']}", json={"enabled": not one["enabled"]}).raise_for_status()
        assert apply(deployed).returncode == 0
        again = on_the_server()
    assert {one["id"]: one["enabled"] for one in again} == {one["id"]: one["enabled"] for one in first}


def test_without_a_server_one_sentence_says_so(tmp_path: Path) -> None:
    done = apply({"PREFECT_HOME": str(tmp_path), "PREFECT_API_URL": "http://127.0.0.1:9/api"})
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith("No Prefect server answers at http://127.0.0.1:9/api: ")
