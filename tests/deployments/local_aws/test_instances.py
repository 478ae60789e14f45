"""EC2 instances of the local AWS: what EC2 promises of them, kept by real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from deployments.local_aws.instance import Instance
from deployments.local_aws.instance_shell import remove_abandoned

pytestmark = pytest.mark.slow

UBUNTU = "/aws/service/deeplearning/ami/x86_64/oss-nvidia-driver-gpu-pytorch-2.10-ubuntu-24.04/latest/ami-id"
AMAZON_LINUX = "/aws/service/deeplearning/ami/x86_64/oss-nvidia-driver-gpu-pytorch-2.11-amazon-linux-2023/latest/ami-id"
ENDED = ("terminated", "stopped")


class Machines:
    """EC2 as a test uses it."""

    def __init__(self, cloud: Any, root: Path) -> None:
        self.cloud, self.root = cloud, root
        # Lack of capacity is answered with 500, which clients repeat.
        self.ec2 = boto3.client("ec2", config=Config(retries={"total_max_attempts": 1}))
        self.ssm = boto3.client("ssm")
        self.image = self.ssm.get_parameter(Name=UBUNTU)["Parameter"]["Value"]

    def request(self, **changes: Any) -> dict[str, Any]:
        return {
            "ImageId": self.image,
            "InstanceType": "m5.large",
            "MinCount": 1,
            "MaxCount": 1,
            "IamInstanceProfile": {"Name": self.cloud.outputs["InstanceProfileName"]},
            "SecurityGroupIds": [self.cloud.outputs["InstanceSecurityGroupId"]],
            **changes,
        }

    def launch(self, **changes: Any) -> str:
        return str(self.ec2.run_instances(**self.request(**changes))["Instances"][0]["InstanceId"])

    def describe(self, instance_id: str) -> dict[str, Any]:
        reservations = self.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
        return dict(reservations[0]["Instances"][0])

    def state(self, instance_id: str) -> str:
        return str(self.describe(instance_id)["State"]["Name"])

    def until_state(self, instance_id: str, *states: str) -> dict[str, Any]:
        look = lambda: self.describe(instance_id)  # noqa: E731
        return dict(self.cloud.until(look, lambda seen: seen["State"]["Name"] in states, 10))

    def folder(self, instance_id: str) -> Path:
        return self.root / "instances" / instance_id

    def until_file(self, path: Path) -> str:
        self.cloud.until(lambda: path.exists() and path.read_text().endswith("\n"), bool, 10)
        return path.read_text().strip()


@pytest.fixture(scope="module")
def machines(cloud: Any, local_aws: Any) -> Iterator[Machines]:
    machines = Machines(cloud, local_aws.account.root)
    yield machines
    live = machines.ec2.describe_instances()["Reservations"]
    machines.ec2.terminate_instances(InstanceIds=[one["InstanceId"] for group in live for one in group["Instances"]])


def refused(call: Any, **request: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**request)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


# --- images ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameter", "system", "root_device"),
    [(UBUNTU, "Ubuntu 24.04", "/dev/sda1"), (AMAZON_LINUX, "Amazon Linux 2023", "/dev/xvda")],
)
def test_the_deep_learning_amis_are_named_by_public_parameters(
    machines: Machines, parameter: str, system: str, root_device: str
) -> None:
    image_id = machines.ssm.get_parameter(Name=parameter)["Parameter"]["Value"]
    image = machines.ec2.describe_images(ImageIds=[image_id])["Images"][0]
    assert image["Name"].startswith("Deep Learning OSS Nvidia Driver AMI GPU PyTorch")
    assert system in image["Name"]
    assert (image["RootDeviceName"], image["State"], image["Public"]) == (root_device, "available", True)


def test_the_parameters_are_listed_by_path(machines: Machines) -> None:
    pages = machines.ssm.get_paginator("get_parameters_by_path").paginate(
        Path="/aws/service/deeplearning/ami", Recursive=True
    )
    assert {UBUNTU, AMAZON_LINUX} == {one["Name"] for page in pages for one in page["Parameters"]}


def test_a_parameter_that_does_not_exist_is_not_found(machines: Machines) -> None:
    code, _ = refused(machines.ssm.get_parameter, Name=UBUNTU.replace("2.10", "9.99"))
    assert code == "ParameterNotFound"


def test_an_image_that_does_not_exist_is_refused(machines: Machines) -> None:
    code, message = refused(machines.ec2.run_instances, **machines.request(ImageId="ami-0123456789abcdef0"))
    assert (code, "ami-0123456789abcdef0" in message) == ("InvalidAMIID.NotFound", True)


# --- launch ---------------------------------------------------------------------------------------------------------


def test_an_instance_goes_through_its_states_with_boto3s_own_waiters(machines: Machines) -> None:
    instance = machines.ec2.run_instances(**machines.request())["Instances"][0]
    assert instance["State"] == {"Code": 0, "Name": "pending"}
    ids = [instance["InstanceId"]]
    machines.ec2.get_waiter("instance_running").wait(InstanceIds=ids, WaiterConfig={"Delay": 1, "MaxAttempts": 9})
    assert machines.ec2.describe_instance_status(InstanceIds=ids)["InstanceStatuses"][0]["InstanceState"]["Code"] == 16
    change = machines.ec2.terminate_instances(InstanceIds=ids)["TerminatingInstances"][0]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("running", "shutting-down")
    machines.ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig={"Delay": 1, "MaxAttempts": 9})
    assert machines.describe(ids[0])["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert not machines.folder(ids[0]).exists()


def test_what_was_asked_for_can_be_read_back(machines: Machines) -> None:
    tags = [{"Key": "project", "Value": "kept"}, {"Key": "Name", "Value": "one"}]
    instance_id = machines.launch(
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1, "HttpEndpoint": "enabled"},
        BlockDeviceMappings=[
            {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 50, "VolumeType": "gp3", "Encrypted": True}}
        ],
        TagSpecifications=[{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
        InstanceMarketOptions={"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time"}},
        InstanceInitiatedShutdownBehavior="terminate",
    )
    seen = machines.describe(instance_id)
    assert (seen["InstanceLifecycle"], seen["MetadataOptions"]["HttpTokens"]) == ("spot", "required")
    assert seen["IamInstanceProfile"]["Arn"].endswith(machines.cloud.outputs["InstanceProfileName"])
    assert seen["SecurityGroups"][0]["GroupId"] == machines.cloud.outputs["InstanceSecurityGroupId"]
    assert "KeyName" not in seen
    volumes = [one["Ebs"]["VolumeId"] for one in seen["BlockDeviceMappings"]]
    disk = machines.ec2.describe_volumes(VolumeIds=volumes)["Volumes"][0]
    assert (len(volumes), disk["Size"], disk["VolumeType"], disk["Encrypted"]) == (1, 50, "gp3", True)
    assert sorted(disk["Tags"], key=lambda tag: tag["Key"]) == sorted(tags, key=lambda tag: tag["Key"])
    attribute = machines.ec2.describe_instance_attribute(
        InstanceId=instance_id, Attribute="instanceInitiatedShutdownBehavior"
    )
    assert attribute["InstanceInitiatedShutdownBehavior"] == {"Value": "terminate"}


def test_instances_are_found_by_tag_state_token_and_lifecycle(machines: Machines) -> None:
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "project", "Value": "found"}]}]
    instance_id = machines.launch(TagSpecifications=tags, ClientToken="find-me")

    def found(**filters: str) -> list[str]:
        asked = [
            {"Name": name.replace("__", ":").replace("_", "-"), "Values": [value]} for name, value in filters.items()
        ]
        groups = machines.ec2.describe_instances(Filters=asked)["Reservations"]
        return [one["InstanceId"] for group in groups for one in group["Instances"]]

    machines.until_state(instance_id, "running")
    assert found(tag__project="found", instance_state_name="running") == [instance_id]
    assert found(tag__project="found", instance_state_name="terminated") == []
    assert found(client_token="find-me") == [instance_id]
    assert found(tag__project="found", instance_lifecycle="spot") == []


def test_one_client_token_launches_once(machines: Machines) -> None:
    request = machines.request(ClientToken="launch-once")
    first, second = machines.ec2.run_instances(**request), machines.ec2.run_instances(**request)
    assert first["ReservationId"] == second["ReservationId"]
    instance_id = first["Instances"][0]["InstanceId"]
    machines.ec2.terminate_instances(InstanceIds=[instance_id])
    machines.until_state(instance_id, "terminated")
    third = machines.ec2.run_instances(**request)["Instances"]
    assert [(one["InstanceId"], one["State"]["Name"]) for one in third] == [(instance_id, "terminated")]
    code, _ = refused(machines.ec2.run_instances, **{**request, "InstanceType": "m5.xlarge"})
    assert code == "IdempotentParameterMismatch"


def test_a_type_without_capacity_is_refused_with_the_status_of_aws(
    machines: Machines, local_aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 500: a client that retries asks again and again."""
    monkeypatch.setattr(local_aws.account, "types_without_capacity", {"p5.48xlarge"})
    request = machines.request(InstanceType="p5.48xlarge", ClientToken="no-capacity")
    with pytest.raises(ClientError, match="do not have sufficient") as caught:
        machines.ec2.run_instances(**request)
    assert caught.value.response["Error"]["Code"] == "InsufficientInstanceCapacity"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert machines.ec2.run_instances(**{**request, "InstanceType": "m5.large"})  # a refused launch uses no token up


