"""Run Command of the local AWS: what Systems Manager promises, kept by real shells on real instances."""

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from deployments.local_aws.instance import Instance
from deployments.local_aws.run_command import RunCommand

pytestmark = pytest.mark.slow

UBUNTU = "/aws/service/deeplearning/ami/x86_64/oss-nvidia-driver-gpu-pytorch-2.10-ubuntu-24.04/latest/ami-id"
WAITING = ("Pending", "InProgress", "Delayed", "Cancelling")
DOCUMENT = "AWS-RunShellScript"


class Node:
    """An instance whose agent is online, as a test uses it."""

    def __init__(self, cloud: Any, root: Path) -> None:
        self.cloud, self.root = cloud, root
        self.ec2, self.ssm = boto3.client("ec2"), boto3.client("ssm")
        self.id = self.launch()
        self.until_online(self.id)

    def launch(self, **changes: Any) -> str:
        request = {
            "ImageId": self.ssm.get_parameter(Name=UBUNTU)["Parameter"]["Value"],
            "InstanceType": "m5.large",
            "MinCount": 1,
            "MaxCount": 1,
            "IamInstanceProfile": {"Name": self.cloud.outputs["InstanceProfileName"]},
            **changes,
        }
        return str(self.ec2.run_instances(**request)["Instances"][0]["InstanceId"])

    @property
    def folder(self) -> Path:
        return self.root / "instances" / self.id

    def pings(self, instance_id: str) -> list[str]:
        asked = [{"Key": "InstanceIds", "Values": [instance_id]}]
        answer = self.ssm.describe_instance_information(Filters=asked)
        return [one["PingStatus"] for one in answer["InstanceInformationList"]]

    def until_online(self, instance_id: str) -> None:
        self.cloud.until(lambda: self.pings(instance_id), lambda seen: seen == ["Online"], 10)

    def state(self, instance_id: str) -> str:
        seen = self.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
        return str(seen["State"]["Name"])

    def send(self, script: str, instance_id: str = "", **changes: Any) -> str:
        parameters = {"commands": script.splitlines(), **changes.pop("Parameters", {})}
        request = {"InstanceIds": [instance_id or self.id], "DocumentName": DOCUMENT, "Parameters": parameters}
        return str(self.ssm.send_command(**request, **changes)["Command"]["CommandId"])

    def invocation(self, command_id: str, instance_id: str = "") -> dict[str, Any]:
        try:
            return dict(self.ssm.get_command_invocation(CommandId=command_id, InstanceId=instance_id or self.id))
        except self.ssm.exceptions.InvocationDoesNotExist:
            return {"Status": "Pending"}

    def until(self, command_id: str, *statuses: str) -> dict[str, Any]:
        look = lambda: self.invocation(command_id)  # noqa: E731
        return dict(self.cloud.until(look, lambda seen: seen["Status"] in statuses, 20))

    def end(self, command_id: str, instance_id: str = "") -> dict[str, Any]:
        look = lambda: self.invocation(command_id, instance_id)  # noqa: E731
        return dict(self.cloud.until(look, lambda seen: seen["Status"] not in WAITING, 20))

    def run(self, script: str, **changes: Any) -> dict[str, Any]:
        return self.end(self.send(script, **changes))

    def until_file(self, name: str) -> str:
        path = self.folder / "root" / name
        self.cloud.until(lambda: path.exists() and path.read_text().endswith("\n"), bool, 10)
        return path.read_text().strip()

    def object(self, key: str) -> str:
        return str(self.cloud.s3.get_object(Bucket=self.cloud.bucket, Key=key)["Body"].read().decode())

    def log(self, group: str, command_id: str, name: str) -> str:
        events = self.cloud.lines(group, f"{command_id}/{self.id}/aws-runShellScript/{name}")
        return "\n".join(event.removesuffix("\n") for event in events)


@pytest.fixture(scope="module")
def node(cloud: Any, local_aws: Any) -> Iterator[Node]:
    node = Node(cloud, local_aws.account.root)
    yield node
    node.ec2.terminate_instances(InstanceIds=[node.id])


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


# --- the shell ------------------------------------------------------------------------------------------------------


