"""What scaling follows from a measurement and the expected traffic: arithmetic, and a sentence for each number."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.aws.errors import FlowsError
from tasks.aws.prices import hourly_usd, lambda_prices, prices_as_of
from tasks.contracts import FrontConfig, LoadLevel, Scaling, ScalingRecommendation, Traffic, Value
from tasks.markdown import machines

_HOURS_A_MONTH = 730
_SECONDS_A_MONTH = 3600 * _HOURS_A_MONTH
_MOST_INSTANCES = 100
# Twice the callers that get less than this more only wait for one another, and a few seconds measure no finer.
_LEAST_GROWTH_PERCENT = 10


class MeasuredEndpoint(Value):
    """What an endpoint held, all its instances together."""

    name: str
    instance_type: str
    instances: int
    levels: tuple[LoadLevel, ...]


class MeasuredFunction(Value):
    """How long answers take through the function in front, with as many callers as the endpoint held."""

    name: str
    memory_mb: int
    level: LoadLevel


def holds(level: LoadLevel, p99_ms: float) -> bool:
    """Tell whether everybody was answered, and 99 of 100 in time."""
    return not level.errors and level.requests_per_second > 0 and level.p99_ms <= p99_ms


def held_level(levels: Sequence[LoadLevel], p99_ms: float) -> LoadLevel:
    """Return the level with the most requests per second that held.

    Raises:
        FlowsError: Not even a single caller was answered as asked.
    """
    held = [level for level in levels if holds(level, p99_ms)]
    if not held:
        msg = (
            f"Not even a single caller is answered as asked: {_shortfall(levels[0])}, and p99_ms={p99_ms:g} is asked. "
            "Take a larger instance type or a smaller model, or ask for a longer p99"
        )
        raise FlowsError(msg)
    return max(held, key=lambda level: level.requests_per_second)


def why_no_further(levels: Sequence[LoadLevel], p99_ms: float) -> str:
    """Return why more callers than the last level's are not worth a try; nothing when they are."""
    last = levels[-1]
    if not holds(last, p99_ms):
        return f"With {_callers(last)} it does not hold: {_shortfall(last)}"
    if len(levels) == 1:
        return ""
    growth = 100 * (last.requests_per_second / levels[-2].requests_per_second - 1)
    if growth >= _LEAST_GROWTH_PERCENT:
        return ""
    return (
        f"With {_callers(last)} it answers {last.requests_per_second:.1f} requests per second, {growth:+.0f} % against "
        f"{levels[-2].callers}: more callers would only wait for one another"
    )


def recommend(
    endpoint: MeasuredEndpoint, traffic: Traffic, region: str, function: MeasuredFunction | None = None
) -> ScalingRecommendation:
    """Derive scaling, concurrency and cost; without a measured function, answers take what they take at the endpoint.

    Raises:
        FlowsError: The endpoint does not hold what is asked, or the traffic takes more instances than there may be.
    """
    derived = _Derivation(endpoint, traffic, region, function)
    return ScalingRecommendation(
        endpoint=endpoint.name,
        instance_type=endpoint.instance_type,
        levels=endpoint.levels,
        held_requests_per_second=derived.held,
        scaling=derived.scaling,
        reserved_concurrency=derived.reserved,
        provisioned_concurrency=derived.provisioned,
        monthly_usd=derived.ordinary.usd,
        most_monthly_usd=derived.busiest.usd,
        reasoning=derived.reasoning(),
    )


@dataclass(frozen=True)
class _Month:
    """What a month costs; None where a price is unknown."""

    instances_usd: float | None
    function_usd: float | None

    @property
    def usd(self) -> float | None:
        if self.instances_usd is None or self.function_usd is None:
            return None
        return self.instances_usd + self.function_usd


