"""What a run may spend: held against each step before it begins, which counts as its longest."""

from collections.abc import Sequence

from tasks.aws.errors import RequestRefusedError
from tasks.contracts import CostLine
from tasks.events import tell_budget_near

_NEAR = 0.8


class Budget:
    """The dollars of one run, and what it has spent of them.

    What was reused costs nothing when it is spent, and counts as its longest before: nobody knows yet.

    Args:
        usd: All that may be spent; None for as much as it takes.
    """

    def __init__(self, usd: float | None) -> None:
        self._usd = usd
        self._lines: list[CostLine] = []
        self._told = False

    @property
    def spent_usd(self) -> float:
        """What the steps so far have cost, as far as prices are known."""
        return sum(line.billed_usd or 0.0 for line in self._lines)

    def check(self, step: str, at_most_usd: float | None) -> None:
        """Make sure that a step can be paid for, however long it takes.

        Raises:
            RequestRefusedError: It may cost more than is left, or its price is not known.
        """
        if self._usd is None:
            return
        if at_most_usd is None:
            msg = f"The budget of ${self._usd:.2f} cannot be kept: what the {step} costs is not known"
            raise RequestRefusedError(msg)
        if self.spent_usd + at_most_usd > self._usd:
            msg = (
                f"The {step} may cost up to ${at_most_usd:.2f}, and ${self._usd - self.spent_usd:.2f} are left of the "
                f"budget of ${self._usd:.2f}: raise it, or shorten max_runtime_seconds"
            )
            raise RequestRefusedError(msg)

    def spend(self, lines: Sequence[CostLine]) -> None:
        """Count what steps have cost; once most of the budget is spent, tell it."""
        self._lines += lines
        if self._usd is not None and not self._told and self.spent_usd >= _NEAR * self._usd:
            self._told = True
            tell_budget_near(self._usd, self._lines)
