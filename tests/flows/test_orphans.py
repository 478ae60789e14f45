"""`reap_orphans` as its user runs it: what nobody waits for is ended, by a role that can end nothing else."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import boto3
import httpx
import pytest

from deployments.local_aws.usage import unused_actions
from tasks.aws.identity import Owner, tags_of
from tasks.aws.settings import Settings, load_settings
from tasks.contracts import Scaling
from tasks.scaling import put_under_scaling

pytestmark = pytest.mark.slow

PAST, FUTURE = "2026-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00"
SLEEPS = "import time; time.sleep(600)"


@pytest.fixture(scope="module")
def settings(local_aws: Any) -> Settings:
    return load_settings()


@pytest.fixture(scope="module")
def flow_run(prefect_api: httpx.Client) -> Callable[[str], str]:
    """Make a flow run in a state, and return its id."""
    flow = prefect_api.post("/flows/", json={"name": "some-flow"}).raise_for_status().json()["id"]

    def made(state: str) -> str:
        body = {"flow_id": flow, "state": {"type": state}}
        run: str = prefect_api.post("/flow_runs/", json=body).raise_for_status().json()["id"]
        # A new run has the state that a client may give it; what it became is told to it.
        told = {"state": {"type": state}, "force": True}
        prefect_api.post(f"/flow_runs/{run}/set_state", json=told).raise_for_status()
        return run

    return made


def tags(run: str = "none", expires_at: str = FUTURE) -> list[dict[str, str]]:
    return tags_of(Owner(flow_run_id=run, expires_at=expires_at), "a digest")


def as_mapping(listed: list[dict[str, str]]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in listed}


class Account:
    """What is made here without a flow, as another run of this project, or somebody else, has made it."""

    def __init__(self, settings: Settings, package: str, program: str) -> None:
        self.settings, self.package, self.program = settings, package, program
        self.sagemaker = boto3.client("sagemaker")

    def training_job(self, name: str, tagged: list[dict[str, str]]) -> str:
        definition = {"TrainingJobName": name, **self._definition(), "Tags": tagged}
        definition["HyperParameters"] = definition.pop("StaticHyperParameters")
        algorithm = definition["AlgorithmSpecification"]
        self.sagemaker.create_training_job(
            **definition | {"AlgorithmSpecification": {k: v for k, v in algorithm.items() if k != "MetricDefinitions"}}
        )
        return name

    def tuning_job(self, name: str, tagged: list[dict[str, str]]) -> str:
        limits = {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1}
        ranges = {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}
        config = {"Strategy": "Random", "ResourceLimits": limits, "ParameterRanges": ranges}
        config |= {"HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"}}
        self.sagemaker.create_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=name,
            HyperParameterTuningJobConfig=config,
            TrainingJobDefinition=self._definition(),
            Tags=tagged,
        )
        return name

    def _definition(self) -> dict[str, Any]:
        return {
            "StaticHyperParameters": {
                "sagemaker_program": '"train.py"',
                "sagemaker_submit_directory": json.dumps(self.program),
            },
            "AlgorithmSpecification": {
                "TrainingImage": "an-image",
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "loss", "Regex": "loss=(.*)"}],
            },
            "RoleArn": self.settings.training_role_arn,
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.settings.bucket}/jobs"},
            "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        }

    def endpoint(self, name: str, tagged: list[dict[str, str]]) -> str:
        role, container = self.settings.endpoint_role_arn, {"Image": "an-image", "ModelDataUrl": self.package}
        self.sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=role, Tags=tagged)
        variant = {"VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.m5.large"}
        variant |= {"InitialInstanceCount": 1}
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], Tags=tagged)
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name, Tags=tagged)
        self.sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 1})
        return name

    def instance(self, tagged: list[dict[str, str]]) -> str:
        ec2 = boto3.client("ec2")
        image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        specification = [{"ResourceType": "instance", "Tags": tagged}] if tagged else []
        request = {"ImageId": image, "InstanceType": "m5.xlarge", "MinCount": 1, "MaxCount": 1}
        made = ec2.run_instances(**request, TagSpecifications=specification)
        return str(made["Instances"][0]["InstanceId"])

    def warm_function(self, name: str, tagged: list[dict[str, str]]) -> str:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("f.py", "def handler(event, context):\n    return 1\n")
        aws = boto3.client("lambda")
        aws.create_function(
            FunctionName=name,
            Runtime="python3.13",
            Role=self.settings.lambda_role_arn,
            Handler="f.handler",
            Code={"ZipFile": buffer.getvalue()},
            Publish=True,
            Tags=as_mapping(tagged),
        )
        aws.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
        aws.put_provisioned_concurrency_config(FunctionName=name, Qualifier="1", ProvisionedConcurrentExecutions=1)
        return name


@pytest.fixture(scope="module")
def account(settings: Settings, stage_package: Any) -> Account:
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("train.py")
        member.size = len(SLEEPS)
        archive.addfile(member, io.BytesIO(SLEEPS.encode()))
    boto3.client("s3").put_object(Bucket=settings.bucket, Key="code/sleeps.tar.gz", Body=buffer.getvalue())
    return Account(settings, stage_package("orphans"), f"s3://{settings.bucket}/code/sleeps.tar.gz")


def job_status(name: str) -> str:
    described = boto3.client("sagemaker").describe_training_job(TrainingJobName=name)
    return str(described["TrainingJobStatus"])


def instance_state(instance: str) -> str:
    found = boto3.client("ec2").describe_instances(InstanceIds=[instance])
    return str(found["Reservations"][0]["Instances"][0]["State"]["Name"])


def endpoints() -> set[str]:
    listed = boto3.client("sagemaker").list_endpoints(MaxResults=100)["Endpoints"]
    return {one["EndpointName"] for one in listed if one["EndpointStatus"] != "Deleting"}


def warm(function: str) -> list[Any]:
    listed = boto3.client("lambda").list_provisioned_concurrency_configs(FunctionName=function)
    return list(listed["ProvisionedConcurrencyConfigs"])


@pytest.fixture(scope="module")
def reaped(
    account: Account, flow_run: Callable[[str], str], settings: Settings, run_flow: Any
) -> Iterator[dict[str, Any]]:
    """An account full of orphans and of what is none; what a dry run, a run and another run said."""
    over, alive = flow_run("CRASHED"), flow_run("RUNNING")
    in_an_hour = (datetime.now(tz=UTC) + timedelta(hours=1)).isoformat()
    adopted = [*tags(over), {"Key": "sagemaker-flows:adopted-by", "Value": alive}]
    names = {
        "abandoned job": account.training_job("flows-reap-abandoned", tags(over)),
        "late job": account.training_job("flows-reap-late", tags(alive, PAST)),
        "awaited job": account.training_job("flows-reap-awaited", tags(alive)),
        "adopted job": account.training_job("flows-reap-adopted", adopted),
        "job of another server": account.training_job("flows-reap-elsewhere", tags(str(uuid4()))),
        "untagged job": account.training_job("flows-reap-untagged", [{"Key": "project", "Value": "another"}]),
        "abandoned tuning": account.tuning_job("flows-reap-tuning", tags(over)),
        "abandoned instance": account.instance(tags(over, in_an_hour)),
        "untagged instance": account.instance([]),
        "late endpoint": account.endpoint("flows-reap-late", tags(over, PAST)),
        "kept endpoint": account.endpoint("flows-reap-kept", tags(over)),
        "untagged endpoint": account.endpoint("flows-reap-untagged", []),
        "late function": account.warm_function("flows-reap-late", tags(over, PAST)),
        "kept function": account.warm_function("flows-reap-kept", tags(over, "never")),
    }
    scaling = Scaling(target=100_000, min_instances=1, max_instances=2)
    put_under_scaling.fn("flows-reap-late", scaling, settings)
    runs = [run_flow("reap_orphans", "--dry-run")]
    before = {"job": job_status(names["abandoned job"]), "endpoints": endpoints()}
    runs += [run_flow("reap_orphans"), run_flow("reap_orphans")]
    assert [run.returncode for run in runs] == [0, 0, 0], [run.stderr[-3000:] for run in runs]
    yield {**names, "before": before, "said": [run.stdout for run in runs]}
    _clean(account)


def _clean(account: Account) -> None:
    for job in account.sagemaker.list_training_jobs(NameContains="flows-reap", StatusEquals="InProgress")[
        "TrainingJobSummaries"
    ]:
        account.sagemaker.stop_training_job(TrainingJobName=job["TrainingJobName"])
    for name in ("flows-reap-kept", "flows-reap-untagged"):
        account.sagemaker.delete_endpoint(EndpointName=name)
        account.sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig={"Delay": 1})
        account.sagemaker.delete_endpoint_config(EndpointConfigName=name)
        account.sagemaker.delete_model(ModelName=name)
    for name in ("flows-reap-late", "flows-reap-kept"):
        boto3.client("lambda").delete_function(FunctionName=name)


ORPHANS = {
    "training job flows-reap-abandoned: the flow run that waited for it is over",
    "training job flows-reap-late: past due since 2026-01-01 00:00 UTC",
    "tuning job flows-reap-tuning: the flow run that waited for it is over",
    "endpoint flows-reap-late: past due since 2026-01-01 00:00 UTC",
    "provisioned concurrency flows-reap-late:1: past due since 2026-01-01 00:00 UTC",
}


def test_a_dry_run_says_what_would_go_and_ends_nothing(reaped: dict[str, Any]) -> None:
    for orphan in (*ORPHANS, f"instance {reaped['abandoned instance']}: the flow run that waited for it is over"):
        assert f"would end {orphan}" in reaped["said"][0]
    for wanted in ("awaited", "adopted", "elsewhere", "untagged", "kept", "untagged instance"):
        assert reaped.get(wanted, f"flows-reap-{wanted}") not in reaped["said"][0]
    assert reaped["before"]["job"] == "InProgress"
    assert "flows-reap-late" in reaped["before"]["endpoints"]


def test_what_nobody_waits_for_is_ended(reaped: dict[str, Any]) -> None:
    assert job_status(reaped["abandoned job"]) in ("Stopping", "Stopped")
    assert job_status(reaped["late job"]) in ("Stopping", "Stopped")
    tuning = boto3.client("sagemaker").describe_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=reaped["abandoned tuning"]
    )
    assert tuning["HyperParameterTuningJobStatus"] in ("Stopping", "Stopped")
    assert instance_state(reaped["abandoned instance"]) in ("shutting-down", "terminated")
    assert "flows-reap-late" not in endpoints()
    assert warm("flows-reap-late") == []


def test_what_it_saves_is_said(reaped: dict[str, Any]) -> None:
    """Two jobs, a trial and an instance of an hour at most, a day of an endpoint and of what was warm."""
    saved = float(reaped["said"][1].rpartition("\n$")[2].split()[0])
    assert 4 * 0.19 * 0.9 + 24 * 0.115 < saved < 10


def test_what_is_wanted_or_not_ours_stays(reaped: dict[str, Any]) -> None:
    for job in ("awaited job", "adopted job", "job of another server", "untagged job"):
        assert job_status(reaped[job]) == "InProgress", job
    assert instance_state(reaped["untagged instance"]) in ("pending", "running")
    assert {"flows-reap-kept", "flows-reap-untagged"} <= endpoints()
    assert len(warm("flows-reap-kept")) == 1


def test_the_second_time_there_is_nothing_to_do(reaped: dict[str, Any]) -> None:
    assert reaped["said"][2].strip() == "Nothing bills that nobody waits for"


def test_it_leaves_an_artifact(reaped: dict[str, Any], prefect_api: httpx.Client) -> None:
    found = prefect_api.post("/artifacts/filter", json={"limit": 200}).raise_for_status().json()
    orphans = [artifact["data"] for artifact in found if artifact["key"] == "orphans"]
    assert any("flows-reap-abandoned" in text and "saved" in text for text in orphans)


@pytest.mark.usefixtures("reaped")
def test_others_are_told_of_it(assert_told: Callable[[str, set[str]], None]) -> None:
    assert_told("orphan.reaped", {"flows-reap-late", "flows-reap-late:1"})


# --- its rights -----------------------------------------------------------------------------------------------------


def policy_of_the_reaper(settings: Settings) -> dict[str, Any]:
    role = settings.reaper_role_arn.rpartition("/")[2]
    document: Any = boto3.client("iam").get_role_policy(RoleName=role, PolicyName="reap")["PolicyDocument"]
    return dict(document)


@pytest.mark.usefixtures("reaped")
def test_the_reapers_role_may_nothing_that_it_does_not_do(local_aws: Any, settings: Settings) -> None:
    """But to take the scaling off an endpoint that is gone, which the local AWS does by itself."""
    unused = unused_actions(policy_of_the_reaper(settings), local_aws.record.uses, "-ReaperRole-")
    assert unused <= {"application-autoscaling:ListTagsForResource"}


def test_the_reaper_cannot_end_what_does_not_carry_the_tag(reaped: dict[str, Any], settings: Settings) -> None:
    from botocore.exceptions import ClientError

    from tasks.aws.clients import acting_as, client

    with acting_as(settings.reaper_role_arn):
        for attempt in (
            lambda: client("sagemaker").stop_training_job(TrainingJobName=reaped["untagged job"]),
            lambda: client("sagemaker").delete_endpoint(EndpointName=reaped["untagged endpoint"]),
            lambda: client("ec2").terminate_instances(InstanceIds=[reaped["untagged instance"]]),
            lambda: client("sagemaker").create_model(ModelName="a-model", ExecutionRoleArn=settings.endpoint_role_arn),
        ):
            with pytest.raises(ClientError, match="not authorized"):
                attempt()
