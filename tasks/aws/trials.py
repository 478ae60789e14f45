"""The trials of a tuning job, as SageMaker lists them: which is best, and why others failed."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tasks.aws.clients import client
from tasks.aws.errors import JobFailedError
from tasks.aws.jobs import TRAINING_JOBS, TUNING_JOBS, Description, describe
from tasks.aws.prices import cost_usd
from tasks.contracts import Hyperparameters, Trial, TuningSpec

_REASON_SHOWN = 300
# How the training toolkit ends what it says of a failed script: with the command, which carries the hyperparameters.
_COMMAND = re.compile(r'"?\n(ExtraInfo|Command) ".*', re.DOTALL)


def list_trials(tuning_job: Description, region: str) -> tuple[Trial, ...]:
    """Return the trials of a tuning job in the order of their creation.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListTrainingJobsForHyperParameterTuningJob.html
    """
    pages = (
        client("sagemaker")
        .get_paginator("list_training_jobs_for_hyper_parameter_tuning_job")
        .paginate(
            HyperParameterTuningJobName=tuning_job["HyperParameterTuningJobName"],
            SortBy="CreationTime",
            SortOrder="Ascending",
        )
    )
    return tuple(_trial(summary, tuning_job, region) for page in pages for summary in page["TrainingJobSummaries"])


def as_billed(trial: Trial, tuning_job: Description, region: str) -> Trial:
    """Return an ended trial with the seconds that AWS bills, which only its own description has."""
    description = describe(TRAINING_JOBS, trial.name) or {}
    seconds = float(description.get("BillableTimeInSeconds", trial.seconds))
    return trial.model_copy(update={"seconds": seconds, "cost_usd": _cost(tuning_job, region, seconds)})


def check_objective(name: str, metric: str, trials: Sequence[Trial]) -> None:
    """Say that the program never prints its objective as soon as one trial has ended without it.

    A trial whose objective is pending is no such one: SageMaker may read it off the logs after the trial is Completed.

    Raises:
        JobFailedError: A trial completed, and has no objective; the others would not either.
    """
    for trial in trials:
        if trial.status == "Completed" and trial.objective_status == "Failed":
            reason = (
                f"the trial {trial.name} completed without printing {metric}=<number>, so there is nothing to compare: "
                "make the training program print it"
            )
            raise JobFailedError(TUNING_JOBS.noun, name, "Failed", reason)


def best_of(name: str, metric: str, trials: Sequence[Trial], reason: str = "") -> Trial:
    """Return the completed trial with the best objective; among those that were stopped early where none completed.

    Raises:
        JobFailedError: None has an objective; with the reason that most of them failed for.
    """
    for status in ("Completed", "Stopped"):
        best = best_so_far(metric, [trial for trial in trials if trial.status == status])
        if best:
            return best
    raise JobFailedError(TUNING_JOBS.noun, name, "Failed", most_common_reason(trials) or reason)


def best_so_far(metric: str, trials: Sequence[Trial]) -> Trial | None:
    """Return the trial with the best objective until now, of those that have one."""
    judged = [(trial.objective, trial) for trial in trials if trial.objective is not None]
    if not judged:
        return None
    choose = min if metric.endswith("loss") else max
    return choose(judged, key=lambda pair: pair[0])[1]


def most_common_reason(trials: Sequence[Trial]) -> str:
    """Return what most trials failed of, and how many did; empty when none did."""
    reasons = Counter(trial.reason for trial in trials if trial.status == "Failed")
    if not reasons:
        return ""
    reason, count = reasons.most_common(1)[0]
    return f"{count} of {len(trials)} trials failed for this reason: {reason}"


def with_trial(spec: TuningSpec, trial: Trial) -> Hyperparameters:
    """Return the hyperparameters of a training with what a trial has found."""
    found = {name: json.loads(trial.hyperparameters[name]) for name in spec.config.search.names}
    return Hyperparameters.model_validate(spec.trial.hyperparameters.model_dump() | found)


def _trial(summary: dict[str, Any], tuning_job: Description, region: str) -> Trial:
    started, ended = summary.get("TrainingStartTime"), summary.get("TrainingEndTime")
    seconds = ((ended or datetime.now(tz=UTC)) - started).total_seconds() if started else 0.0
    metric = summary.get("FinalHyperParameterTuningJobObjectiveMetric")
    return Trial(
        name=summary["TrainingJobName"],
        status=summary["TrainingJobStatus"],
        hyperparameters=summary.get("TunedHyperParameters", {}),
        objective=float(metric["Value"]) if metric else None,
        objective_status=summary.get("ObjectiveStatus", "Pending"),
        seconds=seconds,
        ended_after_seconds=(ended - tuning_job["CreationTime"]).total_seconds() if ended else None,
        cost_usd=_cost(tuning_job, region, seconds),
        reason=_reason(summary.get("FailureReason", "")),
    )


def _reason(failure: str) -> str:
    """Return the last line that the program printed, or AWS's own: what is the same for all that failed alike."""
    before, _, printed = _COMMAND.sub("", failure).partition('ErrorMessage "')
    line = (printed.strip() or before.strip()).rpartition("\n")[2].strip()
    return line if len(line) <= _REASON_SHOWN else f"{line[: _REASON_SHOWN - 1]}…"


def _cost(tuning_job: Description, region: str, seconds: float) -> float | None:
    resources = tuning_job["TrainingJobDefinition"]["ResourceConfig"]
    return cost_usd("training", resources["InstanceType"], region, resources["InstanceCount"], seconds)
