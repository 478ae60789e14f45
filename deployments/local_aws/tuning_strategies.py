"""How a tuning job chooses what to try next. Optuna takes time to import: this module is imported when a job begins.

https://docs.aws.amazon.com/sagemaker/latest/dg/automatic-model-tuning-how-it-works.html
"""

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial, TrialState

from deployments.local_aws.tuning_ranges import Choice, Range, combinations
from deployments.local_aws.tuning_requests import TuningConfig

# The Gaussian process is told little by one or two trials, and budgets are small: measured, three is where it begins
# to win over random search within eight trials. Optuna's own ten would leave most jobs at random.
_RANDOM_TRIALS_FIRST = 3
_REDUCTION_FACTOR = 3  # of Hyperband: a third of the trials goes on at each rung

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Strategy(Protocol):
    """Suggests hyperparameters, one trial after the other, and is told what became of each by its number."""

    def suggest(self) -> dict[str, str] | None:
        """Return the hyperparameters of the next trial as strings; None when all have been tried."""
        ...

    def report(self, number: int, value: float) -> bool:
        """Take an objective value of a running trial; return whether to stop the trial."""
        ...

    def close(self, number: int, value: float | None) -> None:
        """Take the final objective value of a trial; None when it has none."""
        ...

    def learn(self, hyperparameters: Mapping[str, str], value: float) -> None:
        """Take a trial of another tuning job as if it were one of these."""
        ...


def strategy_for(config: TuningConfig) -> Strategy:
    """Return the strategy that a request asks for."""
    return Grid(config.ranges) if config.strategy == "Grid" else Study(config)


class Grid:
    """Every combination of the choices, once."""

    def __init__(self, ranges: Sequence[Range]) -> None:
        self._names = [one.name for one in ranges]
        values = [one.values for one in ranges if isinstance(one, Choice)]
        self._combinations: Iterator[tuple[str, ...]] = itertools.product(*values)

    def suggest(self) -> dict[str, str] | None:
        """Return the next combination."""
        values = next(self._combinations, None)
        return None if values is None else dict(zip(self._names, values, strict=True))

    def report(self, number: int, value: float) -> bool:  # noqa: ARG002 - a grid is told and does not listen
        """Stop no trial."""
        return False

    def close(self, number: int, value: float | None) -> None:
        """Learn nothing: what comes next is fixed."""

    def learn(self, hyperparameters: Mapping[str, str], value: float) -> None:
        """Learn nothing: what comes next is fixed."""


