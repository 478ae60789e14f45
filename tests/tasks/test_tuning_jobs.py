"""Tuning as a flow's tasks do it, against the local AWS: a program of a few lines is tuned for real."""

import json
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tasks import tuning_jobs
from tasks.aws.errors import JobFailedError
from tasks.aws.jobs import TUNING_JOBS, Submission, settle
from tasks.aws.settings import Settings
from tasks.aws.trials import list_trials
from tasks.contracts import LearningRateRange, SearchSpace, TrainingSpec, TuningConfig, TuningResult, TuningSpec
from tasks.runs import stopped_on_failure
from tasks.tuning_jobs import await_tuning_job, start_tuning_job

pytestmark = pytest.mark.slow

SEARCH = SearchSpace(learning_rate=LearningRateRange(low=0.001, high=0.1, scale="log"), batch_size=(32, 64))
# The best learning rate is 0.01; the last line is that of the weights kept.
GOOD = """
import json, math, os
given = json.loads(os.environ["SM_HPS"])
loss = abs(math.log10(given["learning_rate"]) + 2) + given["batch_size"] / 1000
print(f"epoch=1 valid_loss={loss + 1}")
print(f"best_epoch=1 valid_loss={loss}")
"""
EPOCHS = """
import json, math, os, time
given = json.loads(os.environ["SM_HPS"])
loss = abs(math.log10(given["learning_rate"]) + 2)
for epoch in range(1, given["epochs"] + 1):
    print(f"epoch={epoch} valid_loss={loss + 1 / epoch}", flush=True)
    time.sleep(0.1)
print(f"best_epoch={given['epochs']} valid_loss={loss + 1 / given['epochs']}")
"""
# Only the first ends by itself.
SILENT = """
import json, os, time
print("epoch=1 train_loss=0.5", flush=True)
if json.loads(os.environ["SM_HPS"])["batch_size"] != 16:
    time.sleep(600)
"""
# Every second batch size does not fit into memory.
HALF = (
    GOOD
    + """
if given["batch_size"] == 64:
    raise MemoryError("64 do not fit")
"""
)
BROKEN = "raise ZeroDivisionError('it never worked')"


def spec(trial: TrainingSpec, **config: object) -> TuningSpec:
    fields = {"search": SEARCH, "trials": 4, "parallel": 2} | config
    return TuningSpec(trial=trial, config=TuningConfig(**fields))


def tuned(wanted: TuningSpec, settings: Settings) -> tuple[Submission, TuningResult]:
    submission = start_tuning_job.fn(wanted, settings)
    return submission, await_tuning_job.fn(submission, wanted, settings)


def test_the_best_trial_is_what_a_training_is_given_next(stage: Any, settings: Settings) -> None:
    wanted = spec(stage(GOOD), strategy="Grid", search=SEARCH.model_copy(update={"batch_size": (32,)}))
    submission, result = tuned(wanted, settings)
    assert submission.how == "created"
    losses = [trial.objective for trial in result.trials]
    assert len(losses) == 4
    assert result.best.objective == min(losses)
    assert result.hyperparameters.batch_size == 32
    assert result.hyperparameters.learning_rate == json.loads(result.best.hyperparameters["learning_rate"])
    assert result.hyperparameters.epochs == 3
    assert result.cost_usd > 0


def test_the_same_tuning_is_reused_for_nothing(stage: Any, settings: Settings) -> None:
    wanted = spec(stage(GOOD), strategy="Random", trials=2)
    _, first = tuned(wanted, settings)
    submission, again = tuned(wanted, settings)
    assert submission.how == "reused"
    assert [trial.name for trial in again.trials] == [trial.name for trial in first.trials]


def test_one_failed_trial_does_not_fail_the_study(stage: Any, settings: Settings) -> None:
    search = SearchSpace(learning_rate=None, batch_size=(32, 64))
    _, result = tuned(spec(stage(HALF), strategy="Grid", search=search), settings)
    assert sorted(trial.status for trial in result.trials) == ["Completed", "Failed"]
    assert "64 do not fit" in next(trial.reason for trial in result.trials if trial.status == "Failed")
    assert result.hyperparameters.batch_size == 32


def test_all_failed_fails_with_the_most_common_reason(stage: Any, settings: Settings) -> None:
    words = r"; 3 of 3 trials failed for this reason: ZeroDivisionError: it never worked$"
    with pytest.raises(JobFailedError, match=words):
        tuned(spec(stage(BROKEN), strategy="Random", trials=3), settings)


def test_a_metric_that_is_never_printed_ends_the_study_after_its_first_trial(stage: Any, settings: Settings) -> None:
    search = SearchSpace(learning_rate=None, batch_size=(16, 32, 64, 128))
    wanted = spec(stage(SILENT), strategy="Grid", search=search, parallel=1)
    submission = start_tuning_job.fn(wanted, settings)
    silent = pytest.raises(JobFailedError, match="completed without printing valid_loss=<number>")
    with silent, stopped_on_failure(TUNING_JOBS, submission):
        await_tuning_job.fn(submission, wanted, settings)
    settle(TUNING_JOBS, submission.name)
    name = submission.name
    described = boto3.client("sagemaker").describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    assert described["HyperParameterTuningJobStatus"] == "Stopped"
    counted = described["TrainingJobStatusCounters"]
    assert counted["Completed"] == 1
    assert counted["Stopped"] == sum(counted.values()) - 1 <= 1  # the second may have begun before we looked


def test_a_throttled_list_of_trials_is_waited_out(
    stage: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}
    troubles = [ClientError(answer, "ListTrainingJobsForHyperParameterTuningJob")] * 2

    def throttled(*arguments: Any) -> Any:
        if troubles:
            raise troubles.pop()
        return list_trials(*arguments)

    monkeypatch.setattr(tuning_jobs, "list_trials", throttled)
    _, result = tuned(spec(stage(GOOD), strategy="Random", trials=2), settings)
    assert (len(result.trials), troubles) == (2, [])


def test_a_later_tuning_learns_from_an_earlier_one(stage: Any, settings: Settings) -> None:
    trial = stage(GOOD)
    first, _ = tuned(spec(trial, strategy="Random", trials=2), settings)
    _, second = tuned(spec(trial, trials=2, warm_start_from=first.name), settings)
    assert len(second.trials) == 2


def test_hyperband_stops_the_weak_and_lets_the_strong_end(stage: Any, settings: Settings) -> None:
    """The program prints its best once more at the end, which must not be one epoch too many."""
    wanted = spec(stage(EPOCHS), strategy="Hyperband", trials=6, epochs=9)
    _, result = tuned(wanted, settings)
    assert result.best.status == "Completed"
    assert {trial.status for trial in result.trials} <= {"Completed", "Stopped"}