def test_a_command_runs_in_the_instances_folder_as_its_role(node: Node) -> None:
    script = "pwd\necho $HOME\nexport AWS_DEFAULT_REGION=$AWS_SSM_REGION_NAME\naws sts get-caller-identity --query Arn"
    ended = node.run(script)
    home, home_again, arn = ended["StandardOutputContent"].splitlines()
    assert (ended["Status"], ended["StatusDetails"], ended["ResponseCode"]) == ("Success", "Success", 0)
    assert home == home_again == str(node.folder / "root")
    assert json.loads(arn).startswith("arn:aws:sts::123456789012:assumed-role/sagemaker-flows-InstanceRole-")
    assert json.loads(arn).endswith(f"/{node.id}")
    assert ended["ExecutionStartDateTime"] <= ended["ExecutionEndDateTime"]
    assert ended["ExecutionElapsedTime"].startswith("PT")


def test_it_sees_nothing_of_the_environment_it_was_started_from(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET_TOKEN", "hunter2")
    seen = dict(line.partition("=")[::2] for line in node.run("env")["StandardOutputContent"].splitlines())
    assert "MY_SECRET_TOKEN" not in seen
    assert seen["AWS_SSM_INSTANCE_ID"] == node.id
    assert seen["PIP_NO_INDEX"] == "1"
    # As on EC2: a script that needs a region must say which.
    assert not {"AWS_REGION", "AWS_DEFAULT_REGION"} & set(seen)


def test_the_commands_are_one_script_whose_first_line_may_choose_the_shell(node: Node) -> None:
    ended = node.run("#!/bin/bash\nvalue=$((40 + 2))\necho ${BASH_VERSION:+bash} $value")
    assert ended["StandardOutputContent"] == "bash 42\n"
    assert node.run("echo ${BASH_VERSION:-none}\nfalse\necho goes on")["StandardOutputContent"] == "none\ngoes on\n"


def test_a_working_directory_is_the_instances_and_must_be_there(node: Node) -> None:
    ended = node.run("pwd", Parameters={"workingDirectory": ["/home/ubuntu"]})
    assert ended["StandardOutputContent"].strip() == str(node.folder / "home" / "ubuntu")
    missing = node.run("pwd", Parameters={"workingDirectory": ["/../../nowhere"]})
    assert (missing["Status"], "no such file or directory" in missing["StandardErrorContent"]) == ("Failed", True)


def test_a_failing_command_tells_its_exit_code(node: Node) -> None:
    ended = node.run("echo out\necho err >&2\nexit 3")
    assert (ended["Status"], ended["StatusDetails"], ended["ResponseCode"]) == ("Failed", "Failed", 3)
    assert ended["StandardOutputContent"] == "out\n"
    assert ended["StandardErrorContent"] == "err\nfailed to run commands: exit status 3"


def test_what_a_command_leaves_in_the_background_lives_on(node: Node) -> None:
    """A machine is no container: a server that a command starts is there for the next one."""
    node.run("(sleep 0.3; echo still here > background) > /dev/null 2>&1 &\necho $! > pid")
    assert is_running(int(node.until_file("pid")))
    assert node.until_file("background") == "still here"


# --- output ---------------------------------------------------------------------------------------------------------


def test_long_output_arrives_whole_in_s3_and_in_the_logs_though_the_api_cuts_it(node: Node) -> None:
    group = node.cloud.outputs["CommandLogGroup"]
    command_id = node.send(
        "seq 100000 120000\nseq 500000 504999 >&2",
        OutputS3BucketName=node.cloud.bucket,
        OutputS3KeyPrefix="commands",
        CloudWatchOutputConfig={"CloudWatchOutputEnabled": True, "CloudWatchLogGroupName": group},
    )
    ended = node.end(command_id)
    out = "".join(f"{number}\n" for number in range(100_000, 120_001))
    err = "".join(f"{number}\n" for number in range(500_000, 505_000))
    assert ended["StandardOutputContent"] == out[:24_000]
    assert ended["StandardErrorContent"] == err[:8_000]
    prefix = f"commands/{command_id}/{node.id}/awsrunShellScript/0.awsrunShellScript"
    assert (node.object(f"{prefix}/stdout"), node.object(f"{prefix}/stderr")) == (out, err)
    assert ended["StandardOutputUrl"].endswith(f"/{node.cloud.bucket}/{prefix}/stdout")
    assert (node.log(group, command_id, "stdout") + "\n", node.log(group, command_id, "stderr") + "\n") == (out, err)


def test_bytes_and_unfinished_lines_arrive_as_they_were_written(node: Node) -> None:
    place = {"OutputS3BucketName": node.cloud.bucket, "OutputS3KeyPrefix": "commands"}
    command_id = node.send(r"printf '1%%\r2%%\rdone\n\377\nno newline'", **place)
    node.end(command_id)
    key = f"commands/{command_id}/{node.id}/awsrunShellScript/0.awsrunShellScript"
    body = node.cloud.s3.get_object(Bucket=node.cloud.bucket, Key=f"{key}/stdout")["Body"].read()
    assert body == b"1%\r2%\rdone\n\xff\nno newline"
    # What has nothing in it is not uploaded.
    assert node.cloud.s3.list_objects_v2(Bucket=node.cloud.bucket, Prefix=key)["KeyCount"] == 1


def test_lines_are_in_the_logs_while_the_command_runs_and_in_the_answer_only_afterwards(node: Node) -> None:
    iam, profile = boto3.client("iam"), node.cloud.outputs["InstanceProfileName"]
    role = iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"][0]["RoleName"]
    group = f"/aws/ssm/{DOCUMENT}"  # where lines go when no group is named; the foundation's is another
    allowed = {"Effect": "Allow", "Action": "logs:*", "Resource": f"arn:aws:logs:*:*:log-group:{group}:*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": allowed})
    iam.put_role_policy(RoleName=role, PolicyName="default-group", PolicyDocument=policy)
    config = {"CloudWatchOutputEnabled": True}
    command_id = node.send(
        "echo begun\nwhile [ ! -e go ]; do sleep 0.05; done\necho over", CloudWatchOutputConfig=config
    )
    groups = node.cloud.logs.describe_log_groups
    node.cloud.until(lambda: groups(logGroupNamePrefix=group)["logGroups"], bool, 10)
    node.cloud.until(lambda: node.log(group, command_id, "stdout"), lambda text: text == "begun", 10)
    running = node.invocation(command_id)
    assert (running["Status"], running["StandardOutputContent"], running["ResponseCode"]) == ("InProgress", "", -1)
    (node.folder / "root" / "go").touch()
    assert node.end(command_id)["StandardOutputContent"] == "begun\nover\n"
    assert node.log(group, command_id, "stdout") == "begun\nover"
    iam.delete_role_policy(RoleName=role, PolicyName="default-group")


