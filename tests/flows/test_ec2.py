"""Training on EC2 as its users run it: spot capacity is reclaimed, somebody presses Ctrl-C, an image does not exist."""

import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from deployments.local_aws.instances import Instances

pytestmark = pytest.mark.slow

StartFlow = Callable[..., "subprocess.Popen[str]"]


def instances(*states: str) -> list[dict[str, Any]]:
    filters = [
        {"Name": "tag:project", "Values": ["sagemaker-flows"]},
        {"Name": "instance-state-name", "Values": states},
    ]
    pages = boto3.client("ec2").get_paginator("describe_instances").paginate(Filters=filters)
    return [instance for page in pages for group in page["Reservations"] for instance in group["Instances"]]


def when_a_checkpoint_is_kept(act: Callable[[str], Any]) -> threading.Thread:
    """Do something to the instance once its training has left a checkpoint in S3."""

    def wait_and_act() -> None:
        s3, name = boto3.client("s3"), ""
        bucket = next(bucket["Name"] for bucket in s3.list_buckets()["Buckets"])
        for _ in range(1200):
            running = [instance for instance in instances("running") if instance.get("InstanceLifecycle") == "spot"]
            for instance in running:
                name = next(tag["Value"] for tag in instance["Tags"] if tag["Key"] == "Name")
                if s3.list_objects_v2(Bucket=bucket, Prefix=f"checkpoints/{name}/").get("Contents"):
                    act(instance["InstanceId"])
                    return
            time.sleep(0.1)

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


def test_a_reclaimed_spot_instance_is_followed_by_one_on_demand_that_goes_on(run_flow: Any, manifest: str) -> None:
    ec2 = boto3.client("ec2")
    reclaim = when_a_checkpoint_is_kept(lambda instance: ec2.terminate_instances(InstanceIds=[instance]))
    result = run_flow("train_on_ec2", manifest, "--compute.spot", "--hyperparameters.seed", "5")
    reclaim.join()
    assert result.returncode == 0, result.stderr[-3000:]
    assert "going on on demand" in result.stderr
    assert instances("pending", "running") == []


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_while_ec2_launches_the_instance_ends_it(
    sent: signal.Signals,
    code: int,
    start_flow: StartFlow,
    manifest: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worst moment: EC2 has the request and not launched yet, so who gives up now finds nothing to end."""
    flow, launch = start_flow("train_on_ec2", manifest, "--hyperparameters.seed", str(int(sent))), Instances._launch

    def interrupt_and_launch(self: Instances, request: dict[str, Any]) -> Any:
        flow.send_signal(sent)
        time.sleep(0.5)
        return launch(self, request)

    monkeypatch.setattr(Instances, "_launch", interrupt_and_launch)
    said = flow.communicate(timeout=60)[1]
    assert flow.returncode == code, said[-2000:]
    assert f"{sent.name} has come, and waits for the launch" in said
    assert instances("pending", "running") == [], said[-2000:]


def test_ctrl_c_as_soon_as_the_instance_runs_ends_it(start_flow: StartFlow, manifest: str) -> None:
    flow = start_flow("train_on_ec2", manifest, "--hyperparameters.seed", "6")
    for _ in range(600):
        if instances("running"):
            break
        time.sleep(0.1)
    assert instances("running")
    flow.send_signal(signal.SIGINT)
    said = flow.communicate(timeout=60)[1]
    assert flow.returncode == 130, said[-2000:]
    assert instances("pending", "running") == [], said[-2000:]


def test_an_image_parameter_that_does_not_exist_is_named(run_flow: Any, manifest: str) -> None:
    before = len(instances("pending", "running"))
    result = run_flow("train_on_ec2", manifest, "--compute.image-parameter", "/aws/service/deeplearning/none")
    assert result.returncode == 1
    words = result.stderr.strip().splitlines()[-1]
    assert "The SSM parameter /aws/service/deeplearning/none does not exist in us-east-1" in words
    assert len(instances("pending", "running")) == before
