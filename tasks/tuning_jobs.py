"""SageMaker hyperparameter tuning jobs: start one, follow its trials, take the best."""

from collections.abc import Sequence
from datetime import timedelta

from tasks.aws.errors import JobFailedError
from tasks.aws.jobs import TUNING_JOBS, Description, Patience, Submission, await_end, describe, submit_once
from tasks.aws.requests import tuning_job_request
from tasks.aws.settings import Settings, poll_seconds
from tasks.aws.trials import (
    as_billed,
    best_of,
    best_so_far,
    check_objective,
    list_trials,
    most_common_reason,
    with_trial,
)
from tasks.cancellation import CancelWatch, end_if_cancelled
from tasks.contracts import Trial, TuningResult, TuningSpec
from tasks.markdown import short_number
from tasks.retries import retried
from tasks.runs import Progress, current_owner, run_logger

_QUEUE_SECONDS = 3600
_LIFETIME = timedelta(days=7)


@retried("start a search of {spec.config.trials} trials")
def start_tuning_job(spec: TuningSpec, settings: Settings) -> Submission:
    """Start the tuning job, and return its name.

    Safe to retry: a tuning job with this content that runs is adopted, one that completed is reused.

    Raises:
        RunCancelledError: Somebody has cancelled the flow run.
    """
    end_if_cancelled()
    submission = submit_once(TUNING_JOBS, tuning_job_request(spec, settings, current_owner(_LIFETIME)))
    run_logger().info("Tuning job %s: %s", submission.name, submission.how)
    return submission


@retried("await {submission.name}")
def await_tuning_job(submission: Submission, spec: TuningSpec, settings: Settings) -> TuningResult:
    """Wait for the tuning job, tell of every trial that ends, and return what was found.

    Safe to retry: it only looks.

    Raises:
        JobFailedError: All trials failed, with the most common reason; or the first that completed has not printed the
            objective, and the tuning job goes on running.
        JobStoppedError: Somebody stopped the tuning job.
        DeadlineError: It was not done when the deadline passed.
        RunCancelledError: Somebody has cancelled the flow run.
    """
    watch = _Watch(submission.name, spec, settings.region)
    try:
        description = await_end(TUNING_JOBS, submission.name, _patience(spec), watch.look)
    except JobFailedError as error:
        raise _with_trials_reason(error, settings.region) from error
    watch.end()
    return _result(submission, description, spec, settings.region)


class _Watch:
    """What is done at each look at a running tuning job: say which trials have ended, and how far it is."""

    def __init__(self, name: str, spec: TuningSpec, region: str) -> None:
        self._name, self._config, self._region = name, spec.config, region
        self._total = spec.config.search.grid_size if spec.config.strategy == "Grid" else spec.config.trials
        self._told: set[str] = set()
        self._cancellation = CancelWatch()
        self._progress = Progress("tuning-progress", f"Tuning job {name}")

    def look(self, description: Description) -> None:
        trials = list_trials(description, self._region)
        ended = [trial for trial in trials if trial.status in ("Completed", "Failed", "Stopped")]
        judged = [trial for trial in ended if trial.objective_status != "Pending"]
        for trial in judged:
            if trial.name not in self._told:
                self._told.add(trial.name)
                self._tell(trial, len(self._told), best_so_far(self._config.objective, judged))
        self._progress.update(0.99 * len(ended) / max(self._total, 1))
        check_objective(self._name, self._config.objective, judged)
        self._cancellation.check()

    def _tell(self, trial: Trial, ended: int, best: Trial | None) -> None:
        metric = self._config.objective
        outcome = f"{metric}={trial.objective:.6g}" if trial.objective is not None else trial.reason or "no objective"
        so_far = "none yet" if best is None or best.objective is None else f"{best.objective:.6g}"
        run_logger().info(
            "Trial %d of %d, %s: %s, %s; best so far %s",
            ended,
            self._total,
            trial.status,
            _values(trial),
            outcome,
            so_far,
        )

    def end(self) -> None:
        self._progress.update(1.0)


def _values(trial: Trial) -> str:
    """Return what was tried, as a person reads it."""
    return ", ".join(f"{name}={short_number(value)}" for name, value in sorted(trial.hyperparameters.items()))


def _with_trials_reason(error: JobFailedError, region: str) -> JobFailedError:
    """Return the error with what most trials failed of, which AWS does not say of the tuning job."""
    description = describe(TUNING_JOBS, error.name)
    of_trials = most_common_reason(list_trials(description, region)) if description else ""
    reason = "; ".join(part for part in (error.reason, of_trials) if part)
    return JobFailedError(error.kind, error.name, error.status, reason, error.log_tail)


def _patience(spec: TuningSpec) -> Patience:
    rounds = -(-spec.config.trials // spec.config.parallel)
    return Patience(poll_seconds(), rounds * spec.trial.compute.max_runtime_seconds + _QUEUE_SECONDS)


def _result(submission: Submission, description: Description, spec: TuningSpec, region: str) -> TuningResult:
    trials = tuple(as_billed(trial, description, region) for trial in list_trials(description, region))
    config, resources = spec.config, description["TrainingJobDefinition"]["ResourceConfig"]
    best = best_of(submission.name, config.objective, trials, description.get("FailureReason", ""))
    ended = description.get("HyperParameterTuningEndTime")
    return TuningResult(
        name=submission.name,
        arn=submission.arn,
        how=submission.how,
        strategy=config.strategy,
        objective=config.objective,
        trials=trials,
        best=best,
        hyperparameters=with_trial(spec, best),
        instance_type=resources["InstanceType"],
        instance_count=resources["InstanceCount"],
        seconds=(ended - description["CreationTime"]).total_seconds() if ended else 0.0,
        ended_because=_ended_because(trials, description),
    )


def _ended_because(trials: Sequence[Trial], description: Description) -> str:
    most = description["HyperParameterTuningJobConfig"]["ResourceLimits"].get("MaxNumberOfTrainingJobs", len(trials))
    if len(trials) >= most:
        return "all trials were tried"
    return str(description.get("FailureReason") or "its own completion criteria were met")
