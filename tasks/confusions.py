"""What a trained model takes for what on test, and the pictures that show it best."""

from collections.abc import Sequence
from itertools import chain

from tasks.contracts import Prediction, TrainingReport

_PICTURES, _OF_A_PAIR = 10, 2


def worst_confusions(report: TrainingReport) -> list[tuple[int, str, str]]:
    """Return which class was taken for which and how often, the most frequent first."""
    pairs = [
        (count, report.classes[i], report.classes[j])
        for i, row in enumerate(report.test.confusion)
        for j, count in enumerate(row)
        if i != j and count
    ]
    return sorted(pairs, key=lambda pair: -pair[0])


def worth_a_look(report: TrainingReport) -> tuple[Prediction, ...]:
    """Return a few test pictures: of the worst confusions those that were most surely wrong, two of each at most.

    Where nothing was confused, those that were right and least sure: there is always something to look at.
    """
    predictions = report.test.predictions
    pairs = (_surest(predictions, true, taken_for) for _times, true, taken_for in worst_confusions(report))
    confused = tuple(chain.from_iterable(pairs))[:_PICTURES]
    return confused or tuple(sorted(predictions, key=lambda one: one.probability)[:_PICTURES])


def _surest(predictions: Sequence[Prediction], true: str, taken_for: str) -> Sequence[Prediction]:
    found = [one for one in predictions if (one.label, one.predicted) == (true, taken_for)]
    return sorted(found, key=lambda one: -one.probability)[:_OF_A_PAIR]
