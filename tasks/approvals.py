"""Whether a model may go into service: by thresholds, or by a person who is asked in the Prefect UI."""

from prefect.client.orchestration import get_client
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.runtime import flow_run
from prefect.states import Running
from pydantic import Field

from tasks.aws.prices import hourly_usd
from tasks.cancellation import end_if_cancelled
from tasks.contracts import Approval, EndpointCompute, Gate, TrainedModel
from tasks.events import tell_refused
from tasks.markdown import usd
from tasks.runs import run_logger

_POLL_SECONDS = 2


class Decision(RunInput):
    """What a person is asked for; a form in the UI."""

    approve: bool = Field(default=False, title="Put the model into service")
    note: str = Field(default="", title="Note", description="Kept with the run, and shown in its report")


def await_approval(gate: Gate, model: TrainedModel, compute: EndpointCompute, region: str) -> Approval:
    """Decide whether a model may go into service; where the gate says so, the run pauses until a person has.

    For flows, not for tasks: what pauses is the flow run.

    Raises:
        RunCancelledError: Somebody has cancelled the run while it was paused.
    """
    missed = shortcomings(gate, model, compute, region)
    approval = Approval(granted=not missed, decided_by="thresholds", missed=missed)
    if missed and gate.when_missed == "ask":
        approval = _asked(gate, model, missed)
    tell_refused(approval, model)
    return approval


def shortcomings(gate: Gate, model: TrainedModel, compute: EndpointCompute, region: str) -> tuple[str, ...]:
    """Return what a model misses of what a gate asks, one sentence each."""
    missed, accuracy = [], model.report.test.accuracy
    if accuracy < gate.least_accuracy:
        missed.append(f"{accuracy:.2%} of the test pictures are right, at least {gate.least_accuracy:.2%} are asked")
    hourly = hourly_usd("hosting", compute.instance_type, region, compute.instance_count)
    # What is serverless bills by what is asked of it: an hour has no price.
    if gate.most_hourly_usd is None or compute.serverless:
        return tuple(missed)
    if hourly is None or hourly > gate.most_hourly_usd:
        missed.append(f"{compute.machines} cost {usd(hourly)} an hour, at most {usd(gate.most_hourly_usd)} is asked")
    return tuple(missed)


def _asked(gate: Gate, model: TrainedModel, missed: tuple[str, ...]) -> Approval:
    reasons = "\n".join(f"- {reason}" for reason in missed)
    question = f"{model.job.name} is trained, and goes into service only if you say so:\n\n{reasons}"
    run_logger().warning("Resume the run in the Prefect UI to decide about %s: %s", model.job.name, "; ".join(missed))
    try:
        decision = pause_flow_run(
            wait_for_input=Decision.with_initial_data(description=question),
            timeout=gate.answer_within_seconds,
            poll_interval=_POLL_SECONDS,
            key=f"approval-{flow_run.run_count}",  # a run that is retried asks anew
        )
    except FlowPauseTimeout:
        _go_on()
        return Approval(granted=False, decided_by="nobody in time", missed=missed)
    return Approval(granted=decision.approve, decided_by="a person", missed=missed, note=decision.note)


def _go_on() -> None:
    """Let a run whose pause is over run again: it still has things to show, which a run that is paused may not.

    Prefect's own rules would fail it.
    """
    end_if_cancelled()
    with get_client(sync_client=True) as api:
        api.set_flow_run_state(flow_run.id, Running(), force=True)
