"""What a tuning job says of its trials: their summaries, the best of them, how many are how far."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deployments.local_aws.records import Record

ENDED = ("Completed", "Failed", "Stopped")
_FROM_TRAINING_JOB = (
    "TrainingJobName",
    "TrainingJobArn",
    "CreationTime",
    "TrainingStartTime",
    "TrainingEndTime",
    "TrainingJobStatus",
    "FailureReason",
)
# An error of the service may be tried again, one of the client may not.
_RETRYABLE = "InternalServerError"


def final_objective(training_job: Mapping[str, Any], metric: str) -> float | None:
    """Return the last value that a training job printed of its objective; None if it failed, or printed no number."""
    if training_job["TrainingJobStatus"] == "Failed":
        return None
    values = [one["Value"] for one in training_job["FinalMetricDataList"] if one["MetricName"] == metric]
    return values[0] if values and math.isfinite(values[0]) else None


def trial_summary(
    training_job: Mapping[str, Any],
    tuned: Mapping[str, str],
    objective: Mapping[str, str],
    tuning_job: str,
    *,
    judged: bool,
) -> Record:
    """Return what a tuning job says of a trial: of its objective nothing until the tuning job has judged it.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_HyperParameterTrainingJobSummary.html
    """
    summary: Record = {name: training_job[name] for name in _FROM_TRAINING_JOB if name in training_job}
    summary |= {"TunedHyperParameters": dict(tuned), "TuningJobName": tuning_job, "ObjectiveStatus": "Pending"}
    if not judged:
        return summary
    value = final_objective(training_job, objective["MetricName"])
    if value is None:
        return summary | {"ObjectiveStatus": "Failed"}
    final = {"Type": objective["Type"], "MetricName": objective["MetricName"], "Value": value}
    return summary | {"ObjectiveStatus": "Succeeded", "FinalHyperParameterTuningJobObjectiveMetric": final}


def objective_of(summary: Mapping[str, Any]) -> float | None:
    """Return the final objective value in a summary, or None."""
    metric = summary.get("FinalHyperParameterTuningJobObjectiveMetric")
    return None if metric is None else float(metric["Value"])


def best_of(summaries: Iterable[Record]) -> Record | None:
    """Return the best trial; one that was stopped only where none completed, for it has half a model."""
    judged = [(objective_of(summary), summary) for summary in summaries]
    found = [(value, summary) for value, summary in judged if value is not None]
    completed = [pair for pair in found if pair[1]["TrainingJobStatus"] == "Completed"] or found
    if not completed:
        return None
    metric = completed[0][1]["FinalHyperParameterTuningJobObjectiveMetric"]
    choose = min if metric["Type"] == "Minimize" else max
    return choose(completed, key=lambda pair: pair[0])[1]


def counters(summaries: Sequence[Record]) -> Record:
    """Return how many trials are in which state, and of how many the objective is known."""
    statuses = Counter(_status(summary) for summary in summaries)
    objectives = Counter(summary["ObjectiveStatus"] for summary in summaries)
    return {
        "TrainingJobStatusCounters": {
            name: statuses[name]
            for name in ("Completed", "InProgress", "RetryableError", "NonRetryableError", "Stopped")
        },
        "ObjectiveStatusCounters": {name: objectives[name] for name in ("Succeeded", "Pending", "Failed")},
    }


def _status(summary: Mapping[str, Any]) -> str:
    status: str = summary["TrainingJobStatus"]
    if status not in ENDED:
        return "InProgress"
    if status != "Failed":
        return status
    return "RetryableError" if summary.get("FailureReason", "").startswith(_RETRYABLE) else "NonRetryableError"
