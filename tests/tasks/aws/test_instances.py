"""The life of an instance against an EC2 that is only a list: every status and every trouble can be played."""

from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from tasks.aws import instances
from tasks.aws.errors import (
    CapacityError,
    DeadlineError,
    IdentityError,
    InstanceLostError,
    JobFailedError,
    JobStoppedError,
    RequestRefusedError,
)
from tasks.aws.identity import FLOW_RUN_TAG, Owner
from tasks.aws.instances import Launch, launch_once
from tasks.aws.jobs import Patience
from tasks.aws.settings import Settings
from tasks.contracts import Channel, Dataset, Ec2Compute, Ec2TrainingSpec, Hyperparameters

OWNER = Owner(flow_run_id="run-1", expires_at="never")
SETTINGS = Settings(
    account_id="123456789012",
    region="us-east-1",
    bucket="a-bucket",
    training_role_arn="arn",
    endpoint_role_arn="arn",
    instance_profile="profile",
    instance_security_group_id="sg-1",
    command_log_group="/aws/ssm/flows",
    lambda_role_arn="arn",
    reaper_role_arn="arn",
    front_endpoint="flows-live",
)


def refusal(code: str, status: int = 400) -> ClientError:
    answer = {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "Operation")


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.now += seconds


class FakeAws:
    """Keeps instances by id, by client token, with their tags; troubles are raised for an instance type."""

    def __init__(self) -> None:
        self.instances: list[dict[str, Any]] = []
        self.troubles: dict[str, ClientError] = {}
        self.asked: list[tuple[str, bool]] = []
        self.unlisted_looks = 0  # how often a list is still as it was before
        self.broken_sends: list[bool] = []  # for each try whether it was accepted all the same
        self.online = True
        self.invocations: list[dict[str, Any]] = []
        self.commands: list[dict[str, Any]] = []

    def run_instances(self, **request: Any) -> dict[str, Any]:
        spot = "InstanceMarketOptions" in request
        self.asked.append((request["InstanceType"], spot))
        if request["InstanceType"] in self.troubles:
            raise self.troubles[request["InstanceType"]]
        for known in self.instances:
            if known["ClientToken"] == request["ClientToken"]:
                if known["Tags"] != request["TagSpecifications"][0]["Tags"]:
                    raise refusal("IdempotentParameterMismatch")
                return {"Instances": [known]}
        new = {
            "InstanceId": f"i-{len(self.instances) + 1}",
            "InstanceType": request["InstanceType"],
            "ClientToken": request["ClientToken"],
            "Tags": request["TagSpecifications"][0]["Tags"],
            "State": {"Name": "pending"},
            **({"InstanceLifecycle": "spot"} if spot else {}),
        }
        self.instances.append(new)
        return {"Instances": [new]}

    def get_paginator(self, _operation: str) -> "FakeAws":
        return self

    def paginate(self, Filters: list[dict[str, Any]]) -> list[dict[str, Any]]:  # noqa: N803 - AWS's spelling
        states = Filters[1]["Values"]
        if self.lags():
            return []
        return [{"Reservations": [{"Instances": [i for i in self.instances if i["State"]["Name"] in states]}]}]

    def create_tags(self, Resources: list[str], Tags: list[dict[str, str]]) -> None:  # noqa: N803 - the same
        for instance in self.instances:
            if instance["InstanceId"] in Resources:
                kept = [tag for tag in instance["Tags"] if tag["Key"] not in {tag["Key"] for tag in Tags}]
                instance["Tags"] = [*kept, *Tags]

    def describe_instances(self, InstanceIds: list[str]) -> dict[str, Any]:  # noqa: N803 - AWS's spelling
        return {"Reservations": [{"Instances": [i for i in self.instances if i["InstanceId"] in InstanceIds]}]}

    def describe_instance_information(self, **_request: Any) -> dict[str, Any]:
        return {"InstanceInformationList": [{"PingStatus": "Online"}] if self.online else []}

    def get_command_invocation(self, **_request: Any) -> dict[str, Any]:
        answer = self.invocations.pop(0) if len(self.invocations) > 1 else self.invocations[0]
        if isinstance(answer, ClientError):
            raise answer
        return answer

    def list_commands(self, **_request: Any) -> dict[str, Any]:
        return {"Commands": [] if self.lags() else self.commands}

    def send_command(self, **request: Any) -> dict[str, Any]:
        broken = bool(self.broken_sends)
        if not broken or self.broken_sends.pop(0):
            self.commands.append({"CommandId": f"c-{len(self.commands) + 1}", "Comment": request["Comment"]})
        if broken:
            raise ReadTimeoutError(endpoint_url="https://ssm")
        return {"Command": self.commands[-1]}

    def lags(self) -> bool:
        self.unlisted_looks -= 1
        return self.unlisted_looks >= 0


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> FakeAws:
    fake = FakeAws()
    monkeypatch.setattr(instances, "client", lambda _service, **_options: fake)
    return fake