def test_a_type_can_be_without_capacity_as_spot_only(
    machines: Machines, local_aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_aws.account, "types_without_capacity", {"spot:m5.large"})
    spot = machines.request(InstanceMarketOptions={"MarketType": "spot"})
    code, message = refused(machines.ec2.run_instances, **spot)
    assert (code, "no Spot capacity" in message) == ("InsufficientInstanceCapacity", True)
    assert "InstanceLifecycle" not in machines.describe(machines.launch())


def test_the_command_line_takes_types_without_capacity() -> None:
    script = f"""
import boto3, botocore.config
image = boto3.client("ssm").get_parameter(Name="{UBUNTU}")["Parameter"]["Value"]
ec2 = boto3.client("ec2", config=botocore.config.Config(retries={{"total_max_attempts": 1}}))
ec2.run_instances(ImageId=image, InstanceType="g5.xlarge", MinCount=1, MaxCount=1)
"""
    local_aws = [sys.executable, "-m", "deployments.local_aws", "--administrator", "--no-capacity", "g5.xlarge"]
    command = [*local_aws, "--", sys.executable, "-c", script]
    finished = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert "InsufficientInstanceCapacity" in finished.stderr


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"IamInstanceProfile": {"Name": "nobody"}}, "InvalidParameterValue", "Invalid IAM Instance Profile name"),
        ({"SecurityGroupIds": ["sg-0123456789abcdef0"]}, "InvalidGroup.NotFound", "sg-0123456789abcdef0"),
        ({"MinCount": 2}, "InvalidParameterValue", "maxCount"),
        ({"InstanceType": "m5.huge"}, "InvalidParameterValue", "m5.huge"),
        ({"UserData": "#cloud-config\n"}, "UnsupportedOperation", "begins with #!"),
        ({"UserData": "#!" + "x" * 20_000}, "InvalidParameterValue", "limited to 16384 bytes"),
        ({"KeyName": "mine"}, "UnsupportedOperation", "does not implement KeyName of RunInstances"),
        ({"LaunchTemplate": {"LaunchTemplateName": "x"}}, "UnsupportedOperation", "LaunchTemplate"),
        ({"DryRun": True}, "DryRunOperation", "would have succeeded"),
    ],
)
def test_what_would_not_happen_is_refused(machines: Machines, change: dict[str, Any], code: str, words: str) -> None:
    told, message = refused(machines.ec2.run_instances, **machines.request(**change))
    assert (told, words in message) == (code, True), message


