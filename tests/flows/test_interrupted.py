"""Flows that are interrupted: what they have started at AWS is stopped, whatever it is and whichever signal it was."""

import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import boto3
import pytest

pytestmark = pytest.mark.slow

StartFlow = Callable[..., "subprocess.Popen[str]"]
LONG = ("--hyperparameters.epochs", "1000", "--hyperparameters.patience", "1000")


def until(look: Callable[[], list[Any]]) -> list[Any]:
    for _ in range(600):
        if found := look():
            return found
        time.sleep(0.1)
    pytest.fail("nothing was started")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_training_job_is_stopped(sent: signal.Signals, code: int, start_flow: StartFlow, manifest: str) -> None:
    sagemaker = boto3.client("sagemaker")
    before: list[str] = []

    def running() -> list[dict[str, Any]]:
        jobs = sagemaker.list_training_jobs(StatusEquals="InProgress", NameContains="flows-")["TrainingJobSummaries"]
        return [job for job in jobs if job["TrainingJobName"] not in before]

    before += [job["TrainingJobName"] for job in running()]  # what other tests have left
    flow = start_flow("train_single_instance", manifest, *LONG, "--hyperparameters.seed", str(1000 + sent))
    (job,) = until(running)
    flow.send_signal(sent)
    said = flow.communicate(timeout=60)[1]
    assert flow.returncode == code, said[-2000:]
    sagemaker.get_waiter("training_job_completed_or_stopped").wait(
        TrainingJobName=job["TrainingJobName"], WaiterConfig={"Delay": 1}
    )
    described = sagemaker.describe_training_job(TrainingJobName=job["TrainingJobName"])
    assert described["TrainingJobStatus"] == "Stopped"


def test_a_tuning_job_is_stopped_with_its_trials(start_flow: StartFlow, manifest: str) -> None:
    sagemaker = boto3.client("sagemaker")
    flow = start_flow("tune_hyperparameters", manifest, *LONG)

    def running() -> list[dict[str, Any]]:
        jobs = sagemaker.list_hyper_parameter_tuning_jobs(StatusEquals="InProgress", NameContains="flows-")
        return list(jobs["HyperParameterTuningJobSummaries"])

    (job,) = until(running)
    flow.send_signal(signal.SIGINT)
    assert flow.wait(timeout=60) == 130
    name = job["HyperParameterTuningJobName"]

    def ended() -> list[str]:
        found = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
        status = found["HyperParameterTuningJobStatus"]
        return [] if status in ("InProgress", "Stopping") else [status]

    assert until(ended) == ["Stopped"]
    assert sagemaker.list_training_jobs(StatusEquals="InProgress", NameContains=name)["TrainingJobSummaries"] == []
