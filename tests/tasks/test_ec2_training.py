"""Training on an instance as a flow's tasks do it, against the local AWS: a real shell, and nothing left running."""

import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import boto3
import pytest
from prefect.client.schemas.objects import TaskRun
from prefect.context import TaskRunContext

from tasks.aws.errors import CapacityError, DeadlineError, InstanceLostError, JobFailedError, JobStoppedError
from tasks.aws.identity import Owner
from tasks.aws.instances import Launch, cancel_command, find_command
from tasks.aws.settings import Settings
from tasks.contracts import Ec2Compute, Ec2TrainingSpec, TrainingResult, TrainingSpec
from tasks.instances import (
    await_command,
    ended_afterwards,
    ended_if_lost,
    find_finished_training,
    find_machine_image,
    launch_instance,
    start_command,
)
from tasks.runs import current_owner

pytestmark = pytest.mark.slow

GOOD = """
import os, pathlib, sys
assert os.environ["SM_MODEL_DIR"] == "TrainedModels"
assert pathlib.Path(os.environ["SM_CHANNEL_TRAIN"], "0", "train.png").read_text() == "train"
pathlib.Path("TrainedModels").mkdir()
pathlib.Path("TrainedModels/weights").write_text(" ".join(sys.argv[1:]))
pathlib.Path("output").mkdir()
pathlib.Path("output/report.json").write_text("{}")
pathlib.Path("checkpoints/last").write_text("step 3")
print("epoch=2 valid_loss=0.2")
print("epoch=3 valid_loss=0.1")
"""
BROKEN = """
for line in range(3000):
    print(f"line {line} of many words")
raise ZeroDivisionError("on the instance")
"""
SLOW = """
import time
print("it has begun", flush=True)
time.sleep(60)
"""


def spec_of(trial: TrainingSpec, **compute: Any) -> Ec2TrainingSpec:
    image_id, root_device = find_machine_image.fn(Ec2Compute().image_parameter)
    return Ec2TrainingSpec(
        dataset=trial.dataset,
        hyperparameters=trial.hyperparameters,
        compute=Ec2Compute(**({"max_runtime_seconds": 60} | compute)),
        program_s3_uri=trial.program_s3_uri,
        image_id=image_id,
        root_device=root_device,
    )


def trained(spec: Ec2TrainingSpec, settings: Settings) -> tuple[Launch, TrainingResult]:
    launch = launch_instance.fn(spec, settings)
    with ended_afterwards(launch):
        command_id = start_command.fn(launch, spec, settings)
        return launch, await_command.fn(launch, command_id, spec, settings)


def state(launch: Launch) -> str:
    """The state of an instance, once it has settled."""
    ec2 = boto3.client("ec2")
    for _ in range(100):
        found = ec2.describe_instances(InstanceIds=[launch.instance_id])["Reservations"][0]["Instances"][0]
        if found["State"]["Name"] in ("running", "terminated", "stopped"):
            break
        time.sleep(0.1)
    return str(found["State"]["Name"])


def body(uri: str) -> bytes:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    content: bytes = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    return content


def test_the_same_program_leaves_the_same_things_and_the_instance_is_gone(stage: Any, settings: Settings) -> None:
    spec = spec_of(stage(GOOD))
    launch, result = trained(spec, settings)
    assert result.how == "created"
    assert result.metrics == {"valid_loss": 0.1}
    assert set(result.phase_seconds) == {"Starting", "Downloading", "Training", "Uploading"}
    assert result.billable_seconds >= sum(result.phase_seconds.values()) - 0.1
    assert body(result.model_s3_uri)[:2] == body(result.output_s3_uri)[:2] == b"\x1f\x8b"
    assert body(f"s3://{settings.bucket}/checkpoints/{launch.name}/last") == b"step 3"
    assert state(launch) == "terminated"
    again = find_finished_training.fn(spec, settings)
    assert again is not None
    assert again.model_copy(update={"how": "created"}) == result


def test_a_failing_script_ends_the_instance_and_its_last_lines_are_told(
    stage: Any, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """All of its output, far more than the 24,000 characters of GetCommandInvocation, is in the run's log."""
    spec = spec_of(stage(BROKEN))
    launch = launch_instance.fn(spec, settings)
    with (
        caplog.at_level(logging.INFO, "tasks.runs"),
        pytest.raises(JobFailedError, match=r"exit code 1(.|\n)*ZeroDivisionError: on the instance"),
        ended_afterwards(launch),
    ):
        await_command.fn(launch, start_command.fn(launch, spec, settings), spec, settings)
    assert state(launch) == "terminated"
    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if "of many words" in line] == [
        f"[{launch.name}/{launch.instance_id}] line {number} of many words" for number in range(3000)
    ]
    assert find_finished_training.fn(spec, settings) is None


