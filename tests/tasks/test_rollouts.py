"""Endpoints of a lasting name, as tasks deploy them: updated under load, rolled back by themselves, still scaled."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from deployments.local_aws.clock import Clock
from tasks.aws import jobs
from tasks.aws.endpoints import delete_config
from tasks.aws.errors import FlowsError, IdentityError, RolledBackError
from tasks.aws.jobs import ENDPOINT_CONFIGS, ENDPOINTS, MODELS, Kind, describe, stop
from tasks.aws.scaling import find_target, is_scaled
from tasks.aws.settings import Settings
from tasks.contracts import (
    EndpointCompute,
    EndpointResult,
    EndpointSpec,
    Rollout,
    Scaling,
    ScheduledCapacity,
    Serverless,
)
from tasks.endpoints import await_endpoint, delete_endpoint, start_endpoint, undone_on_failure
from tasks.scaling import put_under_scaling, scaling_kept

pytestmark = pytest.mark.slow

Deploy = Callable[..., EndpointResult]
AN_HOUR = timedelta(hours=1)
CANARY = Rollout(bake_seconds=120, most_error_percent=5)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clock, "minute_seconds", 0.3)
    monkeypatch.setenv("SAGEMAKER_FLOWS_POLL_SECONDS", "0.05")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    name = "flows-" + "".join(filter(str.isalnum, request.node.name.lower()))[-50:]
    yield name
    delete_endpoint.fn(name)


@pytest.fixture
def deploy(name: str, settings: Settings) -> Deploy:
    def deployed(package: str, **changes: Any) -> EndpointResult:
        fields = {"compute": EndpointCompute(), "name": name, "rollout": CANARY, **changes}
        spec = EndpointSpec(model_s3_uri=package, image_uri="an-image", **fields)
        with scaling_kept(spec):
            submission = start_endpoint.fn(spec, settings, AN_HOUR)
            with undone_on_failure(submission):
                return await_endpoint.fn(submission, spec, settings)

    return deployed


class Load:
    """Callers of an endpoint, and what they were answered."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint, self.labels, self.errors = endpoint, list[str](), list[str]()
        self._done = threading.Event()

    def _call(self) -> None:
        runtime = boto3.client("sagemaker-runtime")
        while not self._done.wait(0.01):
            try:
                answer = runtime.invoke_endpoint(EndpointName=self.endpoint, Body=b"a picture", ContentType="image/png")
                self.labels.append(answer["Body"].read().decode().split('"')[3])
            except ClientError as error:
                self.errors.append(error.response["Error"]["Code"])

    @contextmanager
    def running(self) -> Iterator["Load"]:
        callers = [threading.Thread(target=self._call) for _ in range(3)]
        for caller in callers:
            caller.start()
        try:
            yield self
        finally:
            self._done.set()
            for caller in callers:
                caller.join()


# --- updated --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", ["all at once", "canary", "linear"])
def test_an_update_loses_no_request_and_leaves_nothing_of_the_old_model(
    deploy: Deploy, name: str, stage_package: Any, shift: str
) -> None:
    before = deploy(stage_package(f"{name}-old", "old"))
    rollout = Rollout(shift=shift, step_percent=50, bake_seconds=60)
    with Load(name).running() as load:
        after = deploy(stage_package(f"{name}-new", "new"), rollout=rollout)
        seen = len(load.labels)
        while len(load.labels) < seen + 10:
            pass
    assert (before.how, after.how, after.name, before.name) == ("created", "updated", name, name)
    assert load.errors == []
    assert set(load.labels) == {"old", "new"}
    assert set(load.labels[-5:]) == {"new"}
    assert describe(ENDPOINT_CONFIGS, before.config_name) is None
    assert describe(MODELS, before.model_name) is None


