"""When scheduled actions run: at(…), rate(…) and cron(…) expressions.

https://docs.aws.amazon.com/autoscaling/application/userguide/scheduled-scaling-using-cron-expressions.html
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from deployments.local_aws.clock import Clock
from deployments.local_aws.records import invalid

_EXPRESSION = re.compile(r"(at|rate|cron)\((.+)\)")
_UNIT_SECONDS = {"minute": 60, "hour": 3600, "day": 86400}
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_YEARS = (1970, 2199)
_FIELDS = ((0, 59, ()), (0, 23, ()), (1, 31, ()), (1, 12, _MONTHS), (1, 7, _DAYS), (*_YEARS, ()))
_DAYS_AHEAD = 366 * 5  # further than from one 29th of February to the next


@dataclass(frozen=True)
class Schedule:
    """A schedule in a time zone. Rates count the local AWS's minutes; at and cron mean the time on the clock."""

    expression: str
    zone_name: str = "UTC"

    def next_after(self, moment: datetime) -> datetime | None:
        """Return when it is due next, None for never.

        Raises:
            AwsError: ValidationException: it is none that is implemented.
        """
        found = _EXPRESSION.fullmatch(self.expression)
        if not found:
            message = f"Schedule {self.expression!r} is none of at(…), rate(…) and cron(…)"
            raise invalid(message)
        try:
            kind, text, zone = found[1], found[2], ZoneInfo(self.zone_name)
            if kind == "rate":
                return moment + timedelta(seconds=Clock.real_seconds(_rate_seconds(text)))
            if kind == "at":
                due = datetime.fromisoformat(text).replace(tzinfo=zone).astimezone(UTC)
                return due if due > moment else None
            return _next_cron([_values(*field) for field in _fields(text)], moment.astimezone(zone))
        except (ValueError, ZoneInfoNotFoundError) as error:
            message = f"The local AWS does not understand the schedule {self.expression!r} ({self.zone_name}): {error}"
            raise invalid(message) from error


def _rate_seconds(text: str) -> int:
    value, unit = text.split()
    return int(value) * _UNIT_SECONDS[unit.removesuffix("s")] if unit.removesuffix("s") in _UNIT_SECONDS else _no(unit)


def _no(unit: str) -> int:
    message = f"{unit} is no unit of a rate"
    raise ValueError(message)


def _fields(text: str) -> list[tuple[str, int, int, Sequence[str]]]:
    parts = text.split()
    if len(parts) != len(_FIELDS):
        message = f"cron has {len(_FIELDS)} fields: minutes, hours, day of month, month, day of week, year"
        raise ValueError(message)
    return [(part, *field) for part, field in zip(parts, _FIELDS, strict=True)]


def _values(text: str, least: int, most: int, names: Sequence[str]) -> frozenset[int]:
    """Return the values that a field allows: *, ?, lists, ranges and steps; not L, W and #."""
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        if span in ("*", "?"):
            begin, end = least, most
        else:
            begin = _number(first, names)
            end = _number(last, names) if last else (most if step else begin)
        if not least <= begin <= end <= most:
            message = f"{part} is not between {least} and {most}"
            raise ValueError(message)
        found.update(range(begin, end + 1, int(step or 1)))
    return frozenset(found)


def _number(text: str, names: Sequence[str]) -> int:
    return names.index(text.upper()) + 1 if text.upper() in names else int(text)


def _next_cron(values: Sequence[frozenset[int]], moment: datetime) -> datetime | None:
    minutes, hours, days, months, weekdays, years = values
    for ahead in range(_DAYS_AHEAD):
        day = moment.date() + timedelta(days=ahead)
        is_due = day.day in days and day.month in months and day.year in years
        if not is_due or day.isoweekday() % 7 + 1 not in weekdays:
            continue
        for hour in sorted(hours):
            for minute in sorted(minutes):
                due = datetime(day.year, day.month, day.day, hour, minute, tzinfo=moment.tzinfo)
                if due > moment:
                    return due.astimezone(UTC)
    return None
