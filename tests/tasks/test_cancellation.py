"""What a cancelled run leaves to be ended, and what stays."""

from importlib import import_module
from pathlib import Path

import pytest

from tasks.cancellation import is_left_by, stop_what_it_started
from tasks.contracts import Billing, BillingKind

FAMILY, OVER = ("run", "part"), ("dead",)


def left(kind: BillingKind, *runs: str, name: str = "flows-endpoint-0123456789ab", keep: bool = False) -> bool:
    billing = Billing(kind=kind, name=name, flow_run_ids=runs, expires_at=None, hourly_usd=1.0)
    return is_left_by(billing, FAMILY, OVER, keep=keep)


@pytest.mark.parametrize("kind", ["training job", "tuning job", "instance", "endpoint"])
def test_what_only_the_run_and_its_parts_want_is_ended(kind: BillingKind) -> None:
    assert left(kind, "run")
    assert left(kind, "part")
    assert left(kind, "dead", "part")  # adopted from a run that is over


@pytest.mark.parametrize("kind", ["training job", "tuning job", "instance", "endpoint"])
def test_what_another_run_may_want_stays(kind: BillingKind) -> None:
    assert not left(kind, "run", "another")  # which has adopted it
    assert not left(kind, "another", "part")  # from which the part has adopted it
    assert not left(kind, "another")
    assert not left(kind)


def test_an_endpoint_of_a_lasting_name_stays() -> None:
    assert not left("endpoint", "run", name="flows-live")
    assert left("endpoint", "run", name="flows-endpoint-0123456789ab-2")


def test_who_wanted_to_keep_endpoints_keeps_them_and_nothing_else() -> None:
    assert not left("endpoint", "run", keep=True)
    assert left("training job", "run", keep=True)


@pytest.mark.parametrize("kind", ["provisioned concurrency", "scalable target"])
def test_what_belongs_to_what_serves_stays_with_it(kind: BillingKind) -> None:
    assert not left(kind, "run")


NO_FLOWS = {"__init__", "command_line", "steps"}
FLOWS = sorted({path.stem for path in (Path(__file__).parents[2] / "flows").glob("*.py")} - NO_FLOWS)


@pytest.mark.parametrize("name", FLOWS)
def test_every_flow_has_its_hook(name: str) -> None:
    """Nobody but the hook is left when the run's process had to be killed."""
    assert getattr(import_module(f"flows.{name}"), name).on_cancellation_hooks == [stop_what_it_started]