def test_a_bad_model_is_rolled_back_by_itself_and_the_reason_is_told(
    deploy: Deploy, name: str, stage_package: Any
) -> None:
    """The endpoint is in service all the time: its status alone does not tell."""
    before = deploy(stage_package(f"{name}-old", "old"))
    with Load(name).running() as load:
        with pytest.raises(RolledBackError, match=f"rolled back.*{name}-errors"):
            deploy(stage_package(f"{name}-bad", status=500), rollout=Rollout(bake_seconds=3600))
        failed, answered = len(load.errors), len(load.labels)
        while len(load.labels) < answered + 20:
            pass
    assert 0 < failed == len(load.errors) < len(load.labels)
    found = describe(ENDPOINTS, name) or {}
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", before.config_name)
    configs = boto3.client("sagemaker").list_endpoint_configs(MaxResults=100)["EndpointConfigs"]
    assert before.config_name in [config["EndpointConfigName"] for config in configs]


def test_a_model_that_does_not_start_is_never_asked(deploy: Deploy, name: str, settings: Settings) -> None:
    s3 = boto3.client("s3")
    s3.put_object(Bucket=settings.bucket, Key="jobs/no-package.tar.gz", Body=b"nothing to unpack")
    with pytest.raises(FlowsError, match="no-package"):
        deploy(f"s3://{settings.bucket}/jobs/no-package.tar.gz")
    assert describe(ENDPOINTS, name) is None


def test_a_second_time_nothing_is_changed(deploy: Deploy, name: str, stage_package: Any) -> None:
    package = stage_package(name)
    first, second = deploy(package), deploy(package)
    assert (second.how, second.ours, second.config_name) == ("reused", False, first.config_name)


def test_an_endpoint_that_is_not_ours_is_left_alone(deploy: Deploy, name: str, stage_package: Any) -> None:
    arn = deploy(stage_package(name)).arn
    sagemaker = boto3.client("sagemaker")
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=["project"])
    with pytest.raises(IdentityError, match="does not carry the tag"):
        deploy(stage_package(f"{name}-2", "new"))
    with pytest.raises(FlowsError, match="delete it by hand"):
        delete_endpoint.fn(name)
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "project", "Value": "sagemaker-flows"}])


def test_a_configuration_that_is_not_ours_is_left_alone_though_no_endpoint_has_its_name(
    settings: Settings, stage_package: Any
) -> None:
    sagemaker, name = boto3.client("sagemaker"), "flows-somebody-elses"
    container = {"Image": "an-image", "ModelDataUrl": stage_package(name)}
    sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=settings.endpoint_role_arn)
    with pytest.raises(FlowsError, match=f"The model {name} does not carry the tag"):
        delete_endpoint.fn(name)
    sagemaker.delete_model(ModelName=name)


def test_an_endpoint_that_is_being_created_is_stopped_when_it_can_be(
    name: str, settings: Settings, stage_package: Any
) -> None:
    """SageMaker refuses to delete it before, and then it would bill with nobody to know of it."""
    fields = {"compute": EndpointCompute(), "name": name, "rollout": CANARY}
    spec = EndpointSpec(model_s3_uri=stage_package(name), image_uri="an-image", **fields)
    submission = start_endpoint.fn(spec, settings, AN_HOUR)
    assert (describe(ENDPOINTS, name) or {})["EndpointStatus"] == "Creating"
    assert stop(ENDPOINTS, name)
    delete_config(submission.config_name)
    found = describe(ENDPOINTS, name)
    assert found is None or found["EndpointStatus"] == "Deleting"


# --- scaled ---------------------------------------------------------------------------------------------------------

SCALING = Scaling(
    target=100_000,
    min_instances=2,
    max_instances=3,
    schedule=(ScheduledCapacity(name="night", schedule="cron(0 22 * * ? *)", min_instances=1, max_instances=2),),
)


def test_a_scaled_endpoint_keeps_its_instances_and_its_scaling_over_an_update(
    deploy: Deploy, name: str, settings: Settings, stage_package: Any
) -> None:
    deploy(stage_package(f"{name}-old", "old"))
    result = put_under_scaling.fn(name, SCALING, settings)
    assert (result.how, result.instances, len(result.alarms)) == ("registered", 1, 2)
    until_instances(name, 2)
    deploy(stage_package(f"{name}-new", "new"), rollout=Rollout(shift="all at once", bake_seconds=0))
    assert instances(name) == 2
    again = put_under_scaling.fn(name, SCALING, settings)
    assert again.how == "changed"
    assert "2" in again.activities[0].description


