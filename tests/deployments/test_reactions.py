"""What the Prefect server does when something of this project happens: the examples, switched on."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DEPLOY = """
prefect work-pool create --type process sagemaker-flows
SAGEMAKER_FLOWS_CHECKOUT="$PWD" prefect --no-prompt deploy -n operationalize --prefect-file deployments/prefect.yaml
python -m deployments.automations
"""
DATASET = {"source": "s3://pictures/cats", "seed": 7, "valid_fraction": 0.25, "test_fraction": 0.2}


@pytest.fixture(scope="module")
def api(new_prefect_server: Any) -> Iterator[httpx.Client]:
    """A Prefect server with `operationalize` and the automations, those too that are off by themselves."""
    with new_prefect_server() as environment:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(DEPLOY, shell=True, cwd=ROOT, env={**os.environ, **environment, "PATH": path}, check=True)  # noqa: S602
        with httpx.Client(base_url=environment["PREFECT_API_URL"], timeout=30) as client:
            for one in client.post("/automations/filter", json={}).raise_for_status().json():
                client.patch(f"/automations/{one['id']}", json={"enabled": True}).raise_for_status()
            yield client


def tell(api: httpx.Client, event: str, run: str, **payload: Any) -> str:
    """Send an event as `tasks/events.py` does; return its id."""
    identity = str(uuid4())
    resource = {"prefect.resource.id": "sagemaker-flows.thing.it", "sagemaker-flows.run": run}
    told = {"id": identity, "event": f"sagemaker-flows.{event}", "resource": resource, "payload": payload}
    api.post("/events", json=[{**told, "occurred": datetime.now(tz=UTC).isoformat()}]).raise_for_status()
    return identity


def runs(api: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.post("/flow_runs/filter", json={"sort": "EXPECTED_START_TIME_ASC"}).json()
    return found


def await_runs(api: httpx.Client, count: int) -> list[dict[str, Any]]:
    for _ in range(600):
        if len(found := runs(api)) >= count:
            return found
        time.sleep(0.1)
    pytest.fail(f"there are no {count} runs: {runs(api)}")


def test_a_new_version_of_a_dataset_and_a_drift_start_the_journey(api: httpx.Client) -> None:
    """What a journey uploads itself does not: it would start a second one for the same pictures."""
    tell(api, "dataset.uploaded", "part", dataset={**DATASET, "seed": 1})
    tell(api, "dataset.uploaded", "alone", dataset=DATASET)
    (first,) = await_runs(api, 1)
    assert first["parameters"]["dataset"] == DATASET
    tell(api, "endpoint.drifted", "alone", reason="half of the answers are wrong")
    tell(api, "endpoint.drifted", "alone", reason="they still are, an hour later")
    second = await_runs(api, 2)[1]
    assert {name: second["parameters"][name] for name in ("fresh", "live", "keep_endpoints")} == {
        "fresh": True,
        "live": True,
        "keep_endpoints": True,
    }
    tell(api, "dataset.uploaded", "alone", dataset={**DATASET, "seed": 8})  # comes after all the others
    assert [run["parameters"].get("dataset", {}).get("seed") for run in await_runs(api, 3)] == [7, None, 8]
