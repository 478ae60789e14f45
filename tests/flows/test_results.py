"""Results of flows are kept where their user says, as JSON that any process can read, and a retry goes on with them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from tasks.aws.settings import load_settings

pytestmark = pytest.mark.slow

# What a user writes who wants the result of a run: Prefect alone, and the run's id.
READ = """
import sys
from uuid import UUID
from prefect.client.orchestration import get_client

with get_client(sync_client=True) as client:
    step = client.read_flow_run(UUID(sys.argv[1])).state.result()
print(type(step).__module__, type(step).__name__, type(step.result).__name__)
print(type(step).model_validate(step).result.model_dump_json(by_alias=True))
"""
# A journey of two steps, of which the second fails until somebody has mended it.
JOURNEY = """
from pathlib import Path

from prefect import flow

from tasks.aws.errors import FlowsError
from tasks.contracts import PriceRefresh, StepResult
from tasks.reports import report_prices
from tasks.results import kept_as_json, restored


@kept_as_json
@flow
def first() -> StepResult[PriceRefresh]:
    with Path("times").open("a") as times:
        times.write("once more ")
    refresh = PriceRefresh(
        region="us-east-1", as_of="2026-11-23", before=None, listed=12345, changes=(), added=0, gone=()
    )
    return StepResult(result=refresh, sections=(report_prices(refresh),))


@kept_as_json
@flow
def journey() -> StepResult[PriceRefresh]:
    step = first()
    if not Path("mended").exists():
        raise FlowsError("The second step is not mended yet")
    Path("report").write_text(restored(step.sections)[0].markdown)
    return step


if __name__ == "__main__":
    journey()
"""


@pytest.fixture
def environment(worker: dict[str, str]) -> dict[str, str]:
    return {**os.environ, **worker}


def python(environment: dict[str, str], folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def last_run(api: httpx.Client, name: str) -> dict[str, Any]:
    # Not those to come: where the flow is deployed with a schedule, they are known, and later.
    begun = {"start_time": {"is_null_": False}}
    asked = {"flows": {"name": {"any_": [name]}}, "flow_runs": begun, "sort": "START_TIME_DESC", "limit": 1}
    found: list[dict[str, Any]] = api.post("/flow_runs/filter", json=asked).raise_for_status().json()
    return found[0]


def read(environment: dict[str, str], folder: Path, run: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    done = python(environment, folder, "-c", READ, run["id"])
    assert done.returncode == 0, done.stderr[-3000:]
    kind, content = done.stdout.strip().splitlines()[-2:]
    return kind, json.loads(content)


def test_in_a_folder_a_result_is_small_typed_json(
    run_flow: Any,
    manifest: str,
    stage_package: Any,
    prefect_api: httpx.Client,
    environment: dict[str, str],
    *,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "results"
    kept = {"PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true", "PREFECT_LOCAL_STORAGE_PATH": str(folder)}
    deployed = run_flow(
        "deploy_endpoint", stage_package("results", label="3"), "--manifest", manifest, environment=kept
    )
    assert deployed.returncode == 0, deployed.stderr[-3000:]
    # One file: what its tasks came to is with AWS, and they would ask it again.
    (file,) = (path for path in folder.rglob("*") if path.is_file())
    text = file.read_text(encoding="utf-8")
    assert json.loads(text)["step"]["contract"] == "Deployment"
    assert "base64" not in text
    assert len(text) < 10_000
    kind, deployment = read(environment, tmp_path, last_run(prefect_api, "deploy-endpoint"))
    assert kind == "tasks.contracts StepResult Deployment"
    assert deployment["endpoint"]["name"] == deployed.stdout.strip().splitlines()[-1]
    assert [one["answer"]["label"] for one in deployment["answers"]] == ["3"] * 8
    assert set(deployment["answers"][0]["image"]) == {"name", "label"}
    assert run_flow("teardown", "--endpoint", deployment["endpoint"]["name"]).returncode == 0


def test_in_s3_a_result_is_kept_by_a_block_without_a_key_in_it(
    run_flow: Any, prefect_api: httpx.Client, environment: dict[str, str], tmp_path: Path, local_aws: Any
) -> None:
    registered = python(environment, tmp_path, "-m", "deployments.results_block")
    assert registered.returncode == 0, registered.stderr
    exported = dict(line.removeprefix("export ").split("=") for line in registered.stdout.splitlines())
    assert exported["PREFECT_DEFAULT_RESULT_STORAGE_BLOCK"] == "s3-bucket/sagemaker-flows"
    saved = prefect_api.get(
        "/block_types/slug/s3-bucket/block_documents/name/sagemaker-flows", params={"include_secrets": True}
    )
    for secret in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert environment[secret] not in saved.raise_for_status().text
    done = run_flow("reap_orphans", "--dry-run", environment=exported)
    assert done.returncode == 0, done.stderr[-3000:]
    run = last_run(prefect_api, "reap-orphans")
    bucket, key = load_settings().bucket, f"results/{run['state']['data']['storage_key']}"
    body = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    assert json.loads(body)["step"]["contract"] == "ReapResult"
    kind, reaped = read(environment, tmp_path, run)
    assert (kind, reaped["dry_run"]) == ("tasks.contracts StepResult ReapResult", True)
    written = {use.principal for use in local_aws.record.uses if use.resource == f"arn:aws:s3:::{bucket}/{key}"}
    assert written == {"user/flows-worker"}


def test_nothing_is_kept_unless_somebody_says_where(
    run_flow: Any, prefect_api: httpx.Client, prefect_server: dict[str, str]
) -> None:
    storage = Path(prefect_server["PREFECT_HOME"]) / "storage"
    before = set(storage.rglob("*"))  # what other tests' runs have kept
    done = run_flow("teardown", "--dry-run")
    assert done.returncode == 0, done.stderr[-3000:]
    assert last_run(prefect_api, "teardown")["state"]["data"] is None
    assert set(storage.rglob("*")) == before


def test_a_retried_run_goes_on_with_what_is_kept(
    prefect_api: httpx.Client, environment: dict[str, str], tmp_path: Path
) -> None:
    kept = {"PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true", "PREFECT_LOCAL_STORAGE_PATH": str(tmp_path / "results")}
    (tmp_path / "journey_of_two.py").write_text(JOURNEY, encoding="utf-8")
    failed = python({**environment, **kept}, tmp_path, "journey_of_two.py")
    assert "The second step is not mended yet" in failed.stderr
    run = last_run(prefect_api, "journey")
    assert run["state_type"] == "FAILED"
    (tmp_path / "mended").touch()
    retry = ("-m", "prefect", "flow-run", "retry", run["id"], "--entrypoint", "journey_of_two.py:journey")
    retried = python({**environment, **kept}, tmp_path, *retry)
    assert retried.returncode == 0, retried.stdout[-3000:] + retried.stderr[-3000:]
    assert prefect_api.get(f"/flow_runs/{run['id']}").json()["state_type"] == "COMPLETED"
    assert (tmp_path / "times").read_text() == "once more "
    # What was shown is in the report, though the kept result is without it.
    assert "**12345 prices** of us-east-1" in (tmp_path / "report").read_text()
    assert "12345 prices" not in "".join(path.read_text() for path in (tmp_path / "results").rglob("*"))
