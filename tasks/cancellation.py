"""Flow runs that somebody cancels: they notice, stop what they wait for, and what they cannot is stopped for them."""

import logging
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from botocore.exceptions import BotoCoreError, ClientError
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.loggers import flow_run_logger
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelled, Cancelling

from tasks.aws import orphans
from tasks.aws.clients import acting_as
from tasks.aws.errors import FlowsError, RunCancelledError, sentence_for
from tasks.aws.identity import is_named_by_content
from tasks.aws.settings import load_settings
from tasks.contracts import Billing
from tasks.orphans import WAITED_FOR, runs_over
from tasks.runs import current_flow_run_id

_LOOK_SECONDS = 5.0
_ANSWER_SECONDS = 5.0
# After a look that came to nothing: a server that is slow to refuse must not slow the wait.
_TROUBLED_SECONDS = 15.0
_RUNS_A_PAGE = 200
_KEEPING = ("keep_endpoints", "keep")
_LOGGER = logging.getLogger(__name__)


# --- a run notices ---------------------------------------------------------------------------------------------------


class CancelWatch:
    """Looks now and then whether this flow run, or one that it is a part of, is being cancelled.

    Whoever runs a deployment (a worker, `serve`) ends its runs; nobody ends one that a person has started, nor a part
    of any run. A Prefect server that does not answer fails no wait.
    """

    def __init__(self) -> None:
        self._run_id = current_flow_run_id()
        self._lineage: tuple[UUID, ...] = ()
        self._next_look = float("-inf")

    def check(self) -> None:
        """Look, if it is time to.

        Raises:
            RunCancelledError: The run is to end.
        """
        now = time.monotonic()
        if self._run_id is None or now < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        try:
            cancelled = self._look(self._run_id)
        except Exception as error:  # noqa: BLE001 - whatever ails the Prefect server, the wait goes on
            _LOGGER.debug("Whether the flow run is cancelled could not be asked: %s", error)
            self._next_look = now + _TROUBLED_SECONDS
            return
        if cancelled:
            raise RunCancelledError(cancelled.name)

    def _look(self, run_id: UUID) -> FlowRun | None:
        """Return the run whose cancellation ends this one, with all in between told that they are being cancelled."""
        with _impatient_client() as api:
            self._lineage = self._lineage or _lineage(api, run_id)
            asked = FlowRunFilter(id=FlowRunFilterId(any_=list(self._lineage)))
            runs = {run.id: run for run in api.read_flow_runs(flow_run_filter=asked)}
            line = [runs[one] for one in self._lineage if one in runs]
            ending = max((place for place, run in enumerate(line) if _is_ending(run)), default=None)
            if ending is None:
                return None
            for run in line[: ending + 1]:
                if not (run.state and run.state.is_cancelling()):
                    # The server refuses Cancelling runs any other end than Cancelled, which failing would be.
                    api.set_flow_run_state(run.id, Cancelling(message=f"{line[ending].name} is cancelled"), force=True)
            return line[ending]


def end_if_cancelled() -> None:
    """Look once, before something is started that would only have to be stopped.

    Raises:
        RunCancelledError: The flow run is to end.
    """
    CancelWatch().check()


def _lineage(api: SyncPrefectClient, run_id: UUID) -> tuple[UUID, ...]:
    """Return the ids of a flow run, of the run that it is a part of, and so on."""
    line = [run_id]
    while parent := api.read_flow_run(line[-1]).parent_task_run_id:
        above = api.read_task_run(parent).flow_run_id
        if above is None:
            break
        line.append(above)
    return tuple(line)


def _is_ending(run: FlowRun) -> bool:
    """Tell whether a run is to end itself."""
    cancelled = run.state is not None and (run.state.is_cancelling() or run.state.is_cancelled())
    return cancelled and run.deployment_id is None


@contextmanager
def _impatient_client() -> Iterator[SyncPrefectClient]:
    """Return a client that gives up at once: who asks again anyway need not insist."""
    settings = {"timeout": _ANSWER_SECONDS}
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(httpx_settings=settings, sync_client=True) as api,
    ):
        yield api


# --- what it leaves is stopped ---------------------------------------------------------------------------------------


def stop_what_it_started(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001
    """Stop what a cancelled flow run and its parts have started and wait for; every flow's `on_cancellation`.

    Prefect calls it by keyword, in the process of the worker or of `serve` once the run's own has ended, or at the end
    of a run that nobody else runs: all that it needs follows from the flow run.
    """
    logger = flow_run_logger(flow_run, flow)
    family = family_of(flow_run)
    try:
        _stop(family, logger, keep=any(flow_run.parameters.get(name) for name in _KEEPING))
    except (FlowsError, ClientError, BotoCoreError) as error:
        logger.warning("What this run had started could not be looked for, and may bill: %s", sentence_for(error))
    finally:
        # Of a deployment's run, whoever runs it says how it ended.
        _conclude([run.id for run in family if run.deployment_id is None])


def family_of(flow_run: FlowRun) -> tuple[FlowRun, ...]:
    """Return a flow run, the runs of the flows that it called, and so on."""
    family = generation = [flow_run]
    with get_client(sync_client=True) as api:
        while generation:
            parents = FlowRunFilterParentFlowRunId(any_=[run.id for run in generation])
            asked = FlowRunFilter(parent_flow_run_id=parents)
            generation = api.read_flow_runs(flow_run_filter=asked, limit=_RUNS_A_PAGE)
            family = [*family, *generation]
    return tuple(family)


def _stop(
    family: Collection[FlowRun], logger: "logging.Logger | logging.LoggerAdapter[logging.Logger]", *, keep: bool
) -> None:
    settings, ids = load_settings(), {str(run.id) for run in family}
    with acting_as(settings.reaper_role_arn):
        billing = orphans.find_billing(settings.region)
        over = runs_over({run for one in billing for run in one.flow_run_ids} - ids)
        for one in billing:
            if is_left_by(one, ids, over, keep=keep):
                try:
                    orphans.end(one)
                    logger.warning("The %s %s is being ended, the run is cancelled", one.kind, one.name)
                except (FlowsError, ClientError, BotoCoreError) as error:
                    trouble = sentence_for(error)
                    logger.warning("The %s %s could not be ended, and may bill: %s", one.kind, one.name, trouble)


def is_left_by(billing: Billing, family: Collection[str], over: Collection[str], *, keep: bool) -> bool:
    """Tell whether nobody wants it any more when these flow runs are cancelled.

    What serves under a lasting name stays, and so does what any other run waits for that is not over for certain.

    Args:
        billing: What bills.
        family: The cancelled runs.
        over: The runs that are known to be over.
        keep: Whether they were asked to leave endpoints in service.
    """
    runs = set(billing.flow_run_ids)
    if not runs & set(family) or runs - set(family) - set(over):
        return False
    if billing.kind == "endpoint":
        return not keep and is_named_by_content(billing.name)
    return billing.kind in WAITED_FOR


def _conclude(run_ids: Collection[UUID]) -> None:
    """Let runs that do not run any more read Cancelled, but for those that have come to an end of their own."""
    with get_client(sync_client=True) as api:
        for run_id in run_ids:
            state = api.read_flow_run(run_id).state
            if state is None or not state.is_final():
                api.set_flow_run_state(run_id, Cancelled(), force=True)
