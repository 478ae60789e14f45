"""Requests for the update of an endpoint in service, built from its rollout: pure."""

from typing import Any

from tasks.aws.requests import VARIANT
from tasks.contracts import Rollout

_TYPES = {"all at once": "ALL_AT_ONCE", "canary": "CANARY", "linear": "LINEAR"}
_SIZES = {"canary": "CanarySize", "linear": "LinearStepSize"}
_START_SECONDS = 3600  # for the new servers to start, before anything moves


def alarm_names(endpoint: str) -> list[str]:
    """Return the names of all alarms that a rollout of an endpoint may have."""
    return [f"{endpoint}-errors", f"{endpoint}-latency"]


def alarm_requests(endpoint: str, config_name: str, rollout: Rollout) -> list[dict[str, Any]]:
    """Return the requests for the alarms that take a new model back.

    They look at its own servers only, which the configuration's name tells apart: among the answers of all servers,
    those of a canary would not count for much.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
    https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails-configuration.html
    """
    dimensions = {"EndpointName": endpoint, "VariantName": VARIANT, "EndpointConfigName": config_name}
    shared = {
        "Namespace": "AWS/SageMaker",
        "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
        "Period": 60,
        "EvaluationPeriods": 1,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",  # a minute without requests is no trouble
    }
    errors, latency = alarm_names(endpoint)
    share = rollout.most_error_percent / 100
    failed = {"MetricName": "Invocation5XXErrors", "Statistic": "Average", "Threshold": share}
    requests = [{"AlarmName": errors, **failed, **shared}]
    if rollout.most_latency_ms is not None:
        slow = {"MetricName": "ModelLatency", "ExtendedStatistic": "p99", "Threshold": 1000 * rollout.most_latency_ms}
        requests.append({"AlarmName": latency, **slow, **shared})
    return requests


def update_request(
    endpoint: str, config_name: str, rollout: Rollout, alarms: list[str], *, scaled: bool
) -> dict[str, Any]:
    """Return the request for the update of an endpoint whose models run on instances.

    One that is scaled keeps the number of instances that it has by now.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateEndpoint.html
    """
    return {
        "EndpointName": endpoint,
        "EndpointConfigName": config_name,
        "RetainAllVariantProperties": scaled,
        "DeploymentConfig": {
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": _routing(rollout),
                "TerminationWaitInSeconds": 0,  # each part, the last too, has been watched by then
                "MaximumExecutionTimeoutInSeconds": rollout.steps * rollout.bake_seconds + _START_SECONDS,
            },
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in alarms]},
        },
    }


def _routing(rollout: Rollout) -> dict[str, Any]:
    """Return how traffic moves.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_TrafficRoutingConfig.html
    """
    size = {"Type": "CAPACITY_PERCENT", "Value": rollout.step_percent}
    sizes = {_SIZES[rollout.shift]: size} if rollout.shift in _SIZES else {}
    return {"Type": _TYPES[rollout.shift], "WaitIntervalInSeconds": rollout.bake_seconds, **sizes}
