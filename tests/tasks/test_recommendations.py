"""What follows from a measurement is arithmetic: every figure here is worked out by hand."""

from typing import Any

import pytest

from tasks.aws.errors import FlowsError
from tasks.contracts import LoadLevel, Traffic
from tasks.recommendations import MeasuredEndpoint, MeasuredFunction, held_level, recommend, why_no_further

TRAFFIC = Traffic(requests_per_second=5, peak_requests_per_second=40, p99_ms=500)


def level(callers: int, requests_per_second: float, p99_ms: float, mean_ms: float = 50, errors: int = 0) -> LoadLevel:
    return LoadLevel(
        callers=callers,
        requests=100,
        errors=errors,
        requests_per_second=requests_per_second,
        mean_ms=mean_ms,
        p50_ms=mean_ms,
        p99_ms=p99_ms,
    )


# It saturates at 20 requests per second, and is too slow with 16 callers.
LEVELS = (level(1, 10, 100), level(2, 19, 110), level(4, 20, 250, mean_ms=200), level(16, 20.5, 900))


def endpoint(**fields: Any) -> MeasuredEndpoint:
    usual = {"name": "flows-endpoint-a", "instance_type": "ml.m5.large", "instances": 1, "levels": LEVELS}
    return MeasuredEndpoint.model_validate(usual | fields)


def test_what_is_held_is_the_most_requests_per_second_at_the_asked_p99_without_an_error() -> None:
    assert held_level(LEVELS, 500).callers == 4
    assert held_level(LEVELS, 240).callers == 2
    assert held_level((*LEVELS, level(32, 90, 100, errors=1)), 1000).callers == 16


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (level(1, 10, 100), r"99 of 100 answers took 100 ms or less, and p99_ms=50 is asked. Take a larger"),
        (level(1, 10, 40, errors=3), r"3 of 100 requests failed"),
        (level(1, 0, 40), r"no answer in the time that was measured, but after 40 ms"),
    ],
)
def test_an_endpoint_that_does_not_hold_one_caller_is_refused_with_what_was_measured(
    first: LoadLevel, words: str
) -> None:
    with pytest.raises(FlowsError, match=words):
        held_level([first], 50)


def test_more_callers_are_tried_until_they_only_wait() -> None:
    assert why_no_further(LEVELS[:1], 500) == ""
    assert why_no_further(LEVELS[:2], 500) == ""
    assert "+5 % against 2" in why_no_further(LEVELS[:3], 500)
    assert "99 of 100 answers took 110 ms or less" in why_no_further(LEVELS[:2], 105)
    assert "1 of 100 requests failed" in why_no_further([level(1, 10, 1, errors=1)], 500)


def test_target_and_limits_follow_from_what_one_instance_holds() -> None:
    """20 requests per second held, half of it aimed at: 10 a second, 600 a minute."""
    recommendation = recommend(endpoint(), TRAFFIC, "us-east-1")
    assert recommendation.held_requests_per_second == 20
    assert recommendation.scaling.target == 600
    assert (recommendation.scaling.min_instances, recommendation.scaling.max_instances) == (1, 4)


def test_instances_share_what_was_measured() -> None:
    """10 requests per second each, 5 aimed at: one for 5, eight for 40."""
    recommendation = recommend(endpoint(instances=2), TRAFFIC, "us-east-1")
    assert (recommendation.held_requests_per_second, recommendation.scaling.target) == (10, 300)
    assert (recommendation.scaling.min_instances, recommendation.scaling.max_instances) == (1, 8)
    assert recommendation.reasoning[0].startswith("2 × ml.m5.large held 20.0 requests per second, 10.0 each")


def test_a_request_more_is_an_instance_more_and_a_rounding_error_none() -> None:
    traffic = TRAFFIC.model_copy(update={"requests_per_second": 10.1})
    assert recommend(endpoint(), traffic, "us-east-1").scaling.min_instances == 2
    third = endpoint(levels=(level(1, 0.1 * 3, 100),))
    traffic = Traffic(requests_per_second=0.1, peak_requests_per_second=0.9, safety_factor=1)
    assert recommend(third, traffic, "us-east-1").scaling.max_instances == 3


def test_concurrency_is_requests_per_second_times_seconds() -> None:
    """At the peak 40 x 0.25 s, on ordinary days 5 x 0.2 s."""
    recommendation = recommend(endpoint(), TRAFFIC, "us-east-1")
    assert (recommendation.reserved_concurrency, recommendation.provisioned_concurrency) == (10, 1)
    assert any("the p99 at the endpoint" in sentence for sentence in recommendation.reasoning)


