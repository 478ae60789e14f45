"""A run's budget holds whatever happens: no step is begun that might not be paid for."""

import pytest

from tasks import budgets
from tasks.aws.errors import RequestRefusedError
from tasks.budgets import Budget
from tasks.contracts import Compute, CostLine, Ec2Compute
from tasks.costs import trainings_at_most


def line(usd: float | None) -> CostLine:
    return CostLine(step="training", machines="one", billable_seconds=60, at_most_usd=None, billed_usd=usd)


def test_a_step_that_may_cost_more_than_is_left_is_refused() -> None:
    budget = Budget(3.0)
    budget.check("tuning", 3.0)
    budget.spend([line(1.0)])
    budget.check("trainings", 2.0)
    with pytest.raises(RequestRefusedError, match=r"may cost up to \$2\.01, and \$2\.00 are left of the budget of \$3"):
        budget.check("trainings", 2.01)


def test_what_costs_nobody_knows_what_cannot_be_kept_to() -> None:
    with pytest.raises(RequestRefusedError, match="what the tuning costs is not known"):
        Budget(1.0).check("tuning", None)


def test_without_a_budget_everything_may_be_begun() -> None:
    budget = Budget(None)
    budget.check("tuning", 1e6)
    budget.check("trainings", None)


def test_that_it_is_nearly_spent_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    monkeypatch.setattr(budgets, "tell_budget_near", lambda usd, _lines: told.append(usd))
    budget = Budget(10.0)
    budget.spend([line(7.9), line(None)])
    assert told == []
    budget.spend([line(0.1)])
    budget.spend([line(0.1)])
    assert told == [10.0]


def test_the_trainings_count_as_their_longest_on_all_their_instances() -> None:
    hour = Compute(instance_type="ml.m5.xlarge", max_runtime_seconds=3600)
    one = trainings_at_most((hour,), Ec2Compute(instance_type="m5.xlarge"), "us-east-1")
    four = trainings_at_most((hour.model_copy(update={"instance_count": 4}),), Ec2Compute(), "us-east-1")
    assert one is not None
    assert four is not None
    assert four - one == pytest.approx(3 * 0.23)
    assert trainings_at_most((hour,), Ec2Compute(), "mars-north-1") is None