@dataclass(frozen=True)
class _Derivation:
    """Each number of a recommendation, and its sentence."""

    endpoint: MeasuredEndpoint
    traffic: Traffic
    region: str
    function: MeasuredFunction | None

    @property
    def level(self) -> LoadLevel:
        return held_level(self.endpoint.levels, self.traffic.p99_ms)

    @property
    def held(self) -> float:
        return self.level.requests_per_second / self.endpoint.instances

    @property
    def aimed(self) -> float:
        """Requests per second and instance that scaling aims at."""
        return self.held * self.traffic.safety_factor

    @property
    def scaling(self) -> Scaling:
        """The target by https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-scaling-loadtest.html, and limits."""
        return Scaling(
            target=max(round(60 * self.aimed, 1), 0.1),
            min_instances=self._instances(self.traffic.requests_per_second),
            max_instances=self._instances(self.traffic.peak_requests_per_second),
        )

    @property
    def timed(self) -> LoadLevel:
        """Where it was measured how long an answer takes."""
        return self.function.level if self.function else self.level

    @property
    def memory_mb(self) -> int:
        return self.function.memory_mb if self.function else FrontConfig().memory_mb

    @property
    def reserved(self) -> int:
        return _at_once(self.traffic.peak_requests_per_second, self.timed.p99_ms)

    @property
    def provisioned(self) -> int:
        # Lambda keeps no more warm than is reserved. A mean above the p99 would ask for it: few, but endless answers.
        return min(_at_once(self.traffic.requests_per_second, self.timed.mean_ms), self.reserved)

    @property
    def ordinary(self) -> _Month:
        return self._month(self.scaling.min_instances, self.traffic.requests_per_second)

    @property
    def busiest(self) -> _Month:
        return self._month(self.scaling.max_instances, self.traffic.peak_requests_per_second)

    def reasoning(self) -> tuple[str, ...]:
        traffic, scaling, timed, where = self.traffic, self.scaling, self.timed, self._where()
        further = why_no_further(self.endpoint.levels, traffic.p99_ms)
        ordinary = f"{traffic.requests_per_second:g} requests per second on an ordinary day"
        busiest = f"{traffic.peak_requests_per_second:g} requests per second at the busiest"
        each = f"{self.held:.1f} requests per second x a safety factor of {traffic.safety_factor:g}"
        return (
            self._what_held(),
            further or f"More than {_callers(self.endpoint.levels[-1])} were not tried: it may hold more",
            f"Target {scaling.target:g} invocations per instance and minute: {each} x 60 s",
            f"{_count(scaling.min_instances, 'instance')} at least: {ordinary} / {self.aimed:.1f} an instance",
            f"{_count(scaling.max_instances, 'instance')} at most: {busiest} / {self.aimed:.1f} an instance",
            f"Reserved concurrency {self.reserved}: {busiest} x {timed.p99_ms / 1000:.3f} s, the p99 {where}",
            f"Provisioned concurrency {self.provisioned}: {ordinary} x {timed.mean_ms / 1000:.3f} s, the mean {where}",
            self._what_it_costs("of ordinary days", self.ordinary, scaling.min_instances),
            self._what_it_costs("that is always the busiest", self.busiest, scaling.max_instances),
        )

    def _instances(self, requests_per_second: float) -> int:
        count = _up(requests_per_second / self.aimed)
        if count > _MOST_INSTANCES:
            msg = (
                f"{requests_per_second:g} requests per second take {count} instances of {self.endpoint.instance_type}, "
                f"{self.aimed:.1f} each, and {_MOST_INSTANCES} is the most: take a larger instance type"
            )
            raise FlowsError(msg)
        return count

    def _month(self, instances: int, requests_per_second: float) -> _Month:
        hourly = hourly_usd("hosting", self.endpoint.instance_type, self.region, instances)
        return _Month(
            instances_usd=None if hourly is None else hourly * _HOURS_A_MONTH,
            function_usd=self._function_usd(requests_per_second),
        )

    def _function_usd(self, requests_per_second: float) -> float | None:
        """Return what a month of the function costs: its requests, what is kept warm, and its seconds, warm or not.

        https://aws.amazon.com/lambda/pricing/
        """
        prices = lambda_prices(self.region)
        if prices is None:
            return None
        answering = requests_per_second * self.timed.mean_ms / 1000
        warm = min(answering, self.provisioned)
        gb_second_usd = (
            prices.warm_gb_second * self.provisioned
            + prices.answering_warm_gb_second * warm
            + prices.gb_second * (answering - warm)
        )
        return _SECONDS_A_MONTH * (prices.request * requests_per_second + self.memory_mb / 1024 * gb_second_usd)

    def _what_held(self) -> str:
        each = "" if self.endpoint.instances == 1 else f", {self.held:.1f} each"
        return (
            f"{machines(self.endpoint.instance_type, self.endpoint.instances)} held "
            f"{self.level.requests_per_second:.1f} requests per second{each}, with {_callers(self.level)}: 99 of 100 "
            f"answers took {self.level.p99_ms:.0f} ms or less, and {self.traffic.p99_ms:g} ms are asked"
        )

    def _where(self) -> str:
        if self.function:
            return f"through the function {self.function.name}"
        return "at the endpoint (--front NAME measures it through the function)"

    def _what_it_costs(self, when: str, month: _Month, instances: int) -> str:
        return (
            f"A month {when}: {_usd(month.usd)} ({machines(self.endpoint.instance_type, instances)} "
            f"{_usd(month.instances_usd)}, a function of {self.memory_mb} MB {_usd(month.function_usd)}), "
            f"{_HOURS_A_MONTH} hours at list prices in {self.region} as of {prices_as_of(self.region) or 'unknown'}"
        )


def _at_once(requests_per_second: float, answer_ms: float) -> int:
    """Return how many answers are on their way at any moment, by Little's law, rounded up.

    https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html#calculating-concurrency
    """
    return _up(requests_per_second * answer_ms / 1000)


def _up(number: float) -> int:
    # Rounded first: 0.1 x 3 / 0.3 is 1, and not a hair more, which would be 2.
    return max(math.ceil(round(number, 6)), 1)


def _shortfall(level: LoadLevel) -> str:
    if level.errors:
        return f"{level.errors} of {_count(level.requests, 'request')} failed"
    if not level.requests_per_second:
        return f"no answer in the time that was measured, but after {level.p99_ms:.0f} ms"
    return f"99 of 100 answers took {level.p99_ms:.0f} ms or less"


def _callers(level: LoadLevel) -> str:
    return _count(level.callers, "caller")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _usd(amount: float | None) -> str:
    return "unknown" if amount is None else f"${amount:,.2f}"