def test_concurrency_is_that_of_the_function_where_it_was_measured() -> None:
    """At the peak 40 x 0.41 s, on ordinary days 5 x 0.3 s."""
    function = MeasuredFunction(name="flows-front", memory_mb=1024, level=level(4, 15, 410, mean_ms=300))
    recommendation = recommend(endpoint(), TRAFFIC, "us-east-1", function)
    assert (recommendation.reserved_concurrency, recommendation.provisioned_concurrency) == (17, 2)
    assert any("the mean through the function flows-front" in sentence for sentence in recommendation.reasoning)


def test_no_more_is_kept_warm_than_is_reserved() -> None:
    """Lambda refuses it; a mean above the p99 would ask for it."""
    odd = endpoint(levels=(level(1, 20, 100, mean_ms=900),))
    recommendation = recommend(odd, TRAFFIC, "us-east-1")
    assert (recommendation.reserved_concurrency, recommendation.provisioned_concurrency) == (4, 4)


def test_a_month_costs_its_instances_and_the_function() -> None:
    """730 hours at $0.115; 5 requests per second of 0.2 s in half a GB, all of them in what is kept warm."""
    recommendation = recommend(endpoint(), TRAFFIC, "us-east-1")
    requests = 5 * 2_628_000 * 0.2 / 1e6
    gb_seconds = 2_628_000 * 0.5 * (1 * 4.1667e-6 + 1 * 9.7222e-6)
    assert recommendation.monthly_usd == pytest.approx(83.95 + requests + gb_seconds)
    assert (
        "A month of ordinary days: $104.83 (ml.m5.large $83.95, a function of 512 MB $20.88)"
        in (recommendation.reasoning[-2])
    )


def test_at_the_peak_what_is_not_kept_warm_costs_its_seconds_alone() -> None:
    """Four instances; of 40 x 0.2 = 8 answers at any moment one is in what is kept warm."""
    recommendation = recommend(endpoint(), TRAFFIC, "us-east-1")
    requests = 40 * 2_628_000 * 0.2 / 1e6
    gb_seconds = 2_628_000 * 0.5 * (1 * 4.1667e-6 + 1 * 9.7222e-6 + 7 * 1.66667e-5)
    assert recommendation.most_monthly_usd == pytest.approx(4 * 83.95 + requests + gb_seconds)


def test_a_cost_without_a_known_price_is_unknown() -> None:
    recommendation = recommend(endpoint(instance_type="ml.m7i.large"), TRAFFIC, "us-east-1")
    assert (recommendation.monthly_usd, recommendation.most_monthly_usd) == (None, None)
    assert "unknown (ml.m7i.large unknown, a function of 512 MB $20.88)" in recommendation.reasoning[-2]
    assert recommend(endpoint(), TRAFFIC, "mars-north-1").monthly_usd is None


def test_more_traffic_than_instances_may_carry_is_refused() -> None:
    traffic = Traffic(requests_per_second=5, peak_requests_per_second=1001)
    with pytest.raises(FlowsError, match=r"1001 requests per second take 101 instances of ml\.m5\.large, 10\.\d each"):
        recommend(endpoint(levels=LEVELS[:3]), traffic, "us-east-1")


def test_every_number_has_its_sentence() -> None:
    held, further, *derived, ordinary, busiest = recommend(endpoint(levels=LEVELS[:2]), TRAFFIC, "us-east-1").reasoning
    assert held.endswith("with 2 callers: 99 of 100 answers took 110 ms or less, and 500 ms are asked")
    assert further == "More than 2 callers were not tried: it may hold more"
    where = "at the endpoint (--front NAME measures it through the function)"
    assert derived == [
        "Target 570 invocations per instance and minute: 19.0 requests per second x a safety factor of 0.5 x 60 s",
        "1 instance at least: 5 requests per second on an ordinary day / 9.5 an instance",
        "5 instances at most: 40 requests per second at the busiest / 9.5 an instance",
        f"Reserved concurrency 5: 40 requests per second at the busiest x 0.110 s, the p99 {where}",
        f"Provisioned concurrency 1: 5 requests per second on an ordinary day x 0.050 s, the mean {where}",
    ]
    assert ordinary.startswith("A month of ordinary days: $")
    assert busiest.startswith("A month that is always the busiest: $")
