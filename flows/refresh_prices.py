"""Ask AWS what machines and functions cost today, and keep it where every flow finds it: in the foundation's bucket.

python -m flows.refresh_prices
python -m flows.refresh_prices --most-times 3      a price that changed more is taken for a mistake
python -m flows.refresh_prices --accept-all        whatever AWS lists
"""

from typing import Annotated

from prefect import flow

from flows import command_line
from tasks.aws.settings import load_settings
from tasks.cancellation import stop_what_it_started
from tasks.contracts import MostTimes, PriceRefresh, StepResult, titled
from tasks.prices import check_changes, compare_prices, fetch_prices, keep_prices
from tasks.reports import report_prices
from tasks.results import kept_as_json


@kept_as_json
@flow(
    name="refresh-prices",
    flow_run_name="refresh prices",
    on_cancellation=[stop_what_it_started],
)
def refresh_prices(
    *,
    most_times: Annotated[MostTimes, titled("Most times dearer or cheaper")] = 2,
    accept_all: Annotated[bool, titled("Accept all")] = False,
) -> StepResult[PriceRefresh]:
    """Refresh the prices of this region from the AWS Price List API; flows that start afterwards reckon with them.

    Args:
        most_times: How many times dearer, or cheaper, a price may have become; more is refused, and nothing is kept.
        accept_all: Keep the prices however much they changed.
    """
    settings = load_settings()
    listed = fetch_prices(settings.region)
    refresh = compare_prices(listed, settings.region)
    section = report_prices(refresh)  # also of what is refused: the table shows why
    if not accept_all:
        check_changes(refresh, most_times)
    kept = refresh.model_copy(update={"s3_uri": keep_prices(listed, settings)})
    return StepResult(result=kept, sections=(section,))


def show(step: StepResult[PriceRefresh]) -> str:
    """Say what changed, and where the prices are kept."""
    refresh = step.result
    changes = [
        f"{one.kind} {one.name}: ${one.old_usd:g} before, ${one.new_usd:g} now ({one.percent:+.1f}%)"
        for one in refresh.changes
    ]
    counted = f"{refresh.listed} prices of {refresh.region}: {len(refresh.changes)} changed, {refresh.added} new"
    return "\n".join([*changes, f"{counted}, {len(refresh.gone)} gone", refresh.s3_uri])


if __name__ == "__main__":
    command_line.run(refresh_prices, show)
