"""Small words for findings: how many, and which ones."""

from collections.abc import Sequence

_SHOWN = 3


def quantity(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: '1 picture', '2,041 pictures'."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def some(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN:,} more"