def test_scaling_survives_another_instance_type(
    deploy: Deploy, name: str, settings: Settings, stage_package: Any
) -> None:
    """AWS refuses to change the type of what is scaled."""
    package = stage_package(name)
    deploy(package)
    put_under_scaling.fn(name, SCALING, settings)
    larger = EndpointCompute(instance_type="ml.c5.large")
    deploy(package, compute=larger, rollout=Rollout(shift="all at once", bake_seconds=0))
    target = find_target(name) or {}
    assert (target["MinCapacity"], target["MaxCapacity"]) == (2, 3)
    aws = boto3.client("application-autoscaling")
    for describe_all, key in (
        (aws.describe_scaling_policies, "ScalingPolicies"),
        (aws.describe_scheduled_actions, "ScheduledActions"),
    ):
        found: Any = describe_all(ServiceNamespace="sagemaker", ResourceId=target["ResourceId"])
        assert len(found[key]) == 1


def test_what_is_not_in_the_schedule_any_more_is_not_done_any_more(
    deploy: Deploy, name: str, settings: Settings, stage_package: Any
) -> None:
    deploy(stage_package(name))
    put_under_scaling.fn(name, SCALING, settings)
    put_under_scaling.fn(name, SCALING.model_copy(update={"schedule": ()}), settings)
    aws = boto3.client("application-autoscaling")
    resource = f"endpoint/{name}/variant/AllTraffic"
    assert aws.describe_scheduled_actions(ServiceNamespace="sagemaker", ResourceId=resource)["ScheduledActions"] == []


def test_what_is_deleted_is_scaled_and_watched_by_nobody(
    deploy: Deploy, name: str, settings: Settings, stage_package: Any
) -> None:
    deploy(stage_package(f"{name}-old", "old"))
    deploy(stage_package(f"{name}-new", "new"), rollout=Rollout(shift="all at once", bake_seconds=0))
    put_under_scaling.fn(name, SCALING, settings)
    delete_endpoint.fn(name)
    assert not is_scaled(name)
    alarms = boto3.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert [alarm["AlarmName"] for alarm in alarms if name in alarm["AlarmName"]] == []


def test_an_endpoint_is_deleted_though_scaling_changes_it_at_the_last_moment(
    deploy: Deploy, name: str, stage_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SageMaker refuses to delete what is being changed: it would go on billing."""
    deploy(stage_package(name))
    kept = jobs.settle

    def settle_and_scale(kind: Kind, name: str) -> None:
        kept(kind, name)
        monkeypatch.setattr(jobs, "settle", kept)
        wanted = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 2}]
        sagemaker = boto3.client("sagemaker")
        sagemaker.update_endpoint_weights_and_capacities(EndpointName=name, DesiredWeightsAndCapacities=wanted)

    monkeypatch.setattr(jobs, "settle", settle_and_scale)
    assert f"endpoint {name}" in delete_endpoint.fn(name).deleted


@pytest.mark.parametrize("endpoint", ["flows-nowhere"])
def test_only_what_is_in_service_is_scaled(endpoint: str, settings: Settings) -> None:
    with pytest.raises(FlowsError, match="not in service, there is none of that name"):
        put_under_scaling.fn(endpoint, SCALING, settings)


def test_a_serverless_endpoint_is_deployed_updated_and_scales_by_itself(
    deploy: Deploy, name: str, settings: Settings, stage_package: Any
) -> None:
    serverless = EndpointCompute(serverless=Serverless(max_concurrency=2))
    first = deploy(stage_package(f"{name}-old", "old"), compute=serverless)
    second = deploy(stage_package(f"{name}-new", "new"), compute=serverless)
    assert (first.how, second.how, second.hourly_usd) == ("created", "updated", None)
    with pytest.raises(FlowsError, match="serverless: it scales by itself"):
        put_under_scaling.fn(name, SCALING, settings)


def instances(name: str) -> int:
    found = boto3.client("sagemaker").describe_endpoint(EndpointName=name)
    return int(found["ProductionVariants"][0]["CurrentInstanceCount"])


def until_instances(name: str, count: int) -> None:
    for _ in range(600):
        if instances(name) == count:
            return
        threading.Event().wait(0.05)
    pytest.fail(f"{name} never had {count} instances")