def in_a_while(launch: Launch, act: Any) -> threading.Thread:
    """Do something as soon as the command runs."""

    def wait_and_act() -> None:
        while not (command_id := find_command(launch)):
            time.sleep(0.05)
        invocation: dict[str, Any] = {}
        while invocation.get("Status") != "InProgress":
            time.sleep(0.05)
            found = boto3.client("ssm").list_command_invocations(CommandId=command_id)["CommandInvocations"]
            invocation = found[0] if found else {}
        act(command_id)

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


def test_a_cancelled_command_ends_the_instance(stage: Any, settings: Settings) -> None:
    spec = spec_of(stage(SLOW))
    launch = launch_instance.fn(spec, settings)
    thread = in_a_while(launch, cancel_command)
    with pytest.raises(JobStoppedError, match="was stopped before it was done"), ended_afterwards(launch):
        await_command.fn(launch, start_command.fn(launch, spec, settings), spec, settings)
    thread.join()
    assert state(launch) == "terminated"


def test_a_command_that_runs_out_of_its_time_ends_the_instance(stage: Any, settings: Settings) -> None:
    spec = spec_of(stage(SLOW))
    # A minute is the least that people may ask for.
    hasty = spec.model_copy(update={"compute": spec.compute.model_copy(update={"max_runtime_seconds": 3})})
    launch = launch_instance.fn(hasty, settings)
    with pytest.raises(JobStoppedError, match="ran out of its time limit") as raised, ended_afterwards(launch):
        await_command.fn(launch, start_command.fn(launch, hasty, settings), hasty, settings)
    assert raised.value.status == "MaxRuntimeExceeded"
    assert state(launch) == "terminated"


def test_an_instance_whose_agent_never_comes_is_given_up_and_ended(
    stage: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on AWS, the agent of an instance without a role cannot register, and tries for ever."""
    boto3.client("iam").create_instance_profile(InstanceProfileName="without-a-role")
    monkeypatch.setattr("tasks.instances._AGENT_SECONDS", 1.0)
    spec, without = spec_of(stage(GOOD)), settings.model_copy(update={"instance_profile": "without-a-role"})
    launch = launch_instance.fn(spec, without)
    with pytest.raises(DeadlineError, match="still without its SSM agent"), ended_afterwards(launch):
        start_command.fn(launch, spec, without)
    assert state(launch) == "terminated"


def test_an_instance_whose_launch_ends_in_an_error_is_ended(stage: Any, settings: Settings) -> None:
    """EC2 has launched it, and the answer, or what Prefect makes of it, does not come through."""
    spec = spec_of(stage(SLOW))
    with pytest.raises(ConnectionError), ended_if_lost(spec):  # noqa: PT012 - what happens in between is the test
        launch = launch_instance.fn(spec, settings)
        raise ConnectionError
    assert state(launch) == "terminated"


def test_a_tasks_retries_ask_for_an_instance_with_the_same_expiry() -> None:
    """EC2 refuses the same token with other tags."""
    began = datetime(2026, 1, 1, tzinfo=UTC)
    run = TaskRun(task_key="launch", dynamic_key="0", flow_run_id=uuid4(), start_time=began)
    with TaskRunContext.model_construct(task_run=run):
        owner = current_owner(timedelta(hours=1))
    assert owner == Owner(flow_run_id=str(run.flow_run_id), expires_at="2026-01-01T01:00:00+00:00")


def test_an_instance_that_somebody_ends_is_told_at_once(stage: Any, settings: Settings) -> None:
    spec = spec_of(stage(SLOW))
    launch = launch_instance.fn(spec, settings)
    thread = in_a_while(launch, lambda _: boto3.client("ec2").terminate_instances(InstanceIds=[launch.instance_id]))
    with pytest.raises(InstanceLostError, match="went away"), ended_afterwards(launch):
        await_command.fn(launch, start_command.fn(launch, spec, settings), spec, settings)
    thread.join()


def test_who_only_adopted_an_instance_leaves_it_to_its_owner(stage: Any, settings: Settings) -> None:
    spec = spec_of(stage(SLOW))
    launch = launch_instance.fn(spec, settings)
    adopted = Launch(launch.name, launch.instance_id, launch.instance_type, spot=False, how="adopted", ours=False)
    with pytest.raises(KeyboardInterrupt), ended_afterwards(adopted):
        raise KeyboardInterrupt
    assert state(launch) == "running"
    with pytest.raises(KeyboardInterrupt), ended_afterwards(launch):
        raise KeyboardInterrupt
    assert state(launch) == "terminated"


def test_where_there_is_no_capacity_the_next_type_is_taken_and_at_last_one_clear_error_is_given(
    stage: Any, settings: Settings, local_aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = stage(GOOD)
    monkeypatch.setattr(local_aws.account, "types_without_capacity", frozenset({"m5.xlarge", "spot:m5.2xlarge"}))
    with pytest.raises(CapacityError, match=r"no capacity for m5\.xlarge: try later"):
        launch_instance.fn(spec_of(trial), settings)
    launch, result = trained(spec_of(trial, spot=True, fallbacks=("m5.2xlarge",)), settings)
    assert (launch.instance_type, launch.spot) == ("m5.2xlarge", False)
    assert result.instance_type == "m5.2xlarge"
