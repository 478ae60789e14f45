"""Updates of endpoints under load: traffic shifts in steps, alarms watch, and a bad model is rolled back."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from deployments.local_aws.clock import Clock

pytestmark = pytest.mark.slow

BAD_MODEL = """
import served_well

async def app(scope, receive, send):
    async def send_500(message):
        is_answer = message["type"] == "http.response.start" and scope["path"] != "/ping"
        await send(message | {"status": 500} if is_answer else message)
    await served_well.app(scope, receive, send_500)

def create():
    return app
"""


class Load:
    """Callers of an endpoint, and what they were answered."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.answers: list[str] = []
        self.errors: list[ClientError] = []
        self._done = threading.Event()
        self._callers = [threading.Thread(target=self._call) for _ in range(3)]

    def _call(self) -> None:
        runtime = boto3.client("sagemaker-runtime")
        while not self._done.wait(0.01):
            try:
                answer = runtime.invoke_endpoint(EndpointName=self.endpoint, Body=b"you")
                self.answers.append(answer["Body"].read().decode())
            except ClientError as error:
                self.errors.append(error)

    @contextmanager
    def running(self) -> Iterator["Load"]:
        for caller in self._callers:
            caller.start()
        try:
            yield self
        finally:
            self._done.set()
            for caller in self._callers:
                caller.join()


@pytest.fixture(autouse=True)
def short_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clock, "minute_seconds", 0.3)


@pytest.fixture(scope="module")
def package(cloud: Any) -> str:
    return str(cloud.package())


@pytest.fixture(scope="module")
def bad_package(cloud: Any) -> str:
    """A model that loads, passes its health check, and answers each request with 500."""
    good = cloud.files_in(cloud.package())["served.py"].decode()
    return str(cloud.package(**{"served.py": BAD_MODEL, "served_well.py": good}))


def put_error_alarm(endpoint: str, **changes: Any) -> str:
    name = f"{endpoint}-errors"
    dimensions = {"EndpointName": endpoint, "VariantName": "v"} | changes.pop("dimensions", {})
    request: dict[str, Any] = {
        "Namespace": "AWS/SageMaker",
        "MetricName": "Invocation5XXErrors",
        "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
        "Statistic": "Average",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 0.05,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",
    }
    boto3.client("cloudwatch").put_metric_alarm(AlarmName=name, **request | changes)
    return name


