"""Prices, refreshed: what AWS lists now, held against what is reckoned with, and kept where every flow finds it."""

from tasks.aws import prices
from tasks.aws.errors import FlowsError
from tasks.aws.settings import Settings
from tasks.contracts import PriceChange, PriceKind, PriceList, PriceRefresh
from tasks.retries import retried

_SHOWN = 3


@retried("fetch the prices of {region}")
def fetch_prices(region: str) -> PriceList:
    """Return the prices that AWS lists now.

    Raises:
        FlowsError: AWS lists none for training, hosting, EC2 or Lambda: that is no price list.
    """
    listed = prices.fetch_prices(region)
    lacking = [kind for kind, of_kind in listed.by_kind.items() if not of_kind]
    if lacking:
        msg = f"AWS lists no prices of {', '.join(lacking)} for {region}: those in use stay; try again later"
        raise FlowsError(msg)
    return listed


@retried("keep the prices")
def keep_prices(listed: PriceList, settings: Settings) -> str:
    """Keep prices in the foundation's bucket, and return where; safe to retry: they replace those that are there."""
    return prices.keep_prices(settings.bucket, settings.region, listed)


def compare_prices(listed: PriceList, region: str) -> PriceRefresh:
    """Hold what AWS lists now against what is reckoned with."""
    used = prices.prices_in_use(region)
    old, new = _flat(used), _flat(listed)
    return PriceRefresh(
        region=region,
        as_of=listed.as_of,
        before=used and used.as_of,
        listed=listed.count,
        changes=tuple(
            PriceChange(kind=kind, name=name, old_usd=usd, new_usd=new[kind, name])
            for (kind, name), usd in sorted(old.items())
            if new.get((kind, name), usd) != usd
        ),
        added=len(new.keys() - old.keys()),
        gone=tuple(f"{kind} {name}" for kind, name in sorted(old.keys() - new.keys())),
    )


def check_changes(refresh: PriceRefresh, most_times: float) -> None:
    """Refuse prices of which one has become so many times dearer, or cheaper, that it is more likely a mistake.

    Raises:
        FlowsError: One has; those in use stay.
    """
    wild = [change for change in refresh.changes if change.times > most_times]
    if wild:
        shown = [f"{one.kind} {one.name} from ${one.old_usd:g} to ${one.new_usd:g}" for one in wild[:_SHOWN]]
        more = [f"{len(wild) - _SHOWN} more"] if len(wild) > _SHOWN else []
        msg = (
            f"Prices changed by more than {most_times:g} times: {', '.join([*shown, *more])}; those in use stay. "
            "If that is what AWS charges now, run again with accept_all"
        )
        raise FlowsError(msg)


def _flat(listed: PriceList | None) -> dict[tuple[PriceKind, str], float]:
    by_kind = listed.by_kind.items() if listed else ()
    return {(kind, name): usd for kind, of_kind in by_kind for name, usd in of_kind.items()}
