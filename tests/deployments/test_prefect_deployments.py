"""The deployments: what the file says, what a Prefect server makes of it, and runs of both kinds (decision 0015)."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

if TYPE_CHECKING:  # it imports Prefect, which takes 2 s
    from deployments.catalogue import Deployment

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deployments" / "prefect.yaml"
POOL = "sagemaker-flows"
NO_FLOWS = {"__init__", "command_line", "steps"}
FLOWS = sorted(path.stem for path in (ROOT / "flows").glob("*.py") if path.stem not in NO_FLOWS)
# What `make deploy` runs.
DEPLOY = f"""
prefect work-pool inspect {POOL} >/dev/null 2>&1 || prefect work-pool create --type process {POOL}
SAGEMAKER_FLOWS_CHECKOUT="$PWD" prefect --no-prompt deploy --all --prefect-file deployments/prefect.yaml
"""

Run = dict[str, Any]


@pytest.fixture(scope="module")
def by_flow() -> dict[str, list["Deployment"]]:
    """The deployments of each flow's file."""
    from deployments.catalogue import load_deployments

    found: dict[str, list[Deployment]] = {}
    for deployment in load_deployments():
        found.setdefault(deployment.entrypoint, []).append(deployment)
    return found


def definitions() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return dict(content["definitions"])


# --- what the file says ---------------------------------------------------------------------------------------------


def test_every_flow_has_exactly_one_deployment(by_flow: dict[str, list["Deployment"]]) -> None:
    assert sorted(by_flow) == [f"flows/{name}.py:{name}" for name in FLOWS]
    assert {entrypoint: len(found) for entrypoint, found in by_flow.items() if len(found) > 1} == {}


def test_prefect_reads_what_we_read(by_flow: dict[str, list["Deployment"]]) -> None:
    """Prefect skips a file that it cannot read, with a warning, and deploys nothing."""
    from prefect.cli.deploy._models import PrefectYamlModel

    read = PrefectYamlModel.model_validate(yaml.safe_load(FILE.read_text(encoding="utf-8")))
    assert [one.entrypoint for one in read.deployments] == list(by_flow)
    assert read.pull == definitions()["checkout"]


@pytest.mark.parametrize("name", FLOWS)
def test_a_deployment_fits_its_flow(name: str, by_flow: dict[str, list["Deployment"]]) -> None:
    """`prefect deploy` takes a flow that cannot be imported, and a worker would be the first to say so."""
    from prefect.flows import load_flow_from_entrypoint
    from prefect.utilities.callables import parameter_schema
    from prefect.utilities.schema_tools import validate

    (deployment,) = by_flow[f"flows/{name}.py:{name}"]
    flow = load_flow_from_entrypoint(str(ROOT / deployment.entrypoint), use_placeholder_flow=False)
    schema = parameter_schema(flow).model_dump()
    assert deployment.name == flow.name
    for parameters in (deployment.parameters, *(one.parameters for one in deployment.schedules)):
        assert set(parameters) <= set(schema["properties"])
        validate(parameters, schema, raise_on_error=True, ignore_required=True)
    for schedule in deployment.schedules:  # nobody is there to fill in what is missing
        flow.validate_parameters({**deployment.parameters, **schedule.parameters})


