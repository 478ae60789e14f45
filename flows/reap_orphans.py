"""End what bills though nobody waits for it any more: past due, or asked for by a flow run that is over.

python -m flows.reap_orphans --dry-run      only say what would be ended
python -m flows.reap_orphans
"""

from typing import Annotated

from prefect import flow

from flows import command_line
from tasks.aws.errors import FlowsError
from tasks.aws.settings import load_settings
from tasks.cancellation import stop_what_it_started
from tasks.contracts import ReapResult, StepResult, titled
from tasks.events import tell_reaped
from tasks.markdown import usd
from tasks.orphans import find_orphans, reap
from tasks.reports import report_orphans
from tasks.results import kept_as_json


@kept_as_json
@flow(
    name="reap-orphans",
    flow_run_name="reap orphans",
    on_cancellation=[stop_what_it_started],
)
def reap_orphans(*, dry_run: Annotated[bool, titled("Dry run")] = False) -> StepResult[ReapResult]:
    """Find by our tags what nobody waits for any more, and stop or delete it, as the foundation's reaper role.

    Jobs, instances, endpoints, scaling and what is kept warm; what lacks this project's tag is not touched, nor is what
    a living flow run waits for.

    Args:
        dry_run: Only say what would be ended.
    """
    settings = load_settings()
    found = find_orphans(settings)
    result = ReapResult(
        orphans=found if dry_run else tuple(reap(orphan, settings) for orphan in found), dry_run=dry_run
    )
    tell_reaped(result.orphans)
    section = report_orphans(result, settings.region)
    troubled = [one for one in result.orphans if one.trouble]
    if troubled:
        names = "; ".join(f"{one.billing.kind} {one.billing.name}: {one.trouble}" for one in troubled)
        msg = f"{len(troubled)} of {len(found)} orphans could not be ended, and may bill: {names}"
        raise FlowsError(msg)
    return StepResult(result=result, sections=(section,))


def show(step: StepResult[ReapResult]) -> str:
    """Say what was ended, why, and what that saves."""
    result = step.result
    did = "would end" if result.dry_run else "ended"
    lines = [f"{did} {one.billing.kind} {one.billing.name}: {one.reason}" for one in result.orphans]
    saved = [f"{usd(result.saved_usd)} saved"] if lines and not result.dry_run else []
    return "\n".join([*lines, *saved]) or "Nothing bills that nobody waits for"


if __name__ == "__main__":
    command_line.run(reap_orphans, show)
