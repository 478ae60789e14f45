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


def trial(name: str, objective: float | None = None, status: str = "Completed", **fields: str) -> Trial:
    return Trial(name=name, status=status, objective=objective, hyperparameters={}, **fields)


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


def failed(number: int, reason: str) -> dict[str, Any]:
    return {"TrainingJobName": f"t-{number}", "TrainingJobStatus": "Failed", "FailureReason": reason}


def reason_of_toolkit(words: str, learning_rate: float) -> str:
    """What SageMaker says of a script that failed: its words, and the command with the hyperparameters."""
    command = (
        f"/opt/conda/bin/python3.12 training/train.py --architecture small_cnn --augmentation 0.2 --batch_size 64 "
        f"--epochs 20 --image_size 32 --learning_rate {learning_rate} --patience 5 --seed 42 --trainable all "
        f"--weight_decay {learning_rate / 10} --weights none"
    )
    head = "AlgorithmError: ExecuteUserScriptError:\nExitCode 1"
    return f'{head}\nErrorMessage "{words}"\nCommand "{command}", exit code: 1'


TRACEBACK = (
    'Traceback (most recent call last):\n   File "/opt/ml/code/training/train.py", line 42, in <module>\n main()'
)


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (reason_of_toolkit(f"{TRACEBACK}\n MemoryError: no room for 3 GB", 0.003), "MemoryError: no room for 3 GB"),
        (reason_of_toolkit("error: the loss ran away\n", 0.003), "error: the loss ran away"),
        (reason_of_toolkit('KeyError: "a""\nExtraInfo "of MPI', 0.003), 'KeyError: "a"'),
        (reason_of_toolkit("", 0.003), "ExitCode 1"),
        (reason_of_toolkit(f"{TRACEBACK}\n MemoryError: {'x' * 2000}", 0.003)[:1024], f"MemoryError: {'x' * 286}…"),
        ("AlgorithmError: out of cheese, exit code: 7", "AlgorithmError: out of cheese, exit code: 7"),
        ("CapacityError: Unable to provision requested ML compute capacity.",) * 2,
    ],
    ids=["traceback", "sentence", "extra information", "silence", "cut off by AWS", "failure file", "no script's"],
)
def test_the_reason_of_a_trial_is_the_last_that_its_program_said(
    monkeypatch: pytest.MonkeyPatch, reason: str, said: str
) -> None:
    monkeypatch.setattr(trials, "client", lambda _service: FakeSageMaker(failed(1, reason)))
    assert [one.reason for one in trials.list_trials(TUNING_JOB, "us-east-1")] == [said]


def test_what_failed_alike_is_counted_together_whatever_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    words = f"{TRACEBACK}\n torch.OutOfMemoryError: CUDA out of memory"
    summaries = [failed(i, reason_of_toolkit(words, 0.0012345678 * (i + 1))) for i in range(3)]
    monkeypatch.setattr(trials, "client", lambda _service: FakeSageMaker(*summaries))
    reason = trials.most_common_reason(trials.list_trials(TUNING_JOB, "us-east-1"))
    assert reason == "3 of 3 trials failed for this reason: torch.OutOfMemoryError: CUDA out of memory"


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
    alike = [trial(str(i), status="Failed", reason="out of memory") for i in range(3)]
    other = trial("x", status="Failed", reason="a bad disk")
    assert trials.best_of("t", "valid_loss", [*alike, trial("a", 0.1)]).name == "a"
    with pytest.raises(JobFailedError, match=r"3 of 4 trials failed for this reason: out of memory"):
        trials.best_of("t", "valid_loss", [other, *alike])


def test_a_metric_that_is_never_printed_is_told_after_the_first_trial() -> None:
    some = [trial("a", 0.1, objective_status="Succeeded"), trial("b", status="Failed", objective_status="Failed")]
    trials.check_objective("t", "valid_loss", some)
    with pytest.raises(JobFailedError, match=r"trial c completed without printing valid_loss=<number>"):
        trials.check_objective("t", "valid_loss", [*some, trial("c", objective_status="Failed")])


def test_an_objective_that_has_not_arrived_yet_is_no_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """SageMaker reads it off the logs, and may say that a trial is Completed before it has."""
    late = {"TrainingJobName": "t-1", "TrainingJobStatus": "Completed", "ObjectiveStatus": "Pending"}
    monkeypatch.setattr(trials, "client", lambda _service: FakeSageMaker(late))
    trials.check_objective("t", "valid_loss", trials.list_trials(TUNING_JOB, "us-east-1"))
