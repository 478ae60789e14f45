"""Flow runs that are cancelled as the UI's button does it, retried, or lost: no job is left behind or paid twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import boto3
import httpx
import psutil
import pytest

from deployments.local_aws.worker import WORKER as WORKER_NAME

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
POOL = "sagemaker-flows"
DEPLOYMENT = "train-single-instance"
LONG = {"epochs": 1000, "patience": 1000}
# What `make deploy` runs, for one deployment.
DEPLOY = f"""
prefect work-pool inspect {POOL} >/dev/null 2>&1 || prefect work-pool create --type process {POOL}
SAGEMAKER_FLOWS_CHECKOUT="$PWD" prefect --no-prompt deploy --name {DEPLOYMENT} --prefect-file deployments/prefect.yaml
"""
WORKER = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL]
SERVE = [sys.executable, "-m", "deployments.serve"]

Run = dict[str, Any]
Start = Callable[[list[str]], "subprocess.Popen[str]"]


def eventually(ask: Callable[[], Any], seconds: float = 180, what: Callable[[], object] = lambda: "") -> Any:
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, what()
        time.sleep(0.2)
    return answer


class Patient(httpx.HTTPTransport):
    """Asks again while the Prefect server's database is busy, as Prefect's own client does."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for _ in range(20):
            answer = super().handle_request(request)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            answer.close()
            time.sleep(1)
        return answer


# --- who runs what --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def api(prefect_server: dict[str, str]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=prefect_server["PREFECT_API_URL"], timeout=60, transport=Patient()) as client:
        yield client


@pytest.fixture(scope="module", autouse=True)
def nothing_trains_on(local_aws: Any) -> Iterator[None]:
    """Stop what killed runs have left: it would keep a processor busy, and other files have the same AWS."""
    yield
    sagemaker = boto3.client("sagemaker")
    listed = sagemaker.list_training_jobs(NameContains="flows-", StatusEquals="InProgress")
    for job in listed["TrainingJobSummaries"]:
        with suppress(sagemaker.exceptions.ClientError):  # it has just ended
            sagemaker.stop_training_job(TrainingJobName=job["TrainingJobName"])