def spec(**compute: Any) -> Ec2TrainingSpec:
    channels = {split: Channel(s3_uri=f"s3://a-bucket/{split}.json") for split in ("train", "valid", "test")}
    dataset = Dataset(
        name="d",
        digest="d" * 64,
        bucket="a-bucket",
        classes=("0",),
        counts={},
        channels=channels,
        manifest_s3_uri="s3://a-bucket/d.json",
        total_bytes=1,
    )
    return Ec2TrainingSpec(
        dataset=dataset,
        hyperparameters=Hyperparameters(),
        compute=Ec2Compute(**compute),
        program_s3_uri="s3://a-bucket/p.tar.gz",
        image_id="ami-1",
        root_device="/dev/sda1",
    )


def patience(deadline_seconds: float = 60) -> Patience:
    return Patience(1, deadline_seconds, Clock())


def test_an_instance_is_launched_once_however_often_it_is_asked_for(aws: FakeAws) -> None:
    first = launch_once(spec(), SETTINGS, OWNER, patience())
    again = launch_once(spec(), SETTINGS, OWNER, patience())
    assert (first.how, again.how, again.ours) == ("created", "adopted", True)
    assert len(aws.instances) == 1


def test_another_run_adopts_it_and_knows_that_it_is_not_its_own(aws: FakeAws) -> None:
    launch_once(spec(), SETTINGS, OWNER, patience())
    other = launch_once(spec(), SETTINGS, OWNER.model_copy(update={"flow_run_id": "run-2"}), patience())
    assert (other.how, other.ours) == ("adopted", False)
    assert len(aws.instances) == 1
    assert {"Key": "sagemaker-flows:adopted-by", "Value": "run-2"} in aws.instances[0]["Tags"]


def test_two_runs_in_the_same_moment_have_one_instance_also_when_ec2_lists_it_late(aws: FakeAws) -> None:
    """Neither sees the other's instance before it asks: the token decides, and the list comes after it."""
    launch_once(spec(), SETTINGS, OWNER, patience())
    aws.unlisted_looks = 5
    other = launch_once(spec(), SETTINGS, OWNER.model_copy(update={"flow_run_id": "run-2"}), patience())
    assert (other.how, other.instance_id, other.ours) == ("adopted", "i-1", False)
    assert len(aws.instances) == 1


def test_a_token_that_another_instance_has_taken_and_lost_is_refused_in_the_end(aws: FakeAws) -> None:
    launch_once(spec(), SETTINGS, OWNER, patience())
    aws.unlisted_looks = 1000
    with pytest.raises(RequestRefusedError, match="IdempotentParameterMismatch"):
        launch_once(spec(), SETTINGS, OWNER.model_copy(update={"flow_run_id": "run-2"}), patience())


def test_after_one_that_is_gone_another_is_launched(aws: FakeAws) -> None:
    launch_once(spec(), SETTINGS, OWNER, patience())
    aws.instances[0]["State"] = {"Name": "terminated"}
    assert launch_once(spec(), SETTINGS, OWNER, patience()).instance_id == "i-2"


def test_a_name_with_another_content_is_not_ours_to_use(aws: FakeAws) -> None:
    launch_once(spec(), SETTINGS, OWNER, patience())
    aws.instances[0]["Tags"] = [tag for tag in aws.instances[0]["Tags"] if tag["Key"] == FLOW_RUN_TAG]
    with pytest.raises(IdentityError, match="has another content"):
        launch_once(spec(), SETTINGS, OWNER, patience())


def test_where_there_is_no_capacity_the_ladder_is_walked_spot_first(aws: FakeAws) -> None:
    aws.troubles["m5.xlarge"] = refusal("InsufficientInstanceCapacity", 500)
    found = launch_once(spec(fallbacks=("m5.2xlarge",), spot=True), SETTINGS, OWNER, patience())
    assert aws.asked == [("m5.xlarge", True), ("m5.2xlarge", True)]
    assert (found.instance_type, found.spot) == ("m5.2xlarge", True)


def test_no_capacity_anywhere_is_one_clear_error(aws: FakeAws) -> None:
    for name in ("m5.xlarge", "m5.2xlarge"):
        aws.troubles[name] = refusal("InsufficientInstanceCapacity", 500)
    with pytest.raises(CapacityError, match=r"no capacity for m5\.xlarge \(spot\), m5\.2xlarge \(spot\), m5\.xlarge, "):
        launch_once(spec(fallbacks=("m5.2xlarge",), spot=True), SETTINGS, OWNER, patience())


def test_a_quota_is_not_a_lack_of_capacity(aws: FakeAws) -> None:
    aws.troubles["m5.xlarge"] = refusal("VcpuLimitExceeded")
    with pytest.raises(RequestRefusedError, match="Service Quotas"):
        launch_once(spec(fallbacks=("m5.2xlarge",)), SETTINGS, OWNER, patience())
    assert len(aws.asked) == 1