@pytest.mark.parametrize(
    ("operation", "request_"),
    [
        ("request_spot_instances", {"InstanceCount": 1}),
        ("create_fleet", {"TargetCapacitySpecification": {"TotalTargetCapacity": 1}, "LaunchTemplateConfigs": []}),
        ("reboot_instances", {"InstanceIds": ["i-1"]}),
    ],
)
def test_operations_that_moto_would_pretend_are_refused(
    machines: Machines, operation: str, request_: dict[str, Any]
) -> None:
    _, message = refused(getattr(machines.ec2, operation), **request_)
    assert "does not implement ec2:" in message


# --- life and end ---------------------------------------------------------------------------------------------------

LEAVES_PROCESSES = """#!/bin/bash
setsid sh -c 'trap "" TERM; while :; do sleep 0.1; done' &
sleep 600 &
echo $! > child
trap '' TERM
echo $$ > parent
while :; do sleep 0.1; done
"""


def test_user_data_runs_at_boot_in_the_instances_own_folder(machines: Machines) -> None:
    instance_id = machines.launch(UserData="#!/bin/bash\necho ${BASH_VERSION:+bash} $PWD $HOME\n")
    log = machines.folder(instance_id) / "var" / "log" / "cloud-init-output.log"
    folder = machines.folder(instance_id)
    assert machines.until_file(log) == f"bash {folder} {folder}/root"


