"""What bills though nobody waits for it any more: found by tags and by the runs that asked for it, and ended."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from uuid import UUID

from botocore.exceptions import BotoCoreError, ClientError
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from tasks.aws import orphans
from tasks.aws.clients import acting_as
from tasks.aws.errors import FlowsError, is_transient_error, sentence_for
from tasks.aws.settings import Settings
from tasks.contracts import Billing, Orphan
from tasks.retries import retried
from tasks.runs import run_logger

# Of what would never end by itself, this much is counted as saved.
_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)
# Whoever waits for these is a flow run; what serves outlives the run that deployed it, until it is past due.
WAITED_FOR = ("training job", "tuning job", "instance")
_RUNS_A_PAGE = 200


@retried("find the orphans")
def find_orphans(settings: Settings) -> tuple[Orphan, ...]:
    """Return what of this project bills and is past due, or was asked for by flow runs that are over."""
    with acting_as(settings.reaper_role_arn):
        billing = orphans.find_billing(settings.region)
    over = runs_over({run for one in billing for run in one.flow_run_ids})
    now = datetime.now(tz=UTC)
    found = [(one, why_orphaned(one, over, now)) for one in billing]
    run_logger().info("%d resources of this project bill", len(billing))
    return tuple(Orphan(billing=one, reason=why, saved_usd=saved_usd(one, now)) for one, why in found if why)


@retried("end {orphan.billing.kind} {orphan.billing.name}")
def reap(orphan: Orphan, settings: Settings) -> Orphan:
    """End an orphan, and return it as ended, or with why it could not be; safe to retry."""
    billing = orphan.billing
    try:
        with acting_as(settings.reaper_role_arn):
            orphans.end(billing)
    except (FlowsError, ClientError, BotoCoreError) as error:
        if is_transient_error(error):
            raise
        run_logger().warning("The %s %s could not be ended: %s", billing.kind, billing.name, sentence_for(error))
        return orphan.model_copy(update={"trouble": sentence_for(error)})
    run_logger().info("The %s %s is ended: %s", billing.kind, billing.name, orphan.reason)
    return orphan.model_copy(update={"reaped": True})


def why_orphaned(billing: Billing, over: Collection[str], now: datetime) -> str:
    """Return why nobody waits for it any more; nothing when somebody does, or may."""
    if billing.reason:
        return billing.reason
    if billing.expires_at is not None and billing.expires_at < now:
        return f"past due since {billing.expires_at:%Y-%m-%d %H:%M} UTC"
    runs = billing.flow_run_ids
    if billing.kind in WAITED_FOR and runs and all(run in over for run in runs):
        return f"the flow run that waited for it is over ({runs[-1]})"
    return ""


def saved_usd(billing: Billing, now: datetime) -> float | None:
    """Return what it would have cost until it had ended by itself; a day's worth of what never does."""
    left = billing.ends_at - now if billing.ends_at and billing.ends_at > now else _DAY
    return None if billing.hourly_usd is None else billing.hourly_usd * (left / _HOUR)


def runs_over(ids: Collection[str]) -> frozenset[str]:
    """Return which of these flow runs have ended, or are to end, as far as the Prefect server knows them.

    One that is being cancelled wants nothing any more, even if nobody is left to end it.
    """
    known = [UUID(one) for one in sorted(ids) if _is_uuid(one)]
    over = set[str]()
    with get_client(sync_client=True) as api:
        for first in range(0, len(known), _RUNS_A_PAGE):
            asked = FlowRunFilter(id=FlowRunFilterId(any_=known[first : first + _RUNS_A_PAGE]))
            runs = api.read_flow_runs(flow_run_filter=asked, limit=_RUNS_A_PAGE)
            over |= {str(run.id) for run in runs if run.state and (run.state.is_final() or run.state.is_cancelling())}
    return frozenset(over)


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