def test_a_bucket_that_is_not_there_does_not_change_how_a_command_ended(node: Node) -> None:
    assert node.run("echo x", OutputS3BucketName="no-such-bucket-at-all")["Status"] == "Success"


# --- ends -----------------------------------------------------------------------------------------------------------

FAMILY = """trap '' TERM
setsid sh -c 'trap "" TERM; echo $$ > grandchild; while :; do sleep 0.1; done' &
while [ ! -s grandchild ]; do sleep 0.02; done
echo $$ > parent
while :; do sleep 0.1; done"""


def family(node: Node) -> list[int]:
    pids = [int(node.until_file(name)) for name in ("parent", "grandchild")]
    for name in ("parent", "grandchild"):
        (node.folder / "root" / name).unlink()
    assert all(is_running(pid) for pid in pids)
    return pids


def test_the_execution_timeout_ends_a_command_with_its_children(node: Node) -> None:
    command_id = node.send(FAMILY, Parameters={"executionTimeout": ["2"]})
    pids = family(node)
    ended = node.end(command_id)
    assert (ended["Status"], ended["StatusDetails"], ended["ResponseCode"]) == ("TimedOut", "ExecutionTimedOut", 137)
    assert not any(is_running(pid) for pid in pids)


def test_a_cancelled_command_ends_with_its_children(node: Node) -> None:
    command_id = node.send(FAMILY)
    pids = family(node)
    node.ssm.cancel_command(CommandId=command_id, InstanceIds=[node.id])
    ended = node.end(command_id)
    assert (ended["Status"], ended["StatusDetails"], ended["ResponseCode"]) == ("Cancelled", "Cancelled", 137)
    assert not any(is_running(pid) for pid in pids)
    node.ssm.cancel_command(CommandId=command_id)  # what has ended stays as it is
    assert node.invocation(command_id)["Status"] == "Cancelled"


