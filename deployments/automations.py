"""What the Prefect server does by itself for this project's flows.

python -m deployments.automations     put all of them on the server (PREFECT_API_URL), or bring those there up to date

The file is the truth: what was changed in the UI is set back. `make deploy` runs this, too.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from prefect.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, RunDeployment
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from deployments.catalogue import load_deployments
from deployments.serve import trouble_with
from tasks.aws.errors import FlowsError
from tasks.aws.identity import PROJECT
from tasks.events import DATASET_UPLOADED, ENDPOINT_DRIFTED, RUN_LABEL

_HEARTBEAT = "prefect.flow-run.heartbeat"
# Whatever a run's heart may rightly stop beating after; an event is named by its state's name, not by its type.
_ENDS = ("Completed", "Failed", "TimedOut", "Crashed", "Cancelled", "Suspended", "AwaitingRetry")
# Three of PREFECT_FLOWS_HEARTBEAT_FREQUENCY's default, so that a slow network is no death.
_SILENCE = timedelta(minutes=9)


def crash_lost_runs(silence: timedelta = _SILENCE) -> Automation:
    """Mark a flow run Crashed when its heart has stopped beating: after kill -9, or with its machine.

    What it has left at AWS is for reap_orphans, which ends what is waited for only by runs that are over.
    https://docs.prefect.io/v3/advanced/detect-zombie-flows

    Args:
        silence: Between two beats; more than PREFECT_FLOWS_HEARTBEAT_FREQUENCY of whoever runs the flows.
    """
    trigger = EventTrigger(
        posture=Posture.Proactive,
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=_of_our_flows(),
        for_each={"prefect.resource.id"},
        after={_HEARTBEAT},
        expect={_HEARTBEAT, *(f"prefect.flow-run.{end}" for end in _ENDS)},
        threshold=1,
        within=silence,
    )
    message = f"No sign of life for {silence}: its process, or its machine, is gone"
    return Automation(
        name="sagemaker-flows: crash lost runs",
        description="A run whose heartbeats have stopped reads Crashed; reap_orphans then ends what it had started.",
        trigger=trigger,
        actions=[ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=message)],
    )


def operationalize_new_datasets() -> Automation:
    """Take each new version of a dataset on the whole journey, unless it was uploaded by a run that does so itself.

    An example, and off, since it costs: say `enabled=True`, and put it on the server again.
    """
    # The event carries how the dataset was asked for; as JSON, or its numbers would arrive as text.
    asked = {"__prefect_kind": "jinja", "template": "{{ event.payload.dataset | tojson }}"}
    return Automation(
        name="sagemaker-flows: operationalize new datasets",
        description="A new version of a dataset starts operationalize with it.",
        enabled=False,
        trigger=_on(DATASET_UPLOADED, {RUN_LABEL: "alone"}),
        actions=[_run_operationalize(dataset={"__prefect_kind": "json", "value": asked})],
    )


def train_again_on_drift() -> Automation:
    """Train, and deploy, anew when an endpoint is found worse or slower than it was; once a day at most.

    An example, and off, since it costs. What it trains with is what the deployment's own parameters say: the picture
    folder that has grown since, for one.
    """
    return Automation(
        name="sagemaker-flows: train again on drift",
        description="An endpoint that has drifted starts operationalize, which trains anew and goes live.",
        enabled=False,
        trigger=_on(ENDPOINT_DRIFTED, {}, timedelta(days=1)),
        actions=[_run_operationalize(fresh=True, live=True, keep_endpoints=True)],
    )


# Functions, and not what they return: some have to look at the server first.
AUTOMATIONS: tuple[Callable[[], Automation], ...] = (
    crash_lost_runs,
    operationalize_new_datasets,
    train_again_on_drift,
)


def apply(automations: Iterable[Automation] | None = None) -> tuple[str, ...]:
    """Put automations on the server, or bring those of the same name up to date; return their names. Safe to repeat."""
    wanted = [make() for make in AUTOMATIONS] if automations is None else list(automations)
    with get_client(sync_client=True) as api:
        for automation in wanted:
            content = AutomationCore(**automation.model_dump(exclude={"id", "owner_resource"}))
            there = api.read_automations_by_name(automation.name)
            if there:
                api.update_automation(there[0].id, content)
            else:
                api.create_automation(content)
    return tuple(automation.name for automation in wanted)


def _on(event: str, labels: dict[str, str], within: timedelta = timedelta()) -> EventTrigger:
    """Return what reacts to an event of ours, at once; with a period, no second time before it is over."""
    match = ResourceSpecification({"prefect.resource.id": f"{PROJECT}.*"} | labels)
    return EventTrigger(posture=Posture.Reactive, match=match, expect={event}, threshold=1, within=within)


def _run_operationalize(**parameters: Any) -> RunDeployment:
    with get_client(sync_client=True) as api:
        try:
            deployment = api.read_deployment_by_name("operationalize/operationalize")
        except ObjectNotFound as error:
            msg = "There is no deployment operationalize on the Prefect server: put it there first (make deploy)"
            raise FlowsError(msg) from error
    return RunDeployment(source="selected", deployment_id=deployment.id, parameters=parameters)


def _of_our_flows() -> ResourceSpecification:
    """Return what the events of this project's flow runs are related to, and those of no other's."""
    names = sorted({deployment.name for deployment in load_deployments()})
    return ResourceSpecification({"prefect.resource.role": "flow", "prefect.resource.name": names})


def main(arguments: list[str]) -> int:
    """Put all automations on the server; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deployments.automations", description=__doc__.split("\n")[0])
    parser.parse_args(arguments)
    url = get_current_settings().api.url
    if trouble := trouble_with(url):
        sys.stderr.write(f"{trouble}\n")
        return 1
    try:
        names = apply()
    except FlowsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.writelines(f"{name}: on the Prefect server at {url}\n" for name in names)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