def alarm(name: str) -> dict[str, Any]:
    return dict(boto3.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"][0])


def deployment(kind: str = "ALL_AT_ONCE", alarms: tuple[str, ...] = (), wait: int = 120, **policy: Any) -> Any:
    sizes = {
        "CANARY": {"CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 30}},
        "LINEAR": {"LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 40}},
    }
    routing = {"Type": kind, "WaitIntervalInSeconds": wait, **sizes.get(kind, {})}
    return {
        "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, **policy},
        **({"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in alarms]}} if alarms else {}),
    }


def update(cloud: Any, endpoint: str, config: str, deployment_config: Any, **more: Any) -> dict[str, Any]:
    """Update and return the description at the end."""
    cloud.sagemaker.update_endpoint(
        EndpointName=endpoint,
        EndpointConfigName=config,
        **({"DeploymentConfig": deployment_config} if deployment_config else {}),
        **more,
    )
    return dict(cloud.endpoint_end(endpoint))


# --- metrics and alarms ---------------------------------------------------------------------------------------------


def statistics(endpoint: str, metric: str, stat: str, **dimensions: str) -> list[float]:
    named = {"EndpointName": endpoint, "VariantName": "v"} | dimensions
    now = datetime.now(UTC)
    stats = {
        "Metric": {
            "Namespace": "AWS/SageMaker",
            "MetricName": metric,
            "Dimensions": [{"Name": key, "Value": value} for key, value in sorted(named.items(), reverse=True)],
        },
        "Period": 3600,
        "Stat": stat,
    }
    found = boto3.client("cloudwatch").get_metric_data(
        MetricDataQueries=[{"Id": "m", "MetricStat": stats}],
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(hours=1),
    )
    return list(found["MetricDataResults"][0]["Values"])


def test_invocations_latency_and_errors_are_in_cloudwatch(cloud: Any, package: str) -> None:
    config = cloud.config(package, count=2)
    name = cloud.endpoint(config)["EndpointName"]
    runtime = boto3.client("sagemaker-runtime")
    for body in (b"a", b"b", b"c", b"refuse"):
        try:
            runtime.invoke_endpoint(EndpointName=name, Body=body)
        except ClientError:
            assert body == b"refuse"
    cloud.until(lambda: sum(statistics(name, "Invocations", "Sum")), lambda total: total == 4)
    assert sum(statistics(name, "InvocationsPerInstance", "Sum")) == 2
    assert sum(statistics(name, "Invocation4XXErrors", "Sum")) == 1
    assert sum(statistics(name, "InvocationModelErrors", "Sum")) == 1
    assert statistics(name, "Invocation5XXErrors", "Average") == [0]
    assert sum(statistics(name, "Invocations", "Sum", EndpointConfigName=config)) == 4
    (median,), (worst,) = statistics(name, "ModelLatency", "p50"), statistics(name, "ModelLatency", "p99")
    assert 100 < median <= worst == statistics(name, "ModelLatency", "Maximum")[0] < 5e6
    assert statistics(name, "OverheadLatency", "Average")[0] > 0


def test_statistics_know_percentiles_of_data_that_others_put() -> None:
    cloudwatch = boto3.client("cloudwatch")
    moment = datetime.now(UTC).replace(second=0, microsecond=0)
    values = [{"MetricName": "m", "Value": float(value), "Timestamp": moment} for value in range(1, 101)]
    cloudwatch.put_metric_data(Namespace="Mine", MetricData=values)
    (point,) = cloudwatch.get_metric_statistics(
        Namespace="Mine",
        MetricName="m",
        StartTime=moment,
        EndTime=moment + timedelta(minutes=1),
        Period=60,
        Statistics=["Average", "SampleCount"],
        ExtendedStatistics=["p99", "p90"],
    )["Datapoints"]
    assert (point["Average"], point["SampleCount"], point["Timestamp"]) == (50.5, 100, moment)
    assert point["ExtendedStatistics"] == {"p99": 99, "p90": 90}


def test_metric_math_and_trimmed_means_are_refused() -> None:
    cloudwatch = boto3.client("cloudwatch")
    now = datetime.now(UTC)
    span = {"StartTime": now - timedelta(minutes=1), "EndTime": now}
    with pytest.raises(ClientError, match=r"does not implement MetricDataQueries\.Expression"):
        cloudwatch.get_metric_data(MetricDataQueries=[{"Id": "m", "Expression": "a/b"}], **span)
    with pytest.raises(ClientError, match="does not implement the statistic tm99"):
        cloudwatch.get_metric_statistics(Namespace="N", MetricName="m", Period=60, ExtendedStatistics=["tm99"], **span)


def put_value(metric: str, value: float) -> None:
    boto3.client("cloudwatch").put_metric_data(Namespace="Mine", MetricData=[{"MetricName": metric, "Value": value}])


@pytest.mark.parametrize(
    ("treatment", "without_data"),
    [("missing", "INSUFFICIENT_DATA"), ("notBreaching", "OK"), ("breaching", "ALARM"), ("ignore", "INSUFFICIENT_DATA")],
)
def test_an_alarm_without_data_does_as_it_was_told(cloud: Any, treatment: str, without_data: str) -> None:
    name = put_error_alarm(f"nobody-{treatment}", TreatMissingData=treatment)
    cloud.until(lambda: alarm(name)["StateValue"], lambda state: state == without_data, 5)
    time.sleep(2 * Clock.minute_seconds)
    assert alarm(name)["StateValue"] == without_data


def test_an_alarm_goes_off_and_calms_down(cloud: Any) -> None:
    name = put_error_alarm("x", Namespace="Mine", MetricName="level", Dimensions=[], Threshold=10)
    assert alarm(name)["StateValue"] == "INSUFFICIENT_DATA"
    put_value("level", 11)
    gone_off = cloud.until(lambda: alarm(name), lambda seen: seen["StateValue"] == "ALARM", 5)
    assert "[11.0] against GreaterThanThreshold (10" in gone_off["StateReason"]
    cloud.until(lambda: alarm(name)["StateValue"], lambda state: state == "OK", 5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"AlarmActions": ["arn:aws:sns:us-east-1:123456789012:me"]}, "AlarmActions"),
        ({"EvaluationPeriods": 1, "DatapointsToAlarm": 2}, "DatapointsToAlarm"),
        ({"ComparisonOperator": "GreaterThanUpperThreshold"}, "ComparisonOperator"),
    ],
)
def test_alarms_that_nobody_would_judge_or_obey_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ClientError, match=words):
        put_error_alarm("refused", **change)


def test_alarms_made_of_alarms_are_refused() -> None:
    with pytest.raises(ClientError, match="does not implement cloudwatch:PutCompositeAlarm"):
        boto3.client("cloudwatch").put_composite_alarm(AlarmName="c", AlarmRule="ALARM(a)")


# --- good updates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ALL_AT_ONCE", "CANARY", "LINEAR"])
def test_a_good_update_loses_no_request(cloud: Any, package: str, kind: str) -> None:
    name = cloud.endpoint(cloud.config(package, greeting="old"))["EndpointName"]
    watched = put_error_alarm(name)
    new = cloud.config(package, greeting="new")
    with Load(name).running() as load:
        asked = deployment(kind, (watched,), TerminationWaitInSeconds=60)
        description = update(cloud, name, new, asked)
        cloud.until(lambda: load.answers[-1], lambda answer: answer == "new you")
    assert load.errors == []
    assert set(load.answers) == {"old you", "new you"}
    assert (description["EndpointConfigName"], description["LastDeploymentConfig"]) == (new, asked)
    assert not {"FailureReason", "PendingDeploymentSummary"} & description.keys()


def test_a_canary_gets_its_share_of_the_traffic_while_it_bakes(cloud: Any, package: str) -> None:
    name = cloud.endpoint(cloud.config(package, greeting="old"))["EndpointName"]
    new = cloud.config(package, greeting="new")
    with Load(name).running() as load:
        cloud.sagemaker.update_endpoint(
            EndpointName=name, EndpointConfigName=new, DeploymentConfig=deployment("CANARY", wait=300)
        )

        def is_baking() -> Any:
            pending = cloud.sagemaker.describe_endpoint(EndpointName=name).get("PendingDeploymentSummary")
            return pending and pending["ProductionVariants"][0]["VariantStatus"][0]["Status"] == "Baking"

        cloud.until(is_baking, bool)
        begin = len(load.answers)
        cloud.until(lambda: len(load.answers), lambda count: count > begin + 60)
        counted = Counter(load.answers[begin : begin + 60])
        assert cloud.sagemaker.describe_endpoint(EndpointName=name)["EndpointConfigName"] != new
        cloud.endpoint_end(name)
    assert 3 <= counted["new you"] <= 35, counted
    assert load.errors == []


# --- bad updates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ALL_AT_ONCE", "CANARY"])
def test_a_bad_update_rolls_back_by_itself(cloud: Any, package: str, bad_package: str, kind: str) -> None:
    """Back in service with the old configuration: the status alone does not tell."""
    old = cloud.config(package)
    name = cloud.endpoint(old)["EndpointName"]
    watched = put_error_alarm(name)
    statuses = []
    with Load(name).running() as load:
        cloud.sagemaker.update_endpoint(
            EndpointName=name,
            EndpointConfigName=cloud.config(bad_package),
            DeploymentConfig=deployment(kind, (watched,), wait=3600),
        )

        def describe() -> Any:
            description = cloud.sagemaker.describe_endpoint(EndpointName=name)
            statuses.append(description["EndpointStatus"])
            return description

        description = cloud.until(describe, lambda seen: seen["EndpointStatus"] == "InService")
        failed = len(load.errors)
        answered = len(load.answers)
        cloud.until(lambda: len(load.answers), lambda count: count > answered + 20)
    assert description["EndpointConfigName"] == old
    assert watched in description["FailureReason"]
    assert {"Updating", "RollingBack"} <= set(statuses)
    assert failed == len(load.errors) > 0
    assert {error.response["Error"]["Code"] for error in load.errors} == {"ModelError"}


def test_an_alarm_on_the_new_configuration_looks_at_the_new_fleet_only(
    cloud: Any, package: str, bad_package: str
) -> None:
    old, bad = cloud.config(package), cloud.config(bad_package)
    name = cloud.endpoint(old)["EndpointName"]
    watched = put_error_alarm(
        name,
        dimensions={"EndpointConfigName": bad},
        Threshold=0.99,
        ComparisonOperator=("GreaterThanOrEqualToThreshold"),
    )
    with Load(name).running():
        description = update(cloud, name, bad, deployment("CANARY", (watched,), wait=3600))
    assert description["EndpointConfigName"] == old


def test_a_deployment_that_takes_too_long_is_rolled_back(
    cloud: Any, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = cloud.config(package)
    name = cloud.endpoint(old)["EndpointName"]
    monkeypatch.setattr(Clock, "minute_seconds", 0.2)
    asked = deployment("LINEAR", wait=550, MaximumExecutionTimeoutInSeconds=600)
    description = update(cloud, name, cloud.config(package), asked)
    assert description["EndpointConfigName"] == old
    assert "more than 600 s" in description["FailureReason"]


# --- what is kept, and what is refused ------------------------------------------------------------------------------


def test_an_update_can_reuse_the_last_deployment_config(cloud: Any, package: str) -> None:
    name = cloud.endpoint(cloud.config(package))["EndpointName"]
    asked = deployment("CANARY", wait=0)
    update(cloud, name, cloud.config(package), asked)
    description = update(cloud, name, cloud.config(package), None, RetainDeploymentConfig=True)
    assert description["LastDeploymentConfig"] == asked
    assert "LastDeploymentConfig" not in update(cloud, name, cloud.config(package), None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"Type": "CANARY"}, "CanarySize is for"),
        ({"Type": "CANARY", "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 60}}, "between 1 and 50 percent"),
        ({"Type": "LINEAR", "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 5}}, "between 10 and 50 percent"),
        ({"Type": "LINEAR", "LinearStepSize": {"Type": "INSTANCE_COUNT", "Value": 1}}, "100 percent of 1"),
    ],
)
def test_traffic_routing_that_aws_refuses_is_refused(
    cloud: Any, package: str, change: dict[str, Any], words: str
) -> None:
    config = cloud.config(package)
    policy = {"TrafficRoutingConfiguration": {"WaitIntervalInSeconds": 0, **change}}
    with pytest.raises(ClientError, match=words):
        cloud.sagemaker.create_endpoint(
            EndpointName="refused",
            EndpointConfigName=config,
            DeploymentConfig={"BlueGreenUpdatePolicy": policy},
        )


def test_an_alarm_that_does_not_exist_and_rolling_updates_are_refused(cloud: Any, package: str) -> None:
    request = {"EndpointName": "refused", "EndpointConfigName": cloud.config(package)}
    with pytest.raises(ClientError, match="do not exist: nothing"):
        cloud.sagemaker.create_endpoint(**request, DeploymentConfig=deployment(alarms=("nothing",)))
    rolling = {"MaximumBatchSize": {"Type": "INSTANCE_COUNT", "Value": 1}, "WaitIntervalInSeconds": 0}
    with pytest.raises(ClientError, match=r"does not implement DeploymentConfig\.RollingUpdatePolicy"):
        cloud.sagemaker.create_endpoint(**request, DeploymentConfig={"RollingUpdatePolicy": rolling})
