"""CloudWatch: moto keeps metrics and alarms; statistics, the judgement of alarms and the minutes are ours."""

import logging

from moto.cloudwatch.models import CloudWatchBackend, MetricDatumBase, cloudwatch_backends

from deployments.local_aws.account import Account
from deployments.local_aws.alarms import Alarms
from deployments.local_aws.metric_queries import MetricQueries
from deployments.local_aws.metric_statistics import Metric, samples
from deployments.local_aws.minutes import Minutes, Work
from deployments.local_aws.protocol import Operation

# moto would keep these, and nobody would judge them.
PRETENDED = ("PutCompositeAlarm", "PutInsightRule", "PutManagedInsightRules")

_log = logging.getLogger(__name__)


class CloudWatch:
    """CloudWatch for one account, and the thread in which every minute ends.

    At the end of a minute ``publishers`` publish what was measured in it, then alarms are judged, and then ``scalers``
    act on them.
    """

    def __init__(self, account: Account) -> None:
        self._backend: CloudWatchBackend = cloudwatch_backends[account.account_id][account.region]
        self.alarms = Alarms(self._backend)
        self.publishers: list[Work] = []
        self.scalers: list[Work] = []
        self._minutes = Minutes(self._end_minute)
        self._queries = MetricQueries(lambda: list(self._backend.metric_data))

    def operations(self) -> dict[str, Operation]:
        """Return its operations by their API names; moto has the others."""
        return {**self.alarms.operations(), **self._queries.operations()}

    def publish(self, datum: MetricDatumBase) -> None:
        """Keep a datum, as PutMetricData does."""
        self._backend.metric_data.append(datum)

    def statistic(self, metric: Metric, name: str, start: float, end: float) -> float | None:
        """Return a statistic of what was measured from start until before end, None where nothing was."""
        found = metric.select(list(self._backend.metric_data), start, end)
        return samples(datum for _, datum in found).statistic(name)

    def start(self) -> None:
        """Begin to end minutes."""
        self._minutes.start()

    def stop(self) -> None:
        """End the thread."""
        self._minutes.stop()

    def _end_minute(self, now: float) -> None:
        for work in (*self.publishers, self.alarms.judge, *self.scalers):
            try:
                work(now)
            except Exception:  # noqa: BLE001 - one that fails must not end what comes after it
                _log.exception("What happens every minute failed: %r", work)
