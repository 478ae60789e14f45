"""A budget in dollars is kept whatever happens: by asking for no more trials than it pays for."""

import pytest

from tasks.aws.errors import RequestRefusedError
from tasks.contracts import Compute, TuningConfig
from tasks.costs import within_budget

HOUR = Compute(instance_type="ml.m5.xlarge", max_runtime_seconds=3600)  # $0.23


def test_a_budget_limits_the_trials() -> None:
    assert within_budget(TuningConfig(max_usd=1.0), HOUR, "us-east-1").trials == 4
    assert within_budget(TuningConfig(max_usd=1.0, trials=3), HOUR, "us-east-1").trials == 3
    assert within_budget(TuningConfig(), HOUR, "mars-north-1").trials == 8


def test_a_budget_that_pays_for_no_trial_is_refused() -> None:
    with pytest.raises(RequestRefusedError, match=r"max_usd=\$0\.10 does not pay for one trial"):
        within_budget(TuningConfig(max_usd=0.1), HOUR, "us-east-1")


def test_a_budget_without_a_known_price_is_refused() -> None:
    with pytest.raises(RequestRefusedError, match="no known price in mars-north-1"):
        within_budget(TuningConfig(max_usd=1.0), HOUR, "mars-north-1")