@pytest.fixture(scope="module")
def environment(worker: dict[str, str]) -> dict[str, str]:
    """Of whoever runs the flows."""
    return {
        **os.environ,
        **worker,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Start who runs deployments, from another folder than the checkout; it is gone after the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(command: list[str]) -> "subprocess.Popen[str]":
        with (tmp_path / "runner.log").open("w") as log:
            variables = {**os.environ, **environment, "PYTHONPATH": str(ROOT)}
            process = subprocess.Popen(command, cwd=tmp_path, env=variables, stdout=log, stderr=log, text=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        kill_with_children(process)


@pytest.fixture
def ask_for_a_run(environment: dict[str, str], api: httpx.Client, manifest: str) -> Callable[..., str]:
    """Deploy, ask for a run of the training as the form does, and return its id."""
    deploy = ["bash", "-euc", DEPLOY]
    done = subprocess.run(deploy, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    deployment = api.get(f"/deployments/name/{DEPLOYMENT}/{DEPLOYMENT}").raise_for_status().json()["id"]

    def ask(**hyperparameters: Any) -> str:
        parameters = {"manifest": manifest, "hyperparameters": hyperparameters, "fresh": True}
        answer = api.post(f"/deployments/{deployment}/create_flow_run", json={"parameters": parameters})
        return str(answer.raise_for_status().json()["id"])

    return ask


@pytest.fixture
def start_training(start_flow: Any, manifest: str) -> Callable[[], "subprocess.Popen[str]"]:
    """Start a long training as a person does."""
    arguments = [f"--hyperparameters.{name}={value}" for name, value in LONG.items()]
    start: Callable[[], subprocess.Popen[str]] = partial(
        start_flow, "train_single_instance", manifest, *arguments, "--fresh"
    )
    return start


def kill_with_children(process: "subprocess.Popen[str]", but: Sequence[psutil.Process] = ()) -> None:
    """Kill a process and all that it has started, as a machine that is switched off does."""
    if process.poll() is None:
        top = psutil.Process(process.pid)
        for one in (top, *top.children(recursive=True)):
            if one not in but:
                one.kill()
    process.wait()


# --- what is looked at ----------------------------------------------------------------------------------------------


def jobs_of(run_id: str, status: str = "InProgress") -> list[str]:
    """Return the training jobs that a flow run has asked for."""
    sagemaker = boto3.client("sagemaker")
    listed = sagemaker.list_training_jobs(NameContains="flows-", StatusEquals=status)["TrainingJobSummaries"]
    tags = {job["TrainingJobName"]: sagemaker.list_tags(ResourceArn=job["TrainingJobArn"])["Tags"] for job in listed}
    return [name for name, of_job in tags.items() if {"Key": "sagemaker-flows:flow-run", "Value": run_id} in of_job]


def status_of(job: str) -> str:
    described = boto3.client("sagemaker").describe_training_job(TrainingJobName=job)
    return str(described["TrainingJobStatus"])


def read(api: httpx.Client, run_id: str) -> Run:
    run: Run = api.get(f"/flow_runs/{run_id}").raise_for_status().json()
    return run


def over(api: httpx.Client, run_id: str) -> Run | None:
    run = read(api, run_id)
    return run if run["state_type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"} else None


def running(api: httpx.Client, flow: str, since: datetime) -> list[Run]:
    states = {"type": {"any_": ["RUNNING"]}}
    filters = {"state": states, "start_time": {"after_": since.isoformat()}}
    body = {"flows": {"name": {"any_": [flow]}}, "flow_runs": filters}
    runs: list[Run] = api.post("/flow_runs/filter", json=body).raise_for_status().json()
    return runs


def cancel(api: httpx.Client, run_id: str) -> None:
    """Do what the UI's button does."""
    body = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    answer = api.post(f"/flow_runs/{run_id}/set_state", json=body).raise_for_status().json()
    assert answer["status"] == "ACCEPT", answer


def words(api: httpx.Client, run_id: str) -> str:
    """Return what a run has logged, for the text of a failure."""
    body = {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC"}
    return "\n".join(line["message"] for line in api.post("/logs/filter", json=body).raise_for_status().json())


def ends_cancelled(api: httpx.Client, run_id: str, job: str) -> None:
    run = eventually(lambda: over(api, run_id), what=lambda: words(api, run_id))
    assert (run["state_type"], run["state_name"]) == ("CANCELLED", "Cancelled"), words(api, run_id)
    assert eventually(lambda: (status := status_of(job)) != "Stopping" and status) == "Stopped"


# --- by whom it is run ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [WORKER, SERVE], ids=["worker", "serve"])
def test_a_run_of_a_deployment(
    command: list[str], start: Start, ask_for_a_run: Callable[..., str], api: httpx.Client
) -> None:
    run_id = ask_for_a_run(**LONG)
    start(command)
    (job,) = eventually(partial(jobs_of, run_id), what=lambda: words(api, run_id))
    cancel(api, run_id)
    ends_cancelled(api, run_id, job)


def test_a_run_whose_process_cannot_do_it_any_more(
    start: Start, ask_for_a_run: Callable[..., str], api: httpx.Client
) -> None:
    """The worker kills it after half a minute, and stops by the hook what it had started."""
    run_id = ask_for_a_run(**LONG)
    worker = start(WORKER)
    (job,) = eventually(partial(jobs_of, run_id), what=lambda: words(api, run_id))
    for process in processes_of(run_id, worker):
        process.send_signal(signal.SIGSTOP)
    cancel(api, run_id)
    ends_cancelled(api, run_id, job)
    assert f"The training job {job} is being ended, the run is cancelled" in words(api, run_id)


def processes_of(run_id: str, runner: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Return the processes in which a run's flow runs, below the one that looks after them."""
    below = psutil.Process(runner.pid).children(recursive=True)
    return [one for one in below if one.environ().get("PREFECT__FLOW_RUN_ID") == run_id and not one.children()]


def test_a_run_that_a_person_has_started(
    start_training: Callable[[], "subprocess.Popen[str]"], api: httpx.Client
) -> None:
    """Nobody but itself could notice."""
    begun = datetime.now(tz=UTC)
    flow = start_training()
    (run,) = eventually(lambda: running(api, DEPLOYMENT, begun))
    (job,) = eventually(partial(jobs_of, run["id"]), what=lambda: words(api, run["id"]))
    cancel(api, run["id"])
    said = flow.communicate(timeout=120)[1]
    assert flow.returncode == 1, said[-2000:]
    assert said.rstrip().endswith(f"The flow run {run['name']} was cancelled; what it had started is being stopped")
    ends_cancelled(api, run["id"], job)


def test_a_part_of_a_run(start_flow: Any, api: httpx.Client) -> None:
    """Who waits is three flows below the one that is cancelled."""
    hyperparameters, begun = [f"--hyperparameters.{name}={value}" for name, value in LONG.items()], datetime.now(tz=UTC)
    flow = start_flow("operationalize", "--no-tune", *hyperparameters, "--fresh")
    (run,) = eventually(lambda: running(api, "operationalize", begun))
    (part,) = eventually(lambda: running(api, DEPLOYMENT, begun), what=flow.poll)
    (middle,) = running(api, "compare-training", begun)
    (job,) = eventually(partial(jobs_of, part["id"]))
    cancel(api, run["id"])
    said = flow.communicate(timeout=180)[1]
    assert flow.returncode == 1, said[-2000:]
    for one in (run, middle, part):
        ends_cancelled(api, one["id"], job)


# --- retried --------------------------------------------------------------------------------------------------------


@pytest.fixture
def reports_unreadable(local_aws: Any) -> Iterator[Callable[[], object]]:
    """The worker may not read what a training reports, until this is called."""
    iam, name = boto3.client("iam"), {"UserName": WORKER_NAME, "PolicyName": "no-reports"}
    denied = {"Effect": "Deny", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::*/output/output.tar.gz"}
    iam.put_user_policy(**name, PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [denied]}))
    undone: list[object] = []

    def undo() -> None:
        if not undone:
            undone.append(iam.delete_user_policy(**name))

    yield undo
    undo()


def test_a_retried_run_picks_up_where_it_was(
    reports_unreadable: Callable[[], object],
    start: Start,
    ask_for_a_run: Callable[..., str],
    environment: dict[str, str],
    api: httpx.Client,
) -> None:
    """It has failed after its training had completed: that is not paid twice."""
    run_id = ask_for_a_run(epochs=1)
    start(WORKER)
    run = eventually(lambda: over(api, run_id), what=lambda: words(api, run_id))
    assert (run["state_name"], jobs_of(run_id, "Completed")) == ("Failed", [ANY]), words(api, run_id)
    reports_unreadable()
    retry = [sys.executable, "-m", "prefect", "flow-run", "retry", run_id]
    done = subprocess.run(retry, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    eventually(lambda: over(api, run_id) and read(api, run_id)["run_count"] == 2)
    assert read(api, run_id)["state_name"] == "Completed", words(api, run_id)
    by_status = [jobs_of(run_id, status) for status in ("Completed", "InProgress", "Stopped", "Failed")]
    assert by_status == [[ANY], [], [], []]


# --- lost -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [WORKER, SERVE], ids=["worker", "serve"])
def test_a_run_that_loses_only_who_runs_it(
    command: list[str], start: Start, ask_for_a_run: Callable[..., str], api: httpx.Client
) -> None:
    """It ends with the next line that nobody reads any more."""
    run_id = ask_for_a_run(**LONG)
    runner = start(command)
    (job,) = eventually(partial(jobs_of, run_id), what=lambda: words(api, run_id))
    left = processes_of(run_id, runner)
    kill_with_children(runner, but=left)
    try:
        run = eventually(lambda: over(api, run_id), what=lambda: words(api, run_id))
        assert run["state_name"] == "Crashed", words(api, run_id)
        assert eventually(lambda: (status := status_of(job)) != "Stopping" and status) == "Stopped"
    finally:
        for one in left:
            with suppress(psutil.NoSuchProcess):
                one.kill()


@pytest.fixture
def soon_missed(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Hearts beat as often as Prefect lets them, and the automation has less patience than it has by default."""
    monkeypatch.setenv("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
    code = """
from datetime import timedelta
from deployments.automations import apply, crash_lost_runs
apply([crash_lost_runs(timedelta(minutes=1))])
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, timeout=120)


@pytest.mark.usefixtures("soon_missed")
def test_a_run_that_is_lost_with_its_worker(
    start: Start,
    start_training: Callable[[], "subprocess.Popen[str]"],
    ask_for_a_run: Callable[..., str],
    run_flow: Any,
    api: httpx.Client,
) -> None:
    """Nobody is left to say so: its heart stops beating, and the reaper ends what it has left; one that lives stays."""
    begun = datetime.now(tz=UTC)
    start_training()
    (alive,) = eventually(lambda: running(api, DEPLOYMENT, begun))
    (kept,) = eventually(partial(jobs_of, alive["id"]), what=lambda: words(api, alive["id"]))
    run_id = ask_for_a_run(**LONG)
    worker = start(WORKER)
    (job,) = eventually(partial(jobs_of, run_id), what=lambda: words(api, run_id))
    kill_with_children(worker)
    run = eventually(lambda: over(api, run_id), 300)
    assert run["state_name"] == "Crashed"
    assert "No sign of life" in run["state"]["message"]
    said = run_flow("reap_orphans")
    assert f"ended training job {job}: the flow run that waited for it is over" in said.stdout, said.stderr[-2000:]
    assert eventually(lambda: (status := status_of(job)) != "Stopping" and status) == "Stopped"
    assert (read(api, alive["id"])["state_name"], status_of(kept)) == ("Running", "InProgress")
