"""A model that misses what is asked of it: kept out of service, or a person decides in the Prefect UI."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# A flow that asks and then goes on, as operationalize does; without the minutes of training before.
SCRIPT = """
import sys
from prefect import flow, task
from tasks.approvals import await_approval
from tasks.contracts import EndpointCompute, Gate, TrainedModel, TrainingReport, TrainingResult
from tasks.contracts import TestEvaluation

@task
def show(approval):
    print("decided:", approval.model_dump_json())

@flow(name="asks")
def asks(gate: Gate) -> None:
    report = TrainingReport.model_construct(test=TestEvaluation.model_construct(accuracy=0.9))
    job = TrainingResult.model_construct(name="flows-train-1", model_s3_uri="s3://bucket/model.tar.gz")
    model = TrainedModel.model_construct(way="EC2", job=job, report=report)
    show(await_approval(gate, model, EndpointCompute(instance_type="ml.m5.large"), "us-east-1"))

asks(Gate.model_validate_json(sys.argv[1]))
"""
Ask = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def ask(prefect_server: dict[str, str]) -> Iterator[Ask]:
    """Start the flow with a gate."""
    flows: list[subprocess.Popen[str]] = []

    def start(**gate: Any) -> "subprocess.Popen[str]":
        flows.append(
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT, json.dumps(gate)],
                cwd=ROOT,
                env={**os.environ, **prefect_server},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return flows[-1]

    yield start
    for flow in flows:
        flow.kill()
        flow.communicate()


def decided(flow: "subprocess.Popen[str]") -> dict[str, Any]:
    stdout, stderr = flow.communicate(timeout=300)
    assert flow.returncode == 0, stderr[-3000:]
    line = next(line for line in stdout.splitlines() if line.startswith("decided: "))
    approval: dict[str, Any] = json.loads(line.removeprefix("decided: "))
    return approval


def newest(api: httpx.Client) -> dict[str, Any]:
    query = {"flows": {"name": {"any_": ["asks"]}}, "sort": "START_TIME_DESC", "limit": 1}
    (run,) = api.post("/flow_runs/filter", json=query).json()
    found: dict[str, Any] = run
    return found


def paused(api: httpx.Client, flow: "subprocess.Popen[str]") -> dict[str, Any]:
    """Wait until the run of a flow is paused, and its form is there."""
    for _ in range(1200):
        assert flow.poll() is None, flow.communicate()[1][-3000:]
        runs = api.post("/flow_runs/filter", json={"flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}}}).json()
        for run in runs:
            keys = run["state"]["state_details"]["run_input_keyset"]
            if api.get(f"/flow_runs/{run['id']}/input/{keys['schema']}").status_code == 200:
                found: dict[str, Any] = run
                return found
        time.sleep(0.1)
    pytest.fail("the run did not pause")


@pytest.mark.parametrize(
    ("gate", "missed"),
    [
        ({"least_accuracy": 0.9, "most_hourly_usd": 1.0}, []),
        ({"least_accuracy": 0.95}, ["90.00% of the test pictures are right, at least 95.00% are asked"]),
        ({"most_hourly_usd": 0.05}, ["1 × ml.m5.large cost $0.1150 an hour, at most $0.0500 is asked"]),
    ],
)
def test_by_itself_the_gate_decides_by_its_thresholds(gate: dict[str, float], missed: list[str], ask: Ask) -> None:
    approval = decided(ask(**gate))
    assert approval == {"granted": not missed, "decided_by": "thresholds", "missed": missed, "note": ""}


@pytest.mark.parametrize("approve", [True, False])
def test_a_person_decides_in_the_form_of_the_paused_run(*, approve: bool, ask: Ask, prefect_api: httpx.Client) -> None:
    flow = ask(least_accuracy=0.95, when_missed="ask")
    run = paused(prefect_api, flow)
    keys = run["state"]["state_details"]["run_input_keyset"]
    form = prefect_api.get(f"/flow_runs/{run['id']}/input/{keys['schema']}").json()
    assert set(form["properties"]) == {"approve", "note"}
    answer = {"approve": approve, "note": "seen"}
    resumed = prefect_api.post(f"/flow_runs/{run['id']}/resume", json={"run_input": answer}).json()
    assert resumed["status"] == "ACCEPT"
    approval = decided(flow)
    assert (approval["granted"], approval["decided_by"], approval["note"]) == (approve, "a person", "seen")


def test_no_answer_in_time_is_a_no_and_the_run_goes_on(ask: Ask, prefect_api: httpx.Client) -> None:
    approval = decided(ask(least_accuracy=0.95, when_missed="ask", answer_within_seconds=10))
    assert (approval["granted"], approval["decided_by"]) == (False, "nobody in time")
    assert newest(prefect_api)["state_type"] == "COMPLETED"


def test_a_model_that_is_refused_is_told_as_an_event(ask: Ask, prefect_api: httpx.Client) -> None:
    decided(ask(least_accuracy=0.99))
    run = newest(prefect_api)["id"]
    query = {
        "filter": {"event": {"name": ["sagemaker-flows.model.refused"]}, "related": {"id": [f"prefect.flow-run.{run}"]}}
    }
    for _ in range(300):
        if events := prefect_api.post("/events/filter", json=query).json()["events"]:
            break
        time.sleep(0.1)
    (event,) = events
    assert event["resource"]["prefect.resource.name"] == "flows-train-1"
    assert event["resource"]["sagemaker-flows.run"] == "alone"
    assert event["payload"]["missed"] == ["90.00% of the test pictures are right, at least 99.00% are asked"]
