"""The ranges of a tuning job's hyperparameters: what may be tried, and how SageMaker writes it as a string."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployments.local_aws.records import invalid

_DECADES_FOR_LOGARITHMIC = 2.0


@dataclass(frozen=True)
class NumberRange:
    """A range of integers, or of real numbers; both ends belong to it."""

    name: str
    low: float
    high: float
    scale: str  # Linear, Logarithmic or ReverseLogarithmic
    is_integer: bool

    @property
    def combinations(self) -> float:
        """How many different values there are."""
        if self.is_integer or self.low == self.high:
            return self.high - self.low + 1
        return math.inf

    def text(self, value: float) -> str:
        """Return the value as a job gets it."""
        within = min(max(value, self.low), self.high)
        return str(round(within)) if self.is_integer else repr(float(within))

    def value(self, text: str) -> float | None:
        """Return what a job was given as a value of this range; None when it is not in it."""
        number = _number(text.strip('"'))
        if number is None or not self.low <= number <= self.high:
            return None
        if self.is_integer:
            return int(number) if number.is_integer() else None
        return number


@dataclass(frozen=True)
class Choice:
    """A range of strings, which jobs get as they are."""

    name: str
    values: tuple[str, ...]

    @property
    def combinations(self) -> float:
        """How many different values there are."""
        return len(self.values)

    def text(self, value: str) -> str:
        """Return the value as a job gets it."""
        return value

    def value(self, text: str) -> str | None:
        """Return what a job was given as a value of this range; None when it is not in it."""
        return text if text in self.values else None


Range = NumberRange | Choice


def read_ranges(ranges: Mapping[str, Any]) -> list[Range]:
    """Return the ranges of a request.

    https://docs.aws.amazon.com/sagemaker/latest/dg/automatic-model-tuning-define-ranges.html

    Raises:
        AwsError: ValidationException that names the range and what is wrong with it.
    """
    return [
        *(_number_range(item, is_integer=True) for item in ranges.get("IntegerParameterRanges", [])),
        *(_number_range(item, is_integer=False) for item in ranges.get("ContinuousParameterRanges", [])),
        *(
            Choice(item["Name"], tuple(dict.fromkeys(item["Values"])))
            for item in ranges.get("CategoricalParameterRanges", [])
        ),
    ]


def combinations(ranges: Sequence[Range]) -> float:
    """Return how many different trials the ranges allow; infinity where one of them is continuous."""
    return math.prod(one.combinations for one in ranges)


def _number_range(item: Mapping[str, str], *, is_integer: bool) -> NumberRange:
    name = item["Name"]
    low, high = (_bound(name, end, item[end], is_integer=is_integer) for end in ("MinValue", "MaxValue"))
    if low > high:
        message = f"The MinValue of the hyperparameter {name}, {item['MinValue']}, is greater than its MaxValue, "
        message += item["MaxValue"]
        raise invalid(message)
    scale = item.get("ScalingType", "Auto")
    if scale == "Logarithmic" and low <= 0:
        message = f"The MinValue of the hyperparameter {name} is {item['MinValue']}: "
        message += "logarithmic scaling works only for ranges that have only values greater than 0"
        raise invalid(message)
    if scale == "ReverseLogarithmic" and (is_integer or low < 0 or high >= 1):
        message = f"The range of the hyperparameter {name} is {item['MinValue']} to {item['MaxValue']}: "
        message += "reverse logarithmic scaling works only for continuous ranges entirely within the range 0<=x<1.0"
        raise invalid(message)
    return NumberRange(name, low, high, _automatic(low, high) if scale == "Auto" else scale, is_integer)


def _bound(name: str, end: str, text: str, *, is_integer: bool) -> float:
    number = _number(text)
    if number is None or (is_integer and not number.is_integer()):
        kind = "an integer" if is_integer else "a number"
        message = f"The {end} of the hyperparameter {name} is {text!r}: it must be {kind}"
        raise invalid(message)
    return number


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _automatic(low: float, high: float) -> str:
    # SageMaker does not say how it chooses; what spans decades is meant by its magnitude.
    return "Logarithmic" if low > 0 and math.log10(high / low) >= _DECADES_FOR_LOGARITHMIC else "Linear"
