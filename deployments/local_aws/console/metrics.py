"""An endpoint's last hour in CloudWatch: how much it was asked, how long it took, how often it failed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

_NAMESPACE = "AWS/SageMaker"
_MINUTES = 60
# Of each: the metric, the statistic, the seconds that a value stands for. A percentile cannot be made of percentiles,
# so the latencies are those of the clock's own hour.
_ASKED = {
    "invocations": ("Invocations", "Sum", 60),
    "median": ("ModelLatency", "p50", 3600),
    "p99": ("ModelLatency", "p99", 3600),
    "client_errors": ("Invocation4XXErrors", "Sum", 60),
    "server_errors": ("Invocation5XXErrors", "Sum", 60),
}
_MICROSECONDS = 1000.0


@dataclass(frozen=True)
class Traffic:
    """A variant's traffic of the last hour; a minute counts when it is over. Latencies are the model's."""

    invocations: int
    errors: int
    median_ms: float | None
    p99_ms: float | None
    minutes: Sequence[float]  # of each minute of the hour, the share of the busiest one


def traffic_of(cloudwatch: Any, endpoint: str, variant: str) -> Traffic:
    """Return what was measured of a variant."""
    end = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    start = end - timedelta(minutes=_MINUTES)
    dimensions = [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": variant}]
    answer = cloudwatch.get_metric_data(
        StartTime=start, EndTime=end, MetricDataQueries=[_query(name, dimensions) for name in _ASKED]
    )
    found = {one["Id"]: list(zip(one["Timestamps"], one["Values"], strict=True)) for one in answer["MetricDataResults"]}
    sums = {name: int(sum(value for _, value in values)) for name, values in found.items()}
    return Traffic(
        invocations=sums["invocations"],
        errors=sums["client_errors"] + sums["server_errors"],
        median_ms=_latest(found["median"]),
        p99_ms=_latest(found["p99"]),
        minutes=_shares(dict(found["invocations"]), start),
    )


def _query(name: str, dimensions: list[dict[str, str]]) -> dict[str, Any]:
    metric, statistic, seconds = _ASKED[name]
    of = {"Namespace": _NAMESPACE, "MetricName": metric, "Dimensions": dimensions}
    return {"Id": name, "MetricStat": {"Metric": of, "Period": seconds, "Stat": statistic}}


def _latest(values: Sequence[tuple[datetime, float]]) -> float | None:
    return max(values)[1] / _MICROSECONDS if values else None


def _shares(values: Mapping[datetime, float], start: datetime) -> Sequence[float]:
    most = max(values.values(), default=1.0)
    return [values.get(start + timedelta(minutes=minute), 0.0) / most for minute in range(_MINUTES)]
