"""CloudWatch's GetMetricData and GetMetricStatistics, over the data that moto keeps.

moto's own know no percentiles, count periods from the first datum, and compare dimensions in the order they came.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from moto.cloudwatch.models import MetricDatumBase

from deployments.local_aws.clock import to_timestamp
from deployments.local_aws.metric_statistics import STANDARD, Metric, Samples, is_statistic, periods
from deployments.local_aws.protocol import AwsError, Operation
from deployments.local_aws.refusals import Supported

_CODE = "ValidationError"
_SUPPORTED = {
    "GetMetricData": Supported(
        honoured=(
            "StartTime",
            "EndTime",
            "ScanBy",
            "MetricDataQueries.Id",
            "MetricDataQueries.Label",
            "MetricDataQueries.MetricStat",
            "MetricDataQueries.ReturnData",
        ),
        recorded=("MaxDatapoints", "LabelOptions"),  # one page has all; labels hold no time
    ),
    "GetMetricStatistics": Supported(
        honoured=(
            "Namespace",
            "MetricName",
            "Dimensions",
            "StartTime",
            "EndTime",
            "Period",
            "Statistics",
            "ExtendedStatistics",
            "Unit",
        )
    ),
}


class MetricQueries:
    """Answers with statistics.

    Args:
        data: Returns all metric data.
    """

    def __init__(self, data: Callable[[], list[MetricDatumBase]]) -> None:
        self._data = data

    def operations(self) -> dict[str, Operation]:
        """Return its operations by their API names."""
        return {"GetMetricData": self.get_data, "GetMetricStatistics": self.get_statistics}

    def get_data(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the statistics that each query asks for.

        https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html
        """
        _SUPPORTED["GetMetricData"].check("GetMetricData", request, _CODE)
        backwards = request.get("ScanBy", "TimestampDescending") == "TimestampDescending"
        results = [
            self._result(query, request, backwards=backwards)
            for query in request["MetricDataQueries"]
            if query.get("ReturnData", True)
        ]
        return {"MetricDataResults": results, "Messages": []}

    def get_statistics(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the statistics of one metric.

        https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricStatistics.html
        """
        _SUPPORTED["GetMetricStatistics"].check("GetMetricStatistics", request, _CODE)
        asked = [*request.get("Statistics", []), *request.get("ExtendedStatistics", [])]
        if not asked:
            code, message = "InvalidParameterCombination", "Must specify either Statistics or ExtendedStatistics"
            raise AwsError(code, message)
        _check_statistics(asked)
        found = self._periods(Metric.of(request, request.get("Unit")), request, request["Period"])
        points = [_datapoint(start, period, asked) for start, period in found.items()]
        return {"Label": request["MetricName"], "Datapoints": points}

    def _result(self, query: Mapping[str, Any], request: Mapping[str, Any], *, backwards: bool) -> dict[str, Any]:
        asked = query["MetricStat"]
        _check_statistics([asked["Stat"]])
        found = self._periods(Metric.of(asked["Metric"], asked.get("Unit")), request, asked["Period"])
        values = [(start, period.statistic(asked["Stat"])) for start, period in found.items()]
        known = [(start, value) for start, value in values if value is not None]
        known.sort(reverse=backwards)
        return {
            "Id": query["Id"],
            "Label": query.get("Label", asked["Metric"]["MetricName"]),
            "Timestamps": [datetime.fromtimestamp(start, UTC) for start, _ in known],
            "Values": [value for _, value in known],
            "StatusCode": "Complete",
        }

    def _periods(self, metric: Metric, request: Mapping[str, Any], period_seconds: int) -> dict[float, Samples]:
        start, end = to_timestamp(request["StartTime"]), to_timestamp(request["EndTime"])
        if start >= end:
            message = "The parameter StartTime must be less than the parameter EndTime."
            raise AwsError(_CODE, message)
        # As AWS does: the period in which the start is counts as a whole.
        return periods(metric.select(self._data(), start // period_seconds * period_seconds, end), period_seconds)


def _datapoint(start: float, period: Samples, asked: list[str]) -> dict[str, Any]:
    point: dict[str, Any] = {"Timestamp": datetime.fromtimestamp(start, UTC), "Unit": period.unit or "None"}
    values = {name: value for name in asked if (value := period.statistic(name)) is not None}
    extended = {name: value for name, value in values.items() if name not in STANDARD}
    point |= {name: value for name, value in values.items() if name in STANDARD}
    return point | ({"ExtendedStatistics": extended} if extended else {})


def _check_statistics(names: list[str]) -> None:
    for name in names:
        if not is_statistic(name):
            known = f"{', '.join(STANDARD)} and percentiles such as p99"
            message = f"The local AWS does not implement the statistic {name}, only {known}"
            raise AwsError(_CODE, message)
