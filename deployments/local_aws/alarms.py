"""CloudWatch's alarms, which moto keeps, judged every minute by the metrics that there are."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from operator import ge, gt, le, lt
from typing import Any

from moto.cloudwatch.models import Alarm, CloudWatchBackend

from deployments.local_aws.clock import Clock
from deployments.local_aws.metric_statistics import Metric, is_statistic, samples
from deployments.local_aws.protocol import AwsError, Operation
from deployments.local_aws.refusals import Supported

OK, ALARM, INSUFFICIENT_DATA = "OK", "ALARM", "INSUFFICIENT_DATA"

_CODE = "ValidationError"
_COMPARISONS = {
    "GreaterThanOrEqualToThreshold": ge,
    "GreaterThanThreshold": gt,
    "LessThanThreshold": lt,
    "LessThanOrEqualToThreshold": le,
}
_MISSING = ("missing", "notBreaching", "breaching", "ignore")
_ROUNDING_SECONDS = 1e-4  # of time stamps, which have microseconds
# Without metric math, anomaly detection and actions: nobody here would compute, detect or notify.
_SUPPORTED = Supported(
    honoured=(
        "AlarmName",
        "DatapointsToAlarm",
        "Dimensions",
        "EvaluationPeriods",
        "ExtendedStatistic",
        "MetricName",
        "Namespace",
        "Period",
        "Statistic",
        "Tags",
        "Threshold",
        "Unit",
    ),
    recorded=("AlarmDescription", "ActionsEnabled"),
    only={
        "AlarmActions": ([],),
        "ComparisonOperator": tuple(_COMPARISONS),
        "EvaluateLowSampleCountPercentile": ("evaluate",),
        "InsufficientDataActions": ([],),
        "OKActions": ([],),
        "TreatMissingData": _MISSING,
    },
)
_REQUIRED = ("MetricName", "Namespace", "Period", "Threshold")


class Alarms:
    """The alarms of an account.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html

    Args:
        backend: moto's CloudWatch.
    """

    def __init__(self, backend: CloudWatchBackend) -> None:
        self._backend = backend

    def operations(self) -> dict[str, Operation]:
        """Return its operations by their API names; moto has the others."""
        return {"PutMetricAlarm": self.put_metric_alarm}

    def put_metric_alarm(self, request: dict[str, Any]) -> dict[str, Any]:
        """Keep an alarm, if it can be judged."""
        _SUPPORTED.check("PutMetricAlarm", request, _CODE)
        missing = [member for member in _REQUIRED if member not in request]
        if missing or ("Statistic" in request) == ("ExtendedStatistic" in request):
            message = f"An alarm needs {', '.join(_REQUIRED)} and either Statistic or ExtendedStatistic"
            raise AwsError(_CODE, message)
        if not is_statistic(request.get("Statistic") or request["ExtendedStatistic"]):
            message = f"The local AWS does not implement ExtendedStatistic {request['ExtendedStatistic']}"
            raise AwsError(_CODE, message)
        if request.get("DatapointsToAlarm", 1) > request["EvaluationPeriods"]:
            message = "DatapointsToAlarm must not be more than EvaluationPeriods"
            raise AwsError(_CODE, message)
        self.put(request)
        return {}

    def put(self, request: Mapping[str, Any]) -> str:
        """Keep an alarm and return its ARN. A new one has INSUFFICIENT_DATA, another keeps its state, until judged."""
        before = self._backend.alarms.get(request["AlarmName"])
        alarm = self._backend.put_metric_alarm(
            name=request["AlarmName"],
            namespace=request["Namespace"],
            metric_name=request["MetricName"],
            comparison_operator=request["ComparisonOperator"],
            evaluation_periods=request["EvaluationPeriods"],
            datapoints_to_alarm=request.get("DatapointsToAlarm"),
            period=request["Period"],
            threshold=request["Threshold"],
            statistic=request.get("Statistic", ""),
            extended_statistic=request.get("ExtendedStatistic"),
            description=request.get("AlarmDescription", ""),
            dimensions=request.get("Dimensions", []),
            alarm_actions=request.get("AlarmActions", []),
            unit=request.get("Unit"),
            actions_enabled=request.get("ActionsEnabled", True),
            treat_missing_data=request.get("TreatMissingData"),
            evaluate_low_sample_count_percentile=request.get("EvaluateLowSampleCountPercentile"),
            tags=request.get("Tags"),
        )
        alarm.state_value = before.state_value if before else INSUFFICIENT_DATA
        return str(alarm.alarm_arn)

    def delete(self, names: Sequence[str]) -> None:
        """Forget alarms."""
        self._backend.delete_alarms(list(names))

    def state(self, name: str) -> str | None:
        """Return OK, ALARM or INSUFFICIENT_DATA; None where there is no such alarm."""
        alarm = self._backend.alarms.get(name)
        return alarm.state_value if alarm else None

    def judge(self, now: float) -> None:
        """Give every alarm the state that the periods before now (a POSIX time) call for."""
        for alarm in list(self._backend.alarms.values()):
            if alarm.rule is None and not alarm.metric_data_queries:
                points = self._points(alarm, now)
                state = _state(alarm, points)
                if state != alarm.state_value:
                    alarm.update_state(_reason(alarm, points, state), _reason_data(alarm, points), state)

    def _points(self, alarm: Alarm, now: float) -> list[float | None]:
        """Return the statistic of each of the alarm's periods, the oldest first; None where there are no data."""
        dimensions = frozenset((str(one.name), str(one.value)) for one in alarm.dimensions)
        metric = Metric(alarm.namespace, alarm.metric_name, dimensions, alarm.unit)
        length, count = Clock.real_seconds(int(alarm.period)), int(alarm.evaluation_periods)
        begin = now - count * length - _ROUNDING_SECONDS
        timed = metric.select(list(self._backend.metric_data), begin, now - _ROUNDING_SECONDS)
        statistic = alarm.statistic or str(alarm.extended_statistic)
        return [
            samples(datum for when, datum in timed if (when - begin) // length == number).statistic(statistic)
            for number in range(count)
        ]


def _state(alarm: Alarm, points: Sequence[float | None]) -> str:
    """Return the state that data points call for.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
    AWS looks at a few periods more than it is asked to before it calls a data point missing; here it is so at once.
    """
    treatment = alarm.treat_missing_data or "missing"
    needed = int(alarm.datapoints_to_alarm or alarm.evaluation_periods)
    if all(point is None for point in points):
        return {"breaching": ALARM, "notBreaching": OK, "ignore": alarm.state_value}.get(treatment, INSUFFICIENT_DATA)
    breaching = [_breaches(alarm, point) for point in points]
    missing_as = {"breaching": True}.get(treatment, False)
    if sum(missing_as if one is None else one for one in breaching) >= needed:
        return ALARM
    if treatment in ("missing", "ignore") and _is_premature(breaching, needed):
        return ALARM
    return OK


def _breaches(alarm: Alarm, point: float | None) -> bool | None:
    return None if point is None else bool(_COMPARISONS[alarm.comparison_operator](point, float(alarm.threshold)))


def _is_premature(breaching: Sequence[bool | None], needed: int) -> bool:
    """Whether the oldest breach is old enough, and everything since breaches or is missing: AWS does not wait then."""
    first = next((number for number, one in enumerate(breaching) if one), None)
    return first is not None and len(breaching) - first >= needed and False not in breaching[first:]


def _reason(alarm: Alarm, points: Sequence[float | None], state: str) -> str:
    if state == INSUFFICIENT_DATA:
        return f"Insufficient Data: {len(points)} datapoints were unknown."
    known = [point for point in points if point is not None]
    values = ", ".join(str(point) for point in reversed(known))
    crossed = "Threshold Crossed: " if known else "Threshold Crossed: no datapoints were received, "
    return (
        f"{crossed}{len(known)} of the last {len(points)} datapoints [{values}] against {alarm.comparison_operator} "
        f"({alarm.threshold})."
    )


def _reason_data(alarm: Alarm, points: Sequence[float | None]) -> str:
    return json.dumps(
        {
            "version": "1.0",
            "queryDate": datetime.now(UTC).isoformat(),
            "statistic": alarm.statistic or alarm.extended_statistic,
            "period": int(alarm.period),
            "recentDatapoints": [point for point in points if point is not None],
            "threshold": float(alarm.threshold),
        }
    )