def test_an_instance_takes_its_command_with_it_which_then_tells_nothing_until_it_expires(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks at the command only waits for its whole time: the instance is to be watched too."""
    monkeypatch.setattr(Instance, "shutdown_grace_seconds", 0.2)
    other = node.launch()
    node.until_online(other)
    command_id = node.send("echo $$ > pid\nexec sleep 600", other, TimeoutSeconds=30)
    path = node.root / "instances" / other / "root" / "pid"
    node.cloud.until(lambda: path.exists() and path.read_text().endswith("\n"), bool, 10)
    pid = int(path.read_text())
    node.ec2.terminate_instances(InstanceIds=[other])
    node.cloud.until(lambda: node.state(other), lambda state: state == "terminated", 10)
    assert not is_running(pid)
    assert node.invocation(command_id, other)["Status"] == "InProgress"
    assert node.pings(other) == []

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz or UTC) + timedelta(seconds=3631)

    monkeypatch.setattr("deployments.local_aws.command_invocation.datetime", Later)
    expired = node.invocation(command_id, other)
    assert (expired["Status"], expired["StatusDetails"], expired["ResponseCode"]) == (
        "TimedOut",
        "DeliveryTimedOut",
        -1,
    )


def test_a_command_can_end_its_own_instance(node: Node) -> None:
    other = node.launch(InstanceInitiatedShutdownBehavior="terminate")
    node.until_online(other)
    node.send("shutdown -h now\nexec sleep 600", other)
    node.cloud.until(lambda: node.state(other), lambda state: state == "terminated", 10)


# --- who is reached -------------------------------------------------------------------------------------------------


def test_the_agent_comes_online_a_moment_after_the_instance_runs(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Instance, "agent_seconds", 1000.0)
    other = node.launch()
    node.cloud.until(lambda: node.state(other), lambda state: state == "running", 10)
    assert node.pings(other) == []
    code, message = refused(
        node.ssm.send_command, InstanceIds=[other], DocumentName=DOCUMENT, Parameters={"commands": ["true"]}
    )
    assert (code, message) == (
        "InvalidInstanceId",
        f"Instances [[{other}]] not in a valid state for account 123456789012",
    )
    monkeypatch.setattr(Instance, "agent_seconds", 0.0)
    node.until_online(other)
    node.ec2.stop_instances(InstanceIds=[other])
    node.cloud.until(lambda: node.state(other), lambda state: state == "stopped", 10)
    assert node.pings(other) == ["ConnectionLost"]
    node.ec2.start_instances(InstanceIds=[other])
    node.until_online(other)
    assert node.end(node.send("echo again", other), other)["StandardOutputContent"] == "again\n"


def test_the_agent_of_an_instance_without_a_profile_never_comes_online(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Instance, "agent_seconds", 0.0)
    without = node.launch(IamInstanceProfile={})
    node.cloud.until(lambda: node.state(without), lambda state: state == "running", 10)
    node.until_online(node.launch())  # one launched later is there
    assert node.pings(without) == []


def test_nodes_are_described_and_filtered(node: Node) -> None:
    seen = node.ssm.describe_instance_information(
        InstanceInformationFilterList=[{"key": "InstanceIds", "valueSet": [node.id]}]
    )["InstanceInformationList"]
    assert [(one["PlatformType"], one["PlatformName"], one["ResourceType"]) for one in seen] == [
        ("Linux", "Ubuntu", "EC2Instance")
    ]
    code, _ = refused(node.ssm.describe_instance_information, Filters=[{"Key": "IamRole", "Values": ["x"]}])
    assert code == "InvalidFilterKey"


# --- lists and refusals ---------------------------------------------------------------------------------------------


def test_a_command_and_its_invocations_are_listed(node: Node) -> None:
    command_id = node.send("echo listed\necho wrong >&2\nexit 1", Comment="for the list")
    node.end(command_id)
    command = node.ssm.list_commands(CommandId=command_id)["Commands"][0]
    assert (command["Status"], command["Comment"], command["ErrorCount"]) == ("Failed", "for the list", 1)
    assert (command["TargetCount"], command["CompletedCount"]) == (1, 1)
    invocation = node.ssm.list_command_invocations(CommandId=command_id, Details=True)["CommandInvocations"][0]
    plugin = invocation["CommandPlugins"][0]
    assert (invocation["Status"], plugin["Name"], plugin["ResponseCode"]) == ("Failed", "aws:runShellScript", 1)
    assert plugin["Output"].startswith("listed\n\n----------ERROR-------\nwrong\n")
    assert node.ssm.list_command_invocations(CommandId=command_id)["CommandInvocations"][0]["CommandPlugins"] == []


def test_commands_are_listed_newest_first_by_instance_and_status(node: Node) -> None:
    first, second = node.send("exit 1"), node.send("exit 2")
    node.end(first)
    node.end(second)
    asked = {"InstanceId": node.id, "Filters": [{"key": "Status", "value": "Failed"}]}
    pages = node.ssm.get_paginator("list_commands").paginate(**asked, PaginationConfig={"PageSize": 1, "MaxItems": 2})
    assert [one["CommandId"] for page in pages for one in page["Commands"]] == [second, first]
    assert node.ssm.list_commands(InstanceId="i-0123456789abcdef0")["Commands"] == []


def test_a_command_goes_to_several_instances(node: Node) -> None:
    other = node.launch()
    node.until_online(other)
    sent = node.ssm.send_command(
        InstanceIds=[node.id, other],
        DocumentName=DOCUMENT,
        Parameters={"commands": [f"test $AWS_SSM_INSTANCE_ID = {node.id}"]},
    )
    command_id = sent["Command"]["CommandId"]
    assert [node.end(command_id, one)["Status"] for one in (node.id, other)] == ["Success", "Failed"]
    command = node.ssm.list_commands(CommandId=command_id)["Commands"][0]
    assert (command["Status"], command["CompletedCount"], command["ErrorCount"]) == ("Failed", 2, 1)


def test_an_invocation_is_unknown_for_a_moment_after_it_was_sent(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that takes this for an answer gives up a command that runs."""
    monkeypatch.setattr(RunCommand, "propagation_seconds", 1000.0)
    command_id = node.send("true")
    assert refused(node.ssm.get_command_invocation, CommandId=command_id, InstanceId=node.id)[0] == (
        "InvocationDoesNotExist"
    )
    assert node.ssm.list_command_invocations(CommandId=command_id)["CommandInvocations"] == []
    monkeypatch.setattr(RunCommand, "propagation_seconds", 0.0)
    waiter = node.ssm.get_waiter("command_executed")
    waiter.wait(CommandId=command_id, InstanceId=node.id, WaiterConfig={"Delay": 1, "MaxAttempts": 5})


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"DocumentName": "AWS-RunPowerShellScript"}, "InvalidDocument"),
        ({"InstanceIds": ["i-0123456789abcdef0"]}, "InvalidInstanceId"),
        ({"Parameters": {"commands": ["true"], "executionTimeout": ["0"]}}, "InvalidParameters"),
        ({"Parameters": {"commands": ["true"], "timeout": ["9"]}}, "InvalidParameters"),
        ({"Parameters": {}}, "InvalidParameters"),
        ({"MaxErrors": "1"}, "ValidationException"),
        ({"Targets": [{"Key": "tag:a", "Values": ["b"]}]}, "ValidationException"),
    ],
)
def test_a_command_that_would_not_run_as_asked_is_refused(node: Node, change: dict[str, Any], code: str) -> None:
    request = {"InstanceIds": [node.id], "DocumentName": DOCUMENT, "Parameters": {"commands": ["true"]}, **change}
    assert refused(node.ssm.send_command, **request)[0] == code


def test_a_command_that_is_not_known_is_refused(node: Node) -> None:
    unknown = "01234567-89ab-cdef-0123-456789abcdef"
    assert refused(node.ssm.cancel_command, CommandId=unknown)[0] == "InvalidCommandId"
    assert refused(node.ssm.get_command_invocation, CommandId=unknown, InstanceId=node.id)[0] == "InvalidCommandId"


def test_what_systems_manager_has_beside_is_not_pretended(node: Node) -> None:
    _, message = refused(node.ssm.create_document, Name="mine", Content="{}", DocumentType="Command")
    assert "does not implement ssm:CreateDocument" in message


def test_the_aws_command_line_sends_a_command(node: Node) -> None:
    command = ["aws", "ssm", "send-command", "--instance-ids", node.id, "--document-name", DOCUMENT]
    finished = subprocess.run(
        [*command, "--parameters", "commands=['echo by hand']"], check=True, capture_output=True, text=True, timeout=60
    )
    command_id = json.loads(finished.stdout)["Command"]["CommandId"]
    assert node.end(command_id)["StandardOutputContent"] == "by hand\n"