def test_an_agent_that_never_comes_is_given_up(aws: FakeAws) -> None:
    launch = launch_once(spec(), SETTINGS, OWNER, patience())
    aws.online = False
    with pytest.raises(DeadlineError, match="was still without its SSM agent when the deadline passed"):
        instances.await_agent(launch, patience())


def test_an_instance_that_goes_away_is_told_with_ec2s_reason(aws: FakeAws) -> None:
    launch = launch_once(spec(), SETTINGS, OWNER, patience())
    reason = {"Message": "Server.SpotInstanceTermination: Spot instance termination"}
    aws.instances[0] |= {"State": {"Name": "terminated"}, "StateReason": reason}
    with pytest.raises(InstanceLostError, match=r"went away, it is terminated: Server\.SpotInstanceTermination"):
        instances.await_agent(launch, patience())


def command(aws: FakeAws, *invocations: Any) -> dict[str, Any]:
    launch = launch_once(spec(), SETTINGS, OWNER, patience())
    aws.invocations = list(invocations)
    return instances.await_command(launch, "c-1", patience(), lambda _: None, lambda: ("its last line",))


def test_a_command_that_is_not_known_everywhere_yet_is_waited_for(aws: FakeAws) -> None:
    unknown = refusal("InvocationDoesNotExist")
    assert command(aws, unknown, {"Status": "InProgress"}, {"Status": "Success"})["Status"] == "Success"


@pytest.mark.parametrize(
    ("end", "error", "words"),
    [
        ({"Status": "Failed", "ResponseCode": 3}, JobFailedError, r"failed: exit code 3\n.*\n  its last line"),
        ({"Status": "Cancelled"}, JobStoppedError, "was stopped before it was done"),
        ({"Status": "TimedOut", "StatusDetails": "Execution Timed Out"}, JobStoppedError, "ran out of its time limit"),
        ({"Status": "TimedOut", "StatusDetails": "Delivery Timed Out"}, JobStoppedError, "Delivery Timed Out"),
        ({"Status": "InProgress"}, DeadlineError, "was still InProgress"),
    ],
)
def test_only_success_is_success(aws: FakeAws, end: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        command(aws, end)


def test_a_command_is_sent_once_and_by_who_launched(aws: FakeAws) -> None:
    launch = launch_once(spec(), SETTINGS, OWNER, patience())
    other = Launch(launch.name, launch.instance_id, "m5.xlarge", spot=False, how="adopted", ours=False)

    def request(_instance: Any) -> dict[str, Any]:
        return {"Comment": launch.name}

    assert instances.send_once(launch, request, patience()) == "c-1"
    assert instances.send_once(launch, request, patience()) == "c-1"
    assert instances.send_once(other, request, patience()) == "c-1"
    assert len(aws.commands) == 1


def test_who_adopted_sends_when_the_launcher_never_does(aws: FakeAws) -> None:
    launch = launch_once(spec(), SETTINGS, OWNER, patience())
    orphan = Launch(launch.name, launch.instance_id, "m5.xlarge", spot=False, how="adopted", ours=False)
    assert instances.send_once(orphan, lambda _: {"Comment": launch.name}, patience()) == "c-1"


@pytest.mark.parametrize("unlisted_looks", [1, 4])
def test_a_command_whose_answer_was_lost_is_found_and_not_sent_again(aws: FakeAws, unlisted_looks: int) -> None:
    """Two of them would train at once, and write to one folder."""
    launch = launch_once(spec(), SETTINGS, OWNER, patience())
    aws.broken_sends, aws.unlisted_looks = [True], unlisted_looks
    assert instances.send_once(launch, lambda _: {"Comment": launch.name}, patience()) == "c-1"
    assert len(aws.commands) == 1


def test_a_command_that_never_arrived_may_be_sent_again(aws: FakeAws) -> None:
    launch = launch_once(spec(), SETTINGS, OWNER, patience())
    aws.broken_sends = [False]
    with pytest.raises(ReadTimeoutError):
        instances.send_once(launch, lambda _: {"Comment": launch.name}, patience())
    assert instances.send_once(launch, lambda _: {"Comment": launch.name}, patience()) == "c-1"


def test_botocore_does_not_send_a_command_twice(monkeypatch: pytest.MonkeyPatch, aws: FakeAws) -> None:
    launch = launch_once(spec(), SETTINGS, OWNER, patience())
    attempts = []

    def client(_service: str, **options: int) -> FakeAws:
        attempts.append(options.get("attempts"))
        return aws

    monkeypatch.setattr(instances, "client", client)
    instances.send_once(launch, lambda _: {"Comment": launch.name}, patience())
    assert attempts[-1] == 1
