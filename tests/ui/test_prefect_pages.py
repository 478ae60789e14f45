"""The Prefect UI as somebody uses it who runs flows from there: forms, runs, artifacts."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from playwright.sync_api import Page, expect

# A whole journey on two busy cores, in the time of whose steps nobody is interested here.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

ENDED = re.compile("^(Completed|Failed|Crashed|Cancelled|TimedOut)$")
RUN_MS = 1_500_000
PICTURES = "article img"
PAINTED = f"""count => {{
    const pictures = [...document.querySelectorAll("{PICTURES}")];
    return pictures.length == count && pictures.every(one => one.complete && one.naturalWidth > 0);
}}"""


def look_at(page: Page, prefect: Any, run_id: str) -> None:
    page.goto(f"{prefect.url}/runs/flow-run/{run_id}")


def await_end(page: Page) -> str:
    """Watch the page of a run until it says that it has ended, and return how."""
    state = page.get_by_role("banner").get_by_text(ENDED)
    state.wait_for(timeout=RUN_MS)
    return state.inner_text()


def test_a_run_started_from_the_form_completes_and_its_pictures_are_painted(
    page: Page, prefect: Any, open_form: Callable[[str], Any], tmp_path: Path
) -> None:
    form = open_form("operationalize")
    form.field("hyperparameters").get_by_role("button", name="Hyperparameters", exact=True).click()
    form.write(1, "hyperparameters", "epochs")
    form.write(2, "tuning", "trials")
    form.write(2, "several", "instance_count")
    form.turn_off("live")
    form.write(str(tmp_path / "reports"), "reports_folder")
    run = form.submit()
    look_at(page, prefect, run["id"])
    assert await_end(page) == "Completed"
    page.get_by_text("Artifacts", exact=True).click()
    page.get_by_role("link", name="final-report").click()
    page.wait_for_url("**/artifacts/artifact/**")
    pictures = {one["id"]: str(one["data"]).count("data:image/") for one in prefect.artifacts()}
    final = pictures.pop(page.url.rpartition("/")[2])
    assert final > 0
    page.wait_for_function(PAINTED, arg=final)
    for artifact, count in pictures.items():
        page.goto(f"{prefect.url}/artifacts/artifact/{artifact}")
        page.wait_for_function(PAINTED, arg=count)


def test_a_wrong_value_is_refused_in_the_form(page: Page, prefect: Any, open_form: Callable[[str], Any]) -> None:
    before = prefect.runs_of("operationalize")
    form = open_form("operationalize")
    form.write(0, "tuning", "trials")
    form.submit()
    expect(page.get_by_text("tuning.trials").first).to_contain_text("0 is less than the minimum of 1")
    assert prefect.runs_of("operationalize") == before


@pytest.fixture
def manifest(worker_environment: dict[str, str], tmp_path: Path) -> str:
    """The S3 address of a dataset that has been uploaded."""
    command = [sys.executable, "-m", "flows.upload_dataset"]
    done = subprocess.run(
        command, cwd=tmp_path, env=worker_environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_a_run_cancelled_in_the_ui_stops_its_training_job(
    page: Page, prefect: Any, open_form: Callable[[str], Any], manifest: str
) -> None:
    sagemaker = boto3.client("sagemaker")

    before: list[str] = []

    def running() -> list[str]:
        jobs = sagemaker.list_training_jobs(StatusEquals="InProgress", NameContains="flows-")["TrainingJobSummaries"]
        return [job["TrainingJobName"] for job in jobs if job["TrainingJobName"] not in before]

    def status(job: str) -> str:
        return str(sagemaker.describe_training_job(TrainingJobName=job)["TrainingJobStatus"])

    before += running()  # what other tests have left
    form = open_form("train-single-instance")
    form.write(manifest, "manifest")
    form.write(1000, "hyperparameters", "epochs")
    form.write(1000, "hyperparameters", "patience")
    run = form.submit()
    look_at(page, prefect, run["id"])
    (job,) = prefect.until(running, 600)
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Confirm").click()
    assert await_end(page) == "Cancelled"
    assert prefect.until(lambda: status(job) not in {"InProgress", "Stopping"}, 300)
    assert status(job) == "Stopped"