def test_terminated_means_that_its_processes_are_gone(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that are deaf to SIGTERM, and those that went into a session of their own."""
    monkeypatch.setattr(Instance, "shutdown_grace_seconds", 0.5)
    instance_id = machines.launch(UserData=LEAVES_PROCESSES)
    machines.until_file(machines.folder(instance_id) / "parent")
    pids = pids_below(machines.folder(instance_id))
    assert len(pids) >= 3
    machines.ec2.terminate_instances(InstanceIds=[instance_id])
    assert machines.state(instance_id) == "shutting-down"
    machines.until_state(instance_id, "terminated")
    assert not [pid for pid in pids if is_running(pid)]


def pids_below(folder: Path) -> list[int]:
    """Return the processes whose HOME is in the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                environment = (entry / "environ").read_bytes()
            except (OSError, PermissionError):
                continue
            if f"HOME={folder}/root".encode() in environment:
                found.append(int(entry.name))
    return found


def test_what_user_data_leaves_in_the_background_lives_on(machines: Machines) -> None:
    script = "#!/bin/sh\n(sleep 0.3; echo still here > later) &\n"
    instance_id = machines.launch(UserData=script)
    assert machines.until_file(machines.folder(instance_id) / "later") == "still here"


@pytest.mark.parametrize(("behaviour", "end"), [("terminate", "terminated"), ("stop", "stopped")])
@pytest.mark.parametrize("when", ["now", "+0"])
def test_an_instance_ends_itself_as_its_shutdown_behaviour_says(
    machines: Machines, behaviour: str, end: str, when: str
) -> None:
    script = f"#!/bin/sh\nshutdown -h {when}\nexec sleep 600\n"
    instance_id = machines.launch(UserData=script, InstanceInitiatedShutdownBehavior=behaviour)
    seen = machines.until_state(instance_id, *ENDED)
    assert seen["State"]["Name"] == end
    assert seen["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


def test_it_ends_itself_after_its_minutes_and_not_before(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Instance, "minute_seconds", 0.1)
    began = time.monotonic()
    script = "#!/bin/sh\nshutdown -h +8 'time is up'\n"
    instance_id = machines.launch(UserData=script, InstanceInitiatedShutdownBehavior="terminate")
    machines.until_state(instance_id, "terminated")
    assert time.monotonic() - began > 0.8


def test_a_planned_shutdown_can_be_taken_back(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Instance, "minute_seconds", 0.4)
    script = "#!/bin/sh\nshutdown -h +2\nshutdown -c\nsleep 1\necho alive > proof\n"
    instance_id = machines.launch(UserData=script)
    assert machines.until_file(machines.folder(instance_id) / "proof") == "alive"
    assert machines.state(instance_id) == "running"


@pytest.mark.parametrize("argument", ["-r", "23:00", "+1x", "+"])
def test_a_shutdown_that_would_not_happen_is_refused(machines: Machines, argument: str) -> None:
    script = f"#!/bin/sh\nshutdown {argument} 2> said\necho $? > code\n"
    instance_id = machines.launch(UserData=script)
    assert machines.until_file(machines.folder(instance_id) / "code") == "1"
    assert (machines.folder(instance_id) / "said").read_text().startswith("shutdown: ")


def test_a_stopped_instance_keeps_its_folder_and_starts_without_its_user_data(machines: Machines) -> None:
    instance_id = machines.launch(UserData="#!/bin/sh\necho x >> boots\n")
    boots = machines.folder(instance_id) / "boots"
    machines.until_file(boots)
    machines.ec2.stop_instances(InstanceIds=[instance_id])
    machines.until_state(instance_id, "stopped")
    change = machines.ec2.start_instances(InstanceIds=[instance_id])["StartingInstances"][0]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("stopped", "pending")
    machines.until_state(instance_id, "running")
    assert boots.read_text() == "x\n"
    machines.ec2.stop_instances(InstanceIds=[instance_id])
    machines.until_state(instance_id, "stopped")
    machines.ec2.terminate_instances(InstanceIds=[instance_id])
    assert machines.state(instance_id) == "terminated"


def test_a_spot_instance_is_not_stopped_and_a_terminated_one_not_started(machines: Machines) -> None:
    instance_id = machines.launch(InstanceMarketOptions={"MarketType": "spot"})
    machines.until_state(instance_id, "running")
    assert refused(machines.ec2.stop_instances, InstanceIds=[instance_id])[0] == "UnsupportedOperation"
    for _ in range(2):  # terminating is idempotent
        machines.ec2.terminate_instances(InstanceIds=[instance_id])
    machines.until_state(instance_id, "terminated")
    assert refused(machines.ec2.start_instances, InstanceIds=[instance_id])[0] == "IncorrectInstanceState"
    unknown = refused(machines.ec2.terminate_instances, InstanceIds=["i-0123456789abcdef0"])
    assert unknown == ("InvalidInstanceID.NotFound", "The instance ID 'i-0123456789abcdef0' does not exist")


def test_the_aws_command_line_launches_and_waits(machines: Machines) -> None:
    def aws(*arguments: str) -> Any:
        command = ["aws", *arguments, "--output", "json"]
        finished = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        return json.loads(finished.stdout or "null")

    launched = aws("ec2", "run-instances", "--image-id", machines.image, "--instance-type", "t3.micro")
    instance_id = launched["Instances"][0]["InstanceId"]
    aws("ec2", "terminate-instances", "--instance-ids", instance_id)
    aws("ec2", "wait", "instance-terminated", "--instance-ids", instance_id)


def test_nothing_survives_a_local_aws_that_is_killed(tmp_path: Path) -> None:
    script = f"""
import boto3, time
image = boto3.client("ssm").get_parameter(Name="{UBUNTU}")["Parameter"]["Value"]
boto3.client("ec2").run_instances(
    ImageId=image, InstanceType="m5.large", MinCount=1, MaxCount=1, UserData={LEAVES_PROCESSES!r}
)
time.sleep(600)
"""
    command = [sys.executable, "-m", "deployments.local_aws", "--administrator", "--root", str(tmp_path), "--"]
    local_aws = subprocess.Popen([*command, sys.executable, "-c", script], start_new_session=True)
    try:
        pids = left_behind(tmp_path)
        local_aws.kill()
        local_aws.wait()
        deadline = time.monotonic() + 60
        while any(is_running(pid) for pid in pids):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(local_aws.pid, signal.SIGKILL)


def test_what_a_killed_local_aws_left_on_disk_is_removed_and_what_a_running_one_has_is_kept(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    for name, owner in (("i-1", str(ended.pid)), ("i-2", str(os.getpid())), ("i-3", "")):
        (tmp_path / name / "run").mkdir(parents=True)
        (tmp_path / name / "run" / "owner").write_text(owner)
    remove_abandoned(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["i-2"]


def left_behind(root: Path) -> list[int]:
    deadline = time.monotonic() + 30
    while not (parents := list(root.glob("instances/*/parent"))) or not parents[0].read_text().endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    pids = pids_below(parents[0].parent)
    assert len(pids) >= 3
    return pids