def test_the_version_is_the_projects(by_flow: dict[str, list["Deployment"]]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {one.version for found in by_flow.values() for one in found} == {project["version"]}


def test_nothing_that_costs_starts_by_one_click_or_by_itself(by_flow: dict[str, list["Deployment"]]) -> None:
    every = {one.name: one for found in by_flow.values() for one in found}
    assert every["teardown"].parameters["dry_run"] is True
    assert [one.active for one in every["operationalize"].schedules] == [False]
    active = {name for name, one in every.items() if any(s.active for s in one.schedules)}
    assert active == {"reap-orphans", "refresh-prices"}


@pytest.mark.parametrize("kind", ["process", "ecs"])
def test_job_variables_fit_the_work_pool(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other pool is a template that nobody deploys until the day it is wanted."""
    from prefect.utilities.schema_tools import validate
    from prefect.utilities.templating import apply_values
    from prefect.workers.process import ProcessWorker
    from prefect_aws.workers.ecs_worker import ECSWorker

    worker = {"process": ProcessWorker, "ecs": ECSWorker}[kind]
    for name in ("IMAGE", "CLUSTER", "TASK_ROLE_ARN", "EXECUTION_ROLE_ARN"):
        monkeypatch.setenv(f"SAGEMAKER_FLOWS_{name}", f"our-{name.lower()}")
    variables = apply_values(definitions()[kind]["job_variables"], dict(os.environ))
    schema = worker.get_default_base_job_template()["variables"]
    validate(variables, schema, raise_on_error=True)
    assert set(variables) <= set(schema["properties"])
    template, no_client = worker.get_default_base_job_template(), object()  # only blocks would need one
    made = worker.job_configuration.from_template_and_values(template, variables, client=no_client)
    configuration = asyncio.run(made)
    assert configuration.env["PYTHONUNBUFFERED"] == "1"
    if kind == "ecs":
        container = configuration.task_definition["containerDefinitions"][0]
        assert (container["image"], configuration.task_definition["cpu"]) == ("our-image", 1024)
        assert configuration.task_definition["executionRoleArn"] == "our-execution_role_arn"
        assert configuration.task_run_request["overrides"]["taskRoleArn"] == "our-task_role_arn"


def test_code_comes_from_a_checkout_or_is_cloned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.utilities.importtools import import_object
    from prefect.utilities.templating import apply_values

    repository = tmp_path / "repository"
    git = partial(subprocess.run, cwd=repository, check=True, capture_output=True)
    repository.mkdir()
    (repository / "flows.txt").write_text("flows")
    git(["git", "init", "--quiet"])
    git(["git", "add", "."])
    git(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "--message", "flows"])
    monkeypatch.setenv("SAGEMAKER_FLOWS_CHECKOUT", str(repository))
    monkeypatch.setenv("SAGEMAKER_FLOWS_REPOSITORY", repository.as_uri())
    monkeypatch.delenv("SAGEMAKER_FLOWS_COMMIT", raising=False)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    monkeypatch.chdir(workspace)
    for source in ("clone", "checkout"):  # the second one changes the folder
        ((step, inputs),) = definitions()[source][0].items()
        output = import_object(step)(**apply_values(inputs, dict(os.environ)))
        assert (workspace / output["directory"] / "flows.txt").read_text() == "flows"


# --- the command ----------------------------------------------------------------------------------------------------


def serve_command(*arguments: str, environment: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    variables = {key: value for key, value in os.environ.items() if key != "PREFECT_API_URL"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**variables, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_help_does_not_wait_for_prefect() -> None:
    done = serve_command("-X", "importtime", "-m", "deployments.serve", "--help")
    assert (done.returncode, "--limit" in done.stdout) == (0, True)
    assert "prefect" not in done.stderr


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ({"PREFECT_API_URL": "http://127.0.0.1:9/api"}, "No Prefect server answers at http://127.0.0.1:9/api: "),
        ({}, "No Prefect server is named: "),
    ],
)
def test_without_a_server_one_sentence_says_so(url: dict[str, str], sentence: str, tmp_path: Path) -> None:
    """A server of Prefect's own would be started otherwise, where nobody could start a run."""
    done = serve_command("-m", "deployments.serve", environment={"PREFECT_HOME": str(tmp_path), **url})
    assert done.returncode == 1
    assert done.stderr.startswith(sentence)
    assert len(done.stderr.splitlines()) == 1


# --- a real server --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(new_prefect_server: Any) -> Iterator[dict[str, str]]:
    """A Prefect server of this module; its clients' environment."""
    with new_prefect_server() as environment:
        yield environment


@pytest.fixture(scope="module")
def api(server: dict[str, str]) -> Iterator[httpx.Client]:
    """The server, once all has been deployed to it."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    deploy = ["bash", "-euc", DEPLOY]
    environment = {**os.environ, **server, "PATH": path}
    done = subprocess.run(deploy, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    with httpx.Client(base_url=server["PREFECT_API_URL"], timeout=30) as client:
        yield client


@pytest.fixture
def worker_environment(local_aws: Any, server: dict[str, str]) -> dict[str, str]:
    """Of whoever runs the flows: this server, and the local AWS with the worker's rights."""
    return {
        **os.environ,
        **local_aws.worker_environment,
        **server,
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
    }


def eventually(ask: Callable[[], Any], seconds: float, what: Callable[[], str] = lambda: "") -> Any:
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, what()
        time.sleep(0.2)
    return answer


def deployed(api: httpx.Client, name: str) -> Run:
    answer: Run = api.get(f"/deployments/name/{name}/{name}").raise_for_status().json()
    return answer


def ask_for_a_run(api: httpx.Client) -> str:
    """Ask for a run of teardown as the UI's "Quick run" does: what it would take down, which is quick to say."""
    answer = api.post(f"/deployments/{deployed(api, 'teardown')['id']}/create_flow_run", json={})
    return str(answer.raise_for_status().json()["id"])


def finished(api: httpx.Client, run_id: str) -> Run | None:
    run: Run = api.get(f"/flow_runs/{run_id}").raise_for_status().json()
    return run if run["state_type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"} else None


@pytest.mark.slow
def test_the_server_has_what_the_file_says(api: httpx.Client, by_flow: dict[str, list["Deployment"]]) -> None:
    every = [one for found in by_flow.values() for one in found]
    for one in every:
        there = deployed(api, one.name)
        assert (there["tags"], there["version"]) == (list(one.tags), one.version)
        assert (there["description"], there["parameters"]) == (one.description, one.parameters)
        assert there["global_concurrency_limit"]["limit"] == one.concurrency_limit.limit
        assert there["concurrency_options"]["collision_strategy"] == one.concurrency_limit.collision_strategy.value
        assert (there["work_pool_name"], there["job_variables"]) == (POOL, one.work_pool.job_variables)
        assert [(s["slug"], s["active"]) for s in there["schedules"]] == [(s.slug, s.active) for s in one.schedules]
        (pull,) = there["pull_steps"]
        assert pull == {"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}
    assert api.post("/deployments/count", json={}).json() == len(every)


@pytest.mark.slow
def test_the_server_plans_what_is_active(api: httpx.Client, server: dict[str, str]) -> None:
    """The server's own log says why nothing is planned: SQLAlchemy 2.1 once broke the scheduler, and nothing else."""
    log = Path(server["PREFECT_HOME"]) / "server.log"

    def planned(name: str) -> list[datetime]:
        body = {
            "deployments": {"id": {"any_": [deployed(api, name)["id"]]}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
            "sort": "EXPECTED_START_TIME_ASC",
        }
        runs = api.post("/flow_runs/filter", json=body).raise_for_status().json()
        return [datetime.fromisoformat(run["expected_start_time"]) for run in runs if run["auto_scheduled"]]

    first, *later = eventually(lambda: planned("reap-orphans"), 60, log.read_text)
    assert first <= datetime.now(tz=UTC) + timedelta(minutes=15)
    assert later[:2] == [first + timedelta(minutes=15), first + timedelta(minutes=30)]
    assert first.minute % 15 == 0
    assert planned("operationalize") == []  # its schedule is off, and the scheduler has been round
    week = eventually(lambda: planned("refresh-prices"), 60, log.read_text)
    assert {(one.weekday(), one.hour, one.minute) for one in week} == {(0, 4, 0)}
    assert week[0] <= datetime.now(tz=UTC) + timedelta(days=7)


@pytest.mark.slow
def test_a_worker_runs_a_deployment(api: httpx.Client, worker_environment: dict[str, str], tmp_path: Path) -> None:
    run_id = ask_for_a_run(api)
    worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--run-once"]
    # Away from the checkout: the pull step leads back to it.
    done = subprocess.run(
        worker, cwd=tmp_path, env=worker_environment, capture_output=True, text=True, check=False, timeout=180
    )
    assert done.returncode == 0, done.stderr
    run = eventually(partial(finished, api, run_id), 60, lambda: done.stdout + done.stderr)
    assert run["state_name"] == "Completed", done.stdout + done.stderr


@pytest.mark.slow
def test_served_deployments_run_until_sigterm(
    api: httpx.Client, worker_environment: dict[str, str], tmp_path: Path
) -> None:
    before, log = deployed(api, "teardown"), tmp_path / "serve.log"
    run_id = ask_for_a_run(api)
    with log.open("w") as output:
        command = [sys.executable, "-m", "deployments.serve"]
        # From another folder: who serves need not stand in the checkout.
        environment = {**worker_environment, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output)
    try:
        run = eventually(partial(finished, api, run_id), 120, log.read_text)
        assert run["state_name"] == "Completed", log.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    after = deployed(api, "teardown")
    assert (after["id"], after["pull_steps"]) == (before["id"], before["pull_steps"])
    assert (before["paused"], after["paused"]) == (False, True)  # nobody is there to run what a schedule asks for
    assert "Warning" not in log.read_text()
