"""How long a minute of AWS lasts on this machine."""

from datetime import UTC, datetime


class Clock:
    """The time of metrics, alarms, baking periods, cooldowns and scaling: one for the process, read at every use.

    ``minute_seconds`` is the local AWS's own: AWS has no such knob. Where it is less than 60, a test sees in seconds
    what takes AWS a quarter of an hour. Time stamps stay true, so metrics at 0.5 s a minute are half a second apart.
    """

    minute_seconds = 60.0

    @classmethod
    def real_seconds(cls, seconds: float) -> float:
        """Return how long so many seconds of AWS last here."""
        return seconds * cls.minute_seconds / 60

    @classmethod
    def minute_of(cls, timestamp: float) -> float:
        """Return when the minute began that a POSIX time is in."""
        return timestamp // cls.minute_seconds * cls.minute_seconds


def from_timestamp(timestamp: float) -> datetime:
    """Return a POSIX time as moto keeps times: UTC, and without a zone."""
    return datetime.fromtimestamp(timestamp, UTC).replace(tzinfo=None)


def to_timestamp(moment: datetime) -> float:
    """Return the POSIX time of a moment; one without a zone is UTC."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