class Study:
    """An Optuna study: a Gaussian process for Bayesian, random numbers for Random, TPE with rungs for Hyperband."""

    def __init__(self, config: TuningConfig) -> None:
        self._ranges, self._is_hyperband = config.ranges, config.strategy == "Hyperband"
        self._max_resource = config.max_resource
        self._distributions = {one.name: _distribution(one) for one in config.ranges}
        self._study = optuna.create_study(
            study_name="tuning",  # the name decides brackets: with a fixed one, the seed alone decides
            direction="minimize" if config.minimize else "maximize",
            sampler=_sampler(config.strategy, config.seed),
            pruner=_pruner(config),
        )
        self._trials: list[Trial] = []
        self._steps: dict[int, int] = {}
        self._stopped: set[int] = set()
        self._tried: set[tuple[str, ...]] = set()
        self._random = random.Random(config.seed)  # noqa: S311 - a search is no secret
        self._most = combinations(config.ranges)

    def suggest(self) -> dict[str, str] | None:
        """Return what promises most and was not tried."""
        if len(self._tried) >= self._most:
            return None
        trial = self._study.ask(self._distributions)
        texts = self._texts(trial)
        while tuple(texts.values()) in self._tried:  # a second time, it would tell nothing new
            self._study.tell(trial, state=TrialState.FAIL)
            self._study.enqueue_trial({name: self._draw(one) for name, one in self._distributions.items()})
            trial = self._study.ask(self._distributions)
            texts = self._texts(trial)
        self._tried.add(tuple(texts.values()))
        self._trials.append(trial)
        return texts

    def report(self, number: int, value: float) -> bool:
        """Stop a trial that is not worth another rung, and one that goes on beyond MaxResource."""
        if not self._is_hyperband or not math.isfinite(value):
            return False
        step = self._steps[number] = self._steps.get(number, 0) + 1
        self._trials[number].report(value, step)
        # The trial that reports its last resource is about to end by itself, with its model.
        is_over = step > self._max_resource or (step < self._max_resource and self._trials[number].should_prune())
        if is_over:
            self._stopped.add(number)
        return is_over

    def close(self, number: int, value: float | None) -> None:
        """Learn from a trial; one that was stopped early counts with what it had reached.

        Left out of the Gaussian process, what is stopped early would be suggested again and again.
        """
        if value is None:
            self._study.tell(self._trials[number], state=TrialState.FAIL)
        elif number in self._stopped:
            self._study.tell(self._trials[number], state=TrialState.PRUNED)
        else:
            self._study.tell(self._trials[number], value)

    def learn(self, hyperparameters: Mapping[str, str], value: float) -> None:
        """Learn from another job's trial, if it lies in these ranges."""
        values = {one.name: _internal(one, hyperparameters.get(one.name)) for one in self._ranges}
        if None in values.values():
            return
        told = optuna.trial.create_trial(params=values, distributions=self._distributions, value=value)
        self._study.add_trial(told)

    def _texts(self, trial: Trial) -> dict[str, str]:
        return {one.name: _external(one, trial.params[one.name]) for one in self._ranges}

    def _draw(self, distribution: BaseDistribution) -> object:
        if isinstance(distribution, CategoricalDistribution):
            return self._random.choice(distribution.choices)
        if isinstance(distribution, IntDistribution):
            return self._random.randint(distribution.low, distribution.high)
        if isinstance(distribution, FloatDistribution):
            return self._random.uniform(distribution.low, distribution.high)
        msg = f"no such range: {distribution}"
        raise TypeError(msg)


def _sampler(strategy: str, seed: int | None) -> optuna.samplers.BaseSampler:
    if strategy == "Random":
        return optuna.samplers.RandomSampler(seed=seed)
    if strategy == "Hyperband":
        return optuna.samplers.TPESampler(seed=seed)
    return optuna.samplers.GPSampler(seed=seed, n_startup_trials=_RANDOM_TRIALS_FIRST)


def _pruner(config: TuningConfig) -> optuna.pruners.BasePruner:
    if config.strategy != "Hyperband":
        return optuna.pruners.NopPruner()
    return optuna.pruners.HyperbandPruner(
        min_resource=config.min_resource, max_resource=config.max_resource, reduction_factor=_REDUCTION_FACTOR
    )


def _distribution(one: Range) -> BaseDistribution:
    if isinstance(one, Choice):
        return CategoricalDistribution(one.values)
    if one.is_integer:
        return IntDistribution(int(one.low), int(one.high), log=one.scale == "Logarithmic")
    if one.scale == "ReverseLogarithmic":  # what is near 1 is spread as what is near 0 is by a logarithm
        return FloatDistribution(1 - one.high, 1 - one.low, log=True)
    return FloatDistribution(one.low, one.high, log=one.scale == "Logarithmic")


def _external(one: Range, value: float | str) -> str:
    """Return a value of the study as a job gets it."""
    if isinstance(one, Choice):
        return one.text(str(value))
    number = float(value)
    return one.text(1 - number if one.scale == "ReverseLogarithmic" else number)


def _internal(one: Range, text: str | None) -> float | str | None:
    """Return what a job was given as a value of the study; None when it has no place in its range."""
    value = None if text is None else one.value(text)
    if value is None or isinstance(one, Choice) or one.scale != "ReverseLogarithmic":
        return value
    return min(max(1 - float(value), 1 - one.high), 1 - one.low)
