"""Statistics over CloudWatch's metric data, which moto keeps: also percentiles, and of any period."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from moto.cloudwatch.models import MetricAggregatedDatum, MetricDatum, MetricDatumBase

from deployments.local_aws.clock import to_timestamp

STANDARD = ("Sum", "Average", "Minimum", "Maximum", "SampleCount")
_PERCENTILE = re.compile(r"p(\d{1,2}(\.\d{0,10})?|100)")


@dataclass(frozen=True)
class Metric:
    """Which data belong together."""

    namespace: str
    name: str
    dimensions: frozenset[tuple[str, str]] = frozenset()
    unit: str | None = None

    @classmethod
    def of(cls, request: dict[str, Any], unit: str | None = None) -> "Metric":
        """Return the metric that a request's Namespace, MetricName and Dimensions name."""
        dimensions = frozenset((one["Name"], one["Value"]) for one in request.get("Dimensions", []))
        return cls(request.get("Namespace", ""), request["MetricName"], dimensions, unit)

    def has(self, datum: MetricDatumBase) -> bool:
        """Whether a datum is this metric's: all dimensions must be the same, as on AWS."""
        return (
            datum.name == self.name
            and datum.namespace == self.namespace
            and (self.unit is None or datum.unit == self.unit)
            and {(one.name, one.value) for one in datum.dimensions} == self.dimensions
        )

    def select(self, data: Iterable[MetricDatumBase], start: float, end: float) -> list[tuple[float, MetricDatumBase]]:
        """Return its data from start until before end (POSIX times), each with its time."""
        timed = ((to_timestamp(datum.timestamp), datum) for datum in data if self.has(datum))
        return [(when, datum) for when, datum in timed if start <= when < end]


class Distribution(MetricAggregatedDatum):
    """Many values of one metric in one minute as a single datum of moto's, with the values for percentiles."""

    def __init__(self, metric: Metric, values: Counter[float], moment: datetime) -> None:
        super().__init__(
            namespace=metric.namespace,
            name=metric.name,
            min_stat=min(values),
            max_stat=max(values),
            sample_count=values.total(),
            sum_stat=math.fsum(value * count for value, count in values.items()),
            dimensions=[{"Name": dimension, "Value": value} for dimension, value in sorted(metric.dimensions)],
            timestamp=moment,
            unit=metric.unit,
        )
        self.values = values


@dataclass
class Samples:
    """The values of a metric in a period."""

    total: float = 0.0
    count: float = 0.0
    least: float = math.inf
    most: float = -math.inf
    unit: str | None = None
    values: Counter[float] = field(default_factory=Counter)
    has_all_values: bool = True

    def add(self, datum: MetricDatumBase) -> None:
        """Add a datum: a value, or many."""
        self.unit = datum.unit
        if isinstance(datum, MetricDatum):
            self._add(datum.value, 1, datum.value, datum.value)
            self.values[datum.value] += 1
        elif isinstance(datum, MetricAggregatedDatum):
            self._add(datum.sum, datum.sample_count, datum.min, datum.max)
            self.values += getattr(datum, "values", Counter())
            self.has_all_values &= isinstance(datum, Distribution)

    def statistic(self, name: str) -> float | None:
        """Return Sum, Average, …, or a percentile such as p99; None where a percentile cannot be known.

        AWS, too, has no percentiles of data that were put as statistic sets.
        """
        if not self.count:
            return None
        if name in STANDARD:
            values = (self.total, self.total / self.count, self.least, self.most, self.count)
            return values[STANDARD.index(name)]
        return self._percentile(float(name[1:])) if self.has_all_values else None

    def _add(self, total: float, count: float, least: float, most: float) -> None:
        self.total, self.count = self.total + total, self.count + count
        self.least, self.most = min(self.least, least), max(self.most, most)

    def _percentile(self, percent: float) -> float | None:
        rank = max(math.ceil(percent / 100 * self.values.total()), 1)
        for value in sorted(self.values):
            rank -= self.values[value]
            if rank <= 0:
                return value
        return None


def is_statistic(name: str) -> bool:
    """Whether it is one that can be computed here: trimmed means and their like are not."""
    return name in STANDARD or _PERCENTILE.fullmatch(name) is not None


def samples(data: Iterable[MetricDatumBase]) -> Samples:
    """Return the samples in data."""
    gathered = Samples()
    for datum in data:
        gathered.add(datum)
    return gathered


def periods(timed: Iterable[tuple[float, MetricDatumBase]], period_seconds: float) -> dict[float, Samples]:
    """Return the samples by the beginning of the period that they are in, the earliest first."""
    found: dict[float, Samples] = {}
    for when, datum in sorted(timed, key=lambda item: item[0]):
        found.setdefault(when // period_seconds * period_seconds, Samples()).add(datum)
    return found
