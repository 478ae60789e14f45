"""One tuning job as it runs: trials suggested, launched, judged, stopped."""

import contextlib
import queue
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deployments.local_aws.protocol import AwsError
from deployments.local_aws.training_jobs import TrainingJobs
from deployments.local_aws.tuning_descriptions import final_objective
from deployments.local_aws.tuning_early_stopping import MedianRule
from deployments.local_aws.tuning_requests import TuningConfig

if TYPE_CHECKING:  # it takes the time of importing Optuna
    from deployments.local_aws.tuning_strategies import Strategy

_FRUITLESS_TRIALS = 5  # after so many without an objective, and none with one, SageMaker gives up
_IMPROVEMENT = 0.01  # of the best objective: less is none, says BestObjectiveNotImproving
_LOOK_SECONDS = 0.5


@dataclass
class Trial:
    """A training job of a tuning job, the objective values that it has printed, and whether they have been judged."""

    number: int
    name: str
    hyperparameters: Mapping[str, str]
    reports: list[float] = field(default_factory=list)
    judged: bool = False


Known = tuple[Mapping[str, str], float]
"""A trial of a parent job: its hyperparameters and its objective."""


class TuningRun:
    """Runs the trials of a tuning job, in the thread that calls run; everything else may be called from others.

    Args:
        name: The tuning job's.
        arn: The tuning job's.
        config: What is asked of the search.
        jobs: What runs the trials.
        request_of: Makes the CreateTrainingJob request of a trial from its name and hyperparameters.
        known: What parent jobs have tried.
        clock: Tells seconds.
    """

    def __init__(
        self,
        name: str,
        arn: str,
        config: TuningConfig,
        jobs: TrainingJobs,
        request_of: Callable[[str, Mapping[str, str]], dict[str, Any]],
        *,
        known: Sequence[Known],
        clock: Callable[[], float],
    ) -> None:
        self._name, self._arn, self._config, self._jobs = name, arn, config, jobs
        self._request_of, self._known, self._clock = request_of, known, clock
        self.trials: list[Trial] = []
        self.not_improving = 0
        self._running: dict[int, Trial] = {}
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._launching = threading.Lock()
        self._closed = False
        self._outcome: tuple[str, str] | None = None
        self._rule = MedianRule(minimize=config.minimize)
        self._best: float | None = None
        self._fruitless: list[str] = []  # the statuses of those without an objective

    def stop(self) -> None:
        """Stop the trials that run, and launch no other: when this returns, none will be launched."""
        self.close()
        self._events.put(lambda: self._finish("Stopped"))

    def close(self) -> None:
        """Launch no other trial."""
        with self._launching:
            self._closed = True

    def run(self) -> tuple[str, str]:
        """Run to the end; return the status of the tuning job, and why it failed if it did."""
        from deployments.local_aws.tuning_strategies import strategy_for  # noqa: PLC0415 - imports Optuna

        strategy = strategy_for(self._config)
        for hyperparameters, value in self._known:
            strategy.learn(hyperparameters, value)
        deadline = self._clock() + (self._config.most_seconds or float("inf"))
        try:
            while self._launch(strategy) or self._running:
                with contextlib.suppress(queue.Empty):
                    self._events.get(timeout=_LOOK_SECONDS)()
                if self._clock() >= deadline:
                    self._finish("Completed")
        except BaseException:
            self.close()
            self._stop_trials()
            raise
        status, reason = self._outcome or self._verdict()
        return self._verdict() if status == "Completed" else (status, reason)

    # --- launching ------------------------------------------------------------------------------------------------

    def _launch(self, strategy: "Strategy") -> bool:
        """Launch as many trials as there may be; return whether one was launched."""
        before = len(self.trials)
        while self._may_launch():
            suggestion = strategy.suggest()
            with self._launching:
                if suggestion is None or self._closed or not self._launch_one(strategy, suggestion):
                    break
        return len(self.trials) > before

    def _may_launch(self) -> bool:
        return (
            not self._closed
            and self._outcome is None
            and len(self._running) < self._config.most_parallel_trials
            and len(self.trials) < self._config.most_trials
        )

    def _launch_one(self, strategy: "Strategy", hyperparameters: Mapping[str, str]) -> bool:
        number = len(self.trials)
        trial = Trial(number, f"{self._name}-{number + 1:03}-{secrets.token_hex(4)}", hyperparameters)
        try:
            self._jobs.launch(
                self._request_of(trial.name, hyperparameters),
                tuning_job_arn=self._arn,
                on_metric=lambda metric, value: self._events.put(lambda: self._report(strategy, trial, metric, value)),
                on_end=lambda: self._events.put(lambda: self._end(strategy, trial)),
            )
        except AwsError as error:  # what was right when the tuning job was created may be so no more
            self._finish("Failed", str(error))
            return False
        self._running[number] = trial
        self.trials.append(trial)
        return True

    # --- what trials tell -----------------------------------------------------------------------------------------

    def _report(self, strategy: "Strategy", trial: Trial, metric: str, value: float) -> None:
        if metric != self._config.metric or trial.number not in self._running:
            return
        trial.reports.append(value)
        hopeless = self._config.early_stopping and self._rule.is_hopeless(trial.reports)
        if strategy.report(trial.number, value) or hopeless:
            self._stop_trial(trial)

    def _end(self, strategy: "Strategy", trial: Trial) -> None:
        del self._running[trial.number]
        description = self._jobs.describe({"TrainingJobName": trial.name})
        value, status = final_objective(description, self._config.metric), description["TrainingJobStatus"]
        strategy.close(trial.number, value)
        trial.judged = True
        if value is None:
            self._fruitless.append(status)
            if self._best is None and len(self._fruitless) >= _FRUITLESS_TRIALS:
                self._finish(*self._verdict())
            return
        if status == "Completed":
            self._rule.add_completed(trial.reports)
        self._judge(value)

    def _judge(self, value: float) -> None:
        """Complete the tuning job when the criteria of its request are met."""
        sign = 1.0 if self._config.minimize else -1.0
        best = self._best
        improved = best is None or sign * (best - value) >= _IMPROVEMENT * abs(best)
        self.not_improving = 0 if improved else self.not_improving + 1
        self._best = value if best is None else sign * min(sign * best, sign * value)
        is_reached = self._config.target is not None and sign * self._best <= sign * self._config.target
        most = self._config.not_improving
        if is_reached or (most is not None and self.not_improving >= most):
            self._finish("Completed")

    # --- ending ---------------------------------------------------------------------------------------------------

    def _finish(self, status: str, reason: str = "") -> None:
        """Bring the tuning job to its end; the first reason for it counts."""
        if self._outcome is None:
            self._outcome = (status, reason)
            self._stop_trials()

    def _verdict(self) -> tuple[str, str]:
        """Return how a tuning job has ended whose trials have all been judged."""
        if self._best is not None:
            return "Completed", ""
        if "Completed" in self._fruitless:
            return "Failed", (
                f"No objective metrics found after running {len(self.trials)} training jobs. Please ensure that the "
                "custom algorithm is emitting the objective metric as defined by the regular expression provided."
            )
        return "Failed", (
            f"No training job succeeded after {len(self.trials)} attempts. Please take a look at the training job "
            "failures to get more details."
        )

    def _stop_trials(self) -> None:
        for trial in list(self._running.values()):
            self._stop_trial(trial)

    def _stop_trial(self, trial: Trial) -> None:
        with contextlib.suppress(AwsError):  # it may just have ended
            self._jobs.stop_job({"TrainingJobName": trial.name})
