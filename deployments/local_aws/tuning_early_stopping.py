"""When a tuning job stops a trial before its end.

https://docs.aws.amazon.com/sagemaker/latest/dg/automatic-model-tuning-early-stopping.html
"""

from collections.abc import Sequence
from statistics import fmean, median

_FEWEST_TRIALS = 3  # SageMaker does not say how many it waits for; the median of fewer is one trial's luck


class MedianRule:
    """Stops a trial whose objective is worse than the median of what completed trials had on average by then."""

    def __init__(self, *, minimize: bool) -> None:
        self._minimize = minimize
        self._completed: list[Sequence[float]] = []

    def add_completed(self, reports: Sequence[float]) -> None:
        """Take the objective values of a completed trial, one an epoch."""
        self._completed.append(tuple(reports))

    def is_hopeless(self, reports: Sequence[float]) -> bool:
        """Return whether to stop a trial that has reported these values until now."""
        epoch = len(reports)
        averages = [fmean(values[:epoch]) for values in self._completed if len(values) >= epoch]
        if len(averages) < _FEWEST_TRIALS:
            return False
        return reports[-1] > median(averages) if self._minimize else reports[-1] < median(averages)
