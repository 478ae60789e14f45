"""Endpoints that grow and shrink: asked to, by schedule, and by Application Auto Scaling under a real load."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from deployments.local_aws.clock import Clock
from deployments.local_aws.schedules import Schedule

pytestmark = pytest.mark.slow

SCALING: dict[str, Any] = {
    "ServiceNamespace": "sagemaker",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}
SLOW_OR_REFUSING = """
import asyncio, os, pathlib
import served_well

if pathlib.Path(os.environ["GREETING"]).exists():
    raise RuntimeError("no more of me")

async def app(scope, receive, send):
    if scope["path"] == "/invocations":
        await asyncio.sleep(1)
    await served_well.app(scope, receive, send)

def create():
    return app
"""


class Scaled:
    """One endpoint, and what scales it."""

    def __init__(self, cloud: Any, endpoint: str) -> None:
        self.cloud, self.endpoint = cloud, endpoint
        self.scaling: Any = boto3.client("application-autoscaling")
        self.runtime = boto3.client("sagemaker-runtime")
        self.cloudwatch: Any = boto3.client("cloudwatch")
        self.resource = SCALING | {"ResourceId": f"endpoint/{endpoint}/variant/v"}

    def invoke(self, body: bytes = b"you", **more: Any) -> str:
        answer = self.runtime.invoke_endpoint(EndpointName=self.endpoint, Body=body, **more)
        return answer["Body"].read().decode()

    def describe(self) -> dict[str, Any]:
        return dict(self.cloud.sagemaker.describe_endpoint(EndpointName=self.endpoint))

    def count(self) -> int:
        return int(self.describe()["ProductionVariants"][0]["CurrentInstanceCount"])

    def until_count(self, count: int, seconds: float = 20) -> None:
        self.cloud.until(self.count, lambda seen: seen == count, seconds)
        self.cloud.endpoint_end(self.endpoint)

    def resize(self, **change: Any) -> None:
        self.cloud.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName=self.endpoint, DesiredWeightsAndCapacities=[{"VariantName": "v"} | change]
        )

    def register(self, minimum: int, maximum: int, **more: Any) -> str:
        request = self.resource | {"MinCapacity": minimum, "MaxCapacity": maximum} | more
        return str(self.scaling.register_scalable_target(**request)["ScalableTargetARN"])

    def track(self, target: float, **configuration: Any) -> dict[str, Any]:
        predefined = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
        return dict(
            self.scaling.put_scaling_policy(
                **self.resource,
                PolicyName="p",
                PolicyType="TargetTrackingScaling",
                TargetTrackingScalingPolicyConfiguration={
                    "TargetValue": target,
                    "PredefinedMetricSpecification": predefined,
                    "ScaleOutCooldown": 0,
                    "ScaleInCooldown": 0,
                    **configuration,
                },
            )
        )

    def activities(self) -> list[dict[str, Any]]:
        return list(self.scaling.describe_scaling_activities(**self.resource)["ScalingActivities"])

    @contextmanager
    def measured(self, per_instance: float) -> Iterator[None]:
        """Tell CloudWatch so many invocations per instance in every minute, whoever makes them."""
        done = threading.Event()

        def put() -> None:
            dimensions = [{"Name": "EndpointName", "Value": self.endpoint}, {"Name": "VariantName", "Value": "v"}]
            value = {"MetricName": "InvocationsPerInstance", "Value": per_instance, "Dimensions": dimensions}
            told = 0.0
            while not done.wait(Clock.minute_seconds / 20):
                minute = Clock.minute_of(time.time())
                if minute > told:
                    told = minute
                    self.cloudwatch.put_metric_data(Namespace="AWS/SageMaker", MetricData=[value])

        with running(put, done):
            yield

    @contextmanager
    def load(self, pause_seconds: float, answers: list[str]) -> Iterator[None]:
        done = threading.Event()

        def call() -> None:
            while not done.wait(pause_seconds):
                answers.append(self.invoke())

        with running(call, done):
            yield


@contextmanager
def running(work: Callable[[], None], done: threading.Event) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.fixture(autouse=True)
def short_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clock, "minute_seconds", 0.25)


@pytest.fixture(scope="module")
def package(cloud: Any) -> str:
    return str(cloud.package())


@pytest.fixture
def scaled(cloud: Any, package: str) -> Iterator[Scaled]:
    endpoint = cloud.endpoint(cloud.config(package))["EndpointName"]
    yield Scaled(cloud, endpoint)
    with suppress(ClientError):  # a test may have deleted it
        cloud.endpoint_end(endpoint)
        cloud.sagemaker.delete_endpoint(EndpointName=endpoint)


# --- UpdateEndpointWeightsAndCapacities -----------------------------------------------------------------------------


def test_more_instances_are_more_processes_and_fewer_are_fewer(scaled: Scaled) -> None:
    scaled.resize(DesiredInstanceCount=3)
    growing = scaled.describe()
    variant = growing["ProductionVariants"][0]
    assert (growing["EndpointStatus"], variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (
        "Updating",
        1,
        3,
    )
    scaled.until_count(3)
    assert len({scaled.invoke(b"pid") for _ in range(60)}) == 3
    scaled.resize(DesiredInstanceCount=1)
    scaled.until_count(1)
    assert len({scaled.invoke(b"pid") for _ in range(20)}) == 1
    assert scaled.describe()["ProductionVariants"][0]["DesiredInstanceCount"] == 1


def special_endpoint(cloud: Any, marker: Path, count: int) -> Scaled:
    good = cloud.files_in(cloud.package())["served.py"].decode()
    package = cloud.package(**{"served.py": SLOW_OR_REFUSING, "served_well.py": good})
    return Scaled(cloud, cloud.endpoint(cloud.config(package, count=count, greeting=str(marker)))["EndpointName"])


def test_requests_under_way_are_answered_by_an_instance_that_goes(cloud: Any, tmp_path: Path) -> None:
    scaled = special_endpoint(cloud, tmp_path / "none", 3)
    answers: list[str] = []
    callers = [threading.Thread(target=lambda: answers.append(scaled.invoke(b"pid"))) for _ in range(6)]
    for caller in callers:
        caller.start()
    time.sleep(0.3)
    scaled.resize(DesiredInstanceCount=1)
    scaled.until_count(1)
    for caller in callers:
        caller.join()
    assert len(answers) == 6
    assert len(set(answers)) == 3


def test_a_variant_that_cannot_grow_stays_as_it_was(cloud: Any, tmp_path: Path) -> None:
    marker = tmp_path / "refuse"
    scaled = special_endpoint(cloud, marker, 1)
    marker.touch()
    scaled.resize(DesiredInstanceCount=2)
    description = cloud.endpoint_end(scaled.endpoint)
    assert (description["EndpointStatus"], scaled.count()) == ("InService", 1)
    assert "no more of me" in description["FailureReason"]
    assert scaled.invoke().endswith("you")


def two_variants(cloud: Any, package: str) -> Scaled:
    configs = {name: cloud.config(package, greeting=name) for name in ("v", "w")}
    variants = [
        cloud.sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"][0]
        | {"VariantName": name}
        for name, config in configs.items()
    ]
    name = cloud.name("variants")
    cloud.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants)
    return Scaled(cloud, cloud.endpoint(name)["EndpointName"])


def test_requests_are_shared_by_the_variants_weights(cloud: Any, package: str) -> None:
    scaled = two_variants(cloud, package)
    assert set(Counter(scaled.invoke() for _ in range(40))) == {"v you", "w you"}
    scaled.resize(DesiredWeight=0.0)
    described = cloud.endpoint_end(scaled.endpoint)["ProductionVariants"]
    assert [one["CurrentWeight"] for one in described] == [0.0, 1.0]
    assert {scaled.invoke() for _ in range(20)} == {"w you"}
    assert scaled.invoke(TargetVariant="v") == "v you"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"VariantName": "w", "DesiredInstanceCount": 1}, "do not exist"),
        ({"DesiredInstanceCount": 0}, "at least 1"),
        ({"ServerlessUpdateConfig": {"MaxConcurrency": 2}}, "does not implement"),
    ],
)
def test_changes_that_would_not_happen_are_refused(scaled: Scaled, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ClientError, match=words):
        scaled.resize(**change)
    assert scaled.describe()["EndpointStatus"] == "InService"


# --- target tracking ------------------------------------------------------------------------------------------------


def test_it_scales_out_under_load_and_in_after_it(scaled: Scaled) -> None:
    """With light traffic after the load: on AWS, too, a variant that nobody calls is never scaled in."""
    scaled.register(1, 3)
    answers: list[str] = []
    alarms = [alarm["AlarmName"] for alarm in scaled.track(3)["Alarms"]]
    with scaled.load(0.005, answers):
        scaled.until_count(3)
    with scaled.load(0.2, answers):
        scaled.until_count(1)
    assert set(answers) == {"hello you"}
    activities = scaled.activities()  # a busy machine may take more than one for each way
    grown = [one for one in activities if "AlarmHigh" in one["Cause"]]
    shrunk = [one for one in activities if "AlarmLow" in one["Cause"]]
    assert activities == [*shrunk, *grown]
    assert (grown[0]["StatusCode"], grown[0]["Description"]) == ("Successful", "Setting desired instance count to 3.")
    assert all("triggered policy p" in one["Cause"] for one in activities)
    assert shrunk[0]["Description"] == "Setting desired instance count to 1."
    assert shrunk[-1]["StartTime"] - grown[0]["EndTime"] > timedelta(seconds=12 * Clock.minute_seconds)
    described = scaled.cloudwatch.describe_alarms(AlarmNames=alarms)["MetricAlarms"]
    assert {(one["EvaluationPeriods"], one["Threshold"]) for one in described} == {(3, 3.0), (15, 2.7)}


def test_a_variant_that_nobody_calls_stays_as_it_is(scaled: Scaled) -> None:
    scaled.resize(DesiredInstanceCount=2)
    scaled.until_count(2)
    scaled.register(1, 2)
    policy = scaled.track(3)
    time.sleep(18 * Clock.minute_seconds)
    states = scaled.cloudwatch.describe_alarms(AlarmNames=[one["AlarmName"] for one in policy["Alarms"]])
    assert {one["StateValue"] for one in states["MetricAlarms"]} == {"INSUFFICIENT_DATA"}
    assert (scaled.count(), scaled.activities()) == (2, [])


def test_capacity_grows_in_proportion_and_no_further_than_the_maximum(scaled: Scaled) -> None:
    scaled.register(1, 4)
    scaled.track(10)
    with scaled.measured(27):
        scaled.until_count(3)
        scaled.until_count(4)
        time.sleep(5 * Clock.minute_seconds)
    assert [one["Description"][-2:] for one in scaled.activities()] == ["4.", "3."]


def test_no_more_is_added_while_the_cooldown_lasts(scaled: Scaled) -> None:
    scaled.register(1, 4)
    scaled.track(10, ScaleOutCooldown=3600)
    with scaled.measured(12):
        scaled.until_count(2)
        time.sleep(8 * Clock.minute_seconds)
        assert scaled.count() == 2
    assert len(scaled.activities()) == 1


def test_a_larger_scaling_out_does_not_wait_for_the_cooldown(scaled: Scaled) -> None:
    """What the first one added counts as part of it."""
    scaled.register(1, 3)
    scaled.track(10, ScaleOutCooldown=3600)
    with scaled.measured(12):
        scaled.until_count(2)
    with scaled.measured(20):  # asks for two more, of which one is there
        scaled.until_count(3)


def test_scaling_in_waits_for_its_cooldown(scaled: Scaled) -> None:
    scaled.resize(DesiredInstanceCount=3)
    scaled.until_count(3)
    scaled.register(1, 3)
    scaled.track(9, ScaleInCooldown=3600)
    with scaled.measured(5):  # asks for two of three, and then for one of two: but not so soon
        scaled.until_count(2)
        with scaled.measured(-2):
            time.sleep(8 * Clock.minute_seconds)
    assert (scaled.count(), len(scaled.activities())) == (2, 1)


def test_scaling_in_can_be_disabled(scaled: Scaled) -> None:
    scaled.resize(DesiredInstanceCount=2)
    scaled.until_count(2)
    scaled.register(1, 2)
    alarms = scaled.track(10, DisableScaleIn=True)["Alarms"]
    with scaled.measured(1):
        time.sleep(18 * Clock.minute_seconds)
    assert (len(alarms), scaled.count()) == (1, 2)


def test_dynamic_scaling_can_be_suspended(scaled: Scaled) -> None:
    scaled.register(1, 3, SuspendedState={"DynamicScalingOutSuspended": True})
    scaled.track(10)
    with scaled.measured(100):
        time.sleep(6 * Clock.minute_seconds)
        assert scaled.count() == 1
        scaled.scaling.register_scalable_target(**scaled.resource, SuspendedState={"DynamicScalingOutSuspended": False})
        scaled.until_count(3)


def test_a_capacity_outside_of_the_limits_is_changed(scaled: Scaled) -> None:
    scaled.register(2, 3)
    scaled.until_count(2)
    assert scaled.activities()[0]["Cause"] == "minimum capacity was set to 2"
    scaled.register(1, 1)
    scaled.until_count(1)
    assert scaled.activities()[0]["Cause"] == "maximum capacity was set to 1"


# --- with updates and deletion --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retained", "count"),
    [
        ({"RetainAllVariantProperties": True}, 3),
        ({}, 1),
        (
            {
                "RetainAllVariantProperties": True,
                "ExcludeRetainedVariantProperties": [{"VariantPropertyType": "DesiredInstanceCount"}],
            },
            1,
        ),
    ],
)
def test_an_update_keeps_the_scaled_count_if_it_is_told_to(
    cloud: Any, package: str, scaled: Scaled, retained: dict[str, Any], count: int
) -> None:
    scaled.register(1, 3)
    scaled.resize(DesiredInstanceCount=3)
    scaled.until_count(3)
    new = cloud.config(package, greeting="new")
    cloud.sagemaker.update_endpoint(EndpointName=scaled.endpoint, EndpointConfigName=new, **retained)
    description = cloud.endpoint_end(scaled.endpoint)
    assert (description["EndpointConfigName"], scaled.count()) == (new, count)


def test_an_update_that_changes_the_type_of_a_scaled_variant_is_refused(
    cloud: Any, package: str, scaled: Scaled
) -> None:
    scaled.register(1, 2)
    new = cloud.name("larger")
    variant = cloud.sagemaker.describe_endpoint_config(EndpointConfigName=cloud.config(package))
    changed = variant["ProductionVariants"][0] | {"InstanceType": "ml.m5.xlarge"}
    cloud.sagemaker.create_endpoint_config(EndpointConfigName=new, ProductionVariants=[changed])
    request = {"EndpointName": scaled.endpoint, "EndpointConfigName": new}
    with pytest.raises(ClientError, match="registered as a scalable target"):
        cloud.sagemaker.update_endpoint(**request)
    scaled.scaling.deregister_scalable_target(**scaled.resource)
    cloud.sagemaker.update_endpoint(**request)


def test_deleting_an_endpoint_deregisters_its_variants(cloud: Any, scaled: Scaled) -> None:
    scaled.register(1, 2)
    alarms = [one["AlarmName"] for one in scaled.track(3)["Alarms"]]
    cloud.sagemaker.delete_endpoint(EndpointName=scaled.endpoint)
    resource_ids = [scaled.resource["ResourceId"]]
    found = scaled.scaling.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=resource_ids)
    assert found["ScalableTargets"] == []
    assert scaled.scaling.describe_scaling_policies(**scaled.resource)["ScalingPolicies"] == []
    assert scaled.cloudwatch.describe_alarms(AlarmNames=alarms)["MetricAlarms"] == []


# --- what can be read back, and what is refused ---------------------------------------------------------------------


def test_targets_policies_and_tags_can_be_read_back(scaled: Scaled) -> None:
    arn = scaled.register(1, 2, Tags={"project": "mine"})
    policy = scaled.track(50, ScaleInCooldown=60)
    targets = scaled.scaling.describe_scalable_targets(
        ServiceNamespace="sagemaker", ResourceIds=[scaled.resource["ResourceId"]]
    )["ScalableTargets"]
    assert [(one["MinCapacity"], one["MaxCapacity"], one["ScalableTargetARN"]) for one in targets] == [(1, 2, arn)]
    assert scaled.scaling.list_tags_for_resource(ResourceARN=arn)["Tags"] == {"project": "mine"}
    (found,) = scaled.scaling.describe_scaling_policies(**scaled.resource)["ScalingPolicies"]
    assert (found["PolicyARN"], found["Alarms"]) == (policy["PolicyARN"], policy["Alarms"])
    assert found["TargetTrackingScalingPolicyConfiguration"]["ScaleInCooldown"] == 60
    scaled.scaling.delete_scaling_policy(**scaled.resource, PolicyName="p")
    with pytest.raises(ClientError, match="ObjectNotFoundException"):
        scaled.scaling.delete_scaling_policy(**scaled.resource, PolicyName="p")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"MinCapacity": 0}, "at least 1"),
        ({"MinCapacity": 3}, "cannot be less"),
        ({"ResourceId": "endpoint/nobody/variant/v"}, "Could not find endpoint"),
        ({"ResourceId": "inference-component/x"}, "only kind"),
        ({"ScalableDimension": "sagemaker:variant:DesiredProvisionedConcurrency"}, "does not implement"),
        ({"ServiceNamespace": "lambda"}, "does not implement"),
    ],
)
def test_targets_that_nobody_would_scale_are_refused(scaled: Scaled, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ClientError, match=words):
        scaled.register(1, 2, **change)


def test_policies_that_nobody_would_follow_are_refused(scaled: Scaled) -> None:
    with pytest.raises(ClientError, match="No scalable target registered"):
        scaled.track(3)
    scaled.register(1, 2)
    with pytest.raises(ClientError, match="does not implement PolicyType=StepScaling"):
        scaled.scaling.put_scaling_policy(**scaled.resource, PolicyName="p", PolicyType="StepScaling")
    with pytest.raises(ClientError, match="CustomizedMetricSpecification"):
        scaled.track(3, CustomizedMetricSpecification={"MetricName": "m", "Namespace": "n", "Statistic": "Sum"})
    with pytest.raises(ClientError, match="positive"):
        scaled.track(0)


# --- schedules ------------------------------------------------------------------------------------------------------


def test_a_scheduled_action_changes_the_limits(scaled: Scaled) -> None:
    scaled.register(1, 2)
    due = (datetime.now(UTC) + timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%S")
    action = {"ScheduledActionName": "morning", "Schedule": f"at({due})"}
    scaled.scaling.put_scheduled_action(
        **scaled.resource, **action, ScalableTargetAction={"MinCapacity": 2, "MaxCapacity": 4}
    )
    (found,) = scaled.scaling.describe_scheduled_actions(**scaled.resource)["ScheduledActions"]
    assert (found["Schedule"], found["ScalableTargetAction"]["MaxCapacity"]) == (action["Schedule"], 4)
    scaled.until_count(2)
    scaled.scaling.delete_scheduled_action(**scaled.resource, ScheduledActionName="morning")
    assert scaled.scaling.describe_scheduled_actions(**scaled.resource)["ScheduledActions"] == []


@pytest.mark.parametrize(
    ("expression", "zone", "due"),
    [
        ("at(2026-03-01T08:00:00)", "UTC", "2026-03-01T08:00"),
        ("at(2026-03-01T08:00:00)", "America/New_York", "2026-03-01T13:00"),
        ("at(2026-01-01T08:00:00)", "UTC", None),
        ("cron(0 8 * * ? *)", "UTC", "2026-02-01T08:00"),
        ("cron(30 6 ? * MON-FRI *)", "Europe/Berlin", "2026-02-02T05:30"),
        ("cron(0/15 9,10 * * ? *)", "UTC", "2026-02-01T09:00"),
        ("cron(0 0 29 2 ? *)", "UTC", "2028-02-29T00:00"),
        ("cron(0 0 1 1 ? 2025)", "UTC", None),
        ("rate(4 minutes)", "UTC", "2026-02-01T07:31:01"),
    ],
)
def test_schedules_are_due_when_they_say(expression: str, zone: str, due: str | None) -> None:
    """A rate counts minutes of the local AWS, a quarter of a second here; the others are times on the clock."""
    found = Schedule(expression, zone).next_after(datetime(2026, 2, 1, 7, 31, tzinfo=UTC))
    assert found == (datetime.fromisoformat(due).replace(tzinfo=UTC) if due else None)


@pytest.mark.parametrize("expression", ["cron(0 8 * *)", "cron(0 8 L * ? *)", "rate(1 week)", "at(soon)", "daily"])
def test_schedules_that_are_none_are_refused(scaled: Scaled, expression: str) -> None:
    scaled.register(1, 2)
    with pytest.raises(ClientError, match="ValidationException"):
        scaled.scaling.put_scheduled_action(
            **scaled.resource,
            ScheduledActionName="a",
            Schedule=expression,
            ScalableTargetAction={"MinCapacity": 1},
        )
