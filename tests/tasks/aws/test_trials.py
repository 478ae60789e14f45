"""The trials of a tuning job: which is best, what is said when there is none, and what a training is given of it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks.aws import trials
from tasks.aws.errors import JobFailedError
from tasks.contracts import Trial

BEGAN = datetime(2026, 11, 23, 12, tzinfo=UTC)
TUNING_JOB: dict[str, Any] = {
    "HyperParameterTuningJobName": "flows-tune-1",
    "CreationTime": BEGAN,
    "TrainingJobDefinition": {"ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1}},
}


def trial(name: str, objective: float | None = None, status: str = "Completed", reason: str = "") -> Trial:
    return Trial(name=name, status=status, objective=objective, hyperparameters={}, reason=reason)


class FakeSageMaker:
    def __init__(self, *summaries: dict[str, Any]) -> None:
        self.summaries = summaries

    def get_paginator(self, _operation: str) -> "FakeSageMaker":
        return self

    def paginate(self, **_request: Any) -> list[dict[str, Any]]:
        return [{"TrainingJobSummaries": [summary]} for summary in self.summaries]


def test_trials_are_read_off_every_page(monkeypatch: pytest.MonkeyPatch) -> None:
    started, ended = BEGAN + timedelta(minutes=2), BEGAN + timedelta(minutes=3)
    done = {
        "TrainingJobName": "t-1",
        "TrainingJobStatus": "Completed",
        "TunedHyperParameters": {"learning_rate": "0.002"},
        "TrainingStartTime": started,
        "TrainingEndTime": ended,
        "FinalHyperParameterTuningJobObjectiveMetric": {"MetricName": "valid_loss", "Value": 0.25},
    }
    fresh = {"TrainingJobName": "t-2", "TrainingJobStatus": "InProgress", "TunedHyperParameters": {}}
    monkeypatch.setattr(trials, "client", lambda _service: FakeSageMaker(done, fresh))
    first, second = trials.list_trials(TUNING_JOB, "us-east-1")
    assert (first.objective, first.seconds, first.ended_after_seconds) == (0.25, 60, 180)
    assert first.cost_usd == pytest.approx(0.23 / 60)
    assert (second.objective, second.seconds, second.ended_after_seconds) == (None, 0, None)


def test_the_least_loss_and_the_most_accuracy_are_best() -> None:
    some = [trial("a", 0.3), trial("b", 0.1), trial("c", 0.2), trial("d")]
    assert trials.best_of("t", "valid_loss", some).name == "b"
    assert trials.best_of("t", "valid_accuracy", some).name == "a"


def test_a_trial_that_was_stopped_early_is_not_taken_though_it_was_ahead() -> None:
    """What it would have come to is not known; but it is better than nothing."""
    stopped = trial("a", 0.1, "Stopped")
    assert trials.best_of("t", "valid_loss", [stopped, trial("b", 0.2)]).name == "b"
    assert trials.best_of("t", "valid_loss", [stopped, trial("c", status="Failed")]).name == "a"


def test_one_failed_trial_does_not_fail_the_study_and_all_do_with_their_most_common_reason() -> None:
    failed = [trial(str(i), status="Failed", reason="out of memory") for i in range(3)]
    other = trial("x", status="Failed", reason="a bad disk")
    assert trials.best_of("t", "valid_loss", [*failed, trial("a", 0.1)]).name == "a"
    with pytest.raises(JobFailedError, match=r"3 of 4 trials failed for this reason: out of memory"):
        trials.best_of("t", "valid_loss", [other, *failed])


def test_a_metric_that_is_never_printed_is_told_after_the_first_trial() -> None:
    trials.check_objective("t", "valid_loss", [trial("a", 0.1), trial("b", status="Failed")])
    with pytest.raises(JobFailedError, match=r"trial b completed without printing valid_loss=<number>"):
        trials.check_objective("t", "valid_loss", [trial("a", 0.1), trial("b")])
