"""What CloudWatch learns of endpoints: every invocation counts, and each minute is published when it is over.

https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from deployments.local_aws.clock import Clock, from_timestamp
from deployments.local_aws.metric_statistics import Distribution, Metric

NAMESPACE = "AWS/SageMaker"
_UNITS = dict.fromkeys(("ModelLatency", "ModelSetupTime", "OverheadLatency"), "Microseconds")  # the others have none
_CLIENT_ERRORS = range(400, 500)
_SERVER_ERRORS = range(500, 600)
_SUCCESSES = range(200, 300)

Series = tuple[float, str, str, str, str]  # when its minute began; endpoint, variant, configuration; metric


@dataclass(frozen=True)
class Invocation:
    """One request that a model answered, or did not: then the status is 0."""

    endpoint: str
    variant: str
    config: str
    instances: int | None  # of the variant, that share its requests; None where it is serverless
    status: int
    model_seconds: float
    overhead_seconds: float
    setup_seconds: float | None = None  # of a cold start

    def values(self) -> Mapping[str, float]:
        """Return what is sent for it, by metric: errors are sent as 0 too, so that their average is the error rate."""
        values = {
            "Invocations": 1.0,
            "ModelLatency": float(round(self.model_seconds * 1e6)),
            "OverheadLatency": float(round(self.overhead_seconds * 1e6)),
            "Invocation4XXErrors": float(self.status in _CLIENT_ERRORS),
            "Invocation5XXErrors": float(self.status in _SERVER_ERRORS),
        }
        # https://docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints-monitoring.html lists all that there are.
        if self.instances is not None:
            values["InvocationsPerInstance"] = 1 / self.instances
            values["InvocationModelErrors"] = float(self.status not in _SUCCESSES)
        if self.setup_seconds is not None:
            values["ModelSetupTime"] = float(round(self.setup_seconds * 1e6))
        return values


class EndpointMetrics:
    """Counts invocations by minute; safe to use from several threads.

    As on AWS, a minute without invocations has no data, and no zeros.

    Args:
        publish: Takes what a minute came to.
    """

    def __init__(self, publish: Callable[[Distribution], None]) -> None:
        self._publish = publish
        self._counted: defaultdict[Series, Counter[float]] = defaultdict(Counter)
        self._lock = threading.Lock()

    def record(self, invocation: Invocation) -> None:
        """Count an invocation in the minute that is now."""
        minute = Clock.minute_of(time.time())
        with self._lock:
            for metric, value in invocation.values().items():
                series = (minute, invocation.endpoint, invocation.variant, invocation.config, metric)
                self._counted[series][value] += 1

    def publish_until(self, now: float) -> None:
        """Publish every minute that is over."""
        with self._lock:
            over = [series for series in self._counted if series[0] < now]
            counted = {series: self._counted.pop(series) for series in over}
        for series, values in counted.items():
            for datum in _published(series, values):
                self._publish(datum)


def _published(series: Series, values: Counter[float]) -> Iterator[Distribution]:
    """Yield a variant's data: of all its fleets, and of the one with this configuration, for alarms on a new fleet."""
    minute, endpoint, variant, config, metric = series
    of_variant = [("EndpointName", endpoint), ("VariantName", variant)]
    for dimensions in (of_variant, [*of_variant, ("EndpointConfigName", config)]):
        named = Metric(NAMESPACE, metric, frozenset(dimensions), _UNITS.get(metric, "None"))
        yield Distribution(named, values, from_timestamp(minute))
