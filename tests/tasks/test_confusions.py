from tasks.confusions import worst_confusions, worth_a_look
from tasks.contracts import Prediction, TestEvaluation, TrainingReport

CLASSES = ("a", "b", "c")
Judged = tuple[str, str, float]


def report(*judged: Judged) -> TrainingReport:
    """The report of a model that said this: true class, what it was taken for, probability."""
    confusion = [[0] * len(CLASSES) for _ in CLASSES]
    for true, said, _probability in judged:
        confusion[CLASSES.index(true)][CLASSES.index(said)] += 1
    predictions = tuple(
        Prediction(file=f"{true}/{number}.png", label=true, predicted=said, probability=probability)
        for number, (true, said, probability) in enumerate(judged)
    )
    test = TestEvaluation(loss=0, accuracy=0, confusion=confusion, predictions=predictions)
    return TrainingReport(
        classes=CLASSES, epochs=(), best_epoch=1, stopped_early=False, test=test, seconds={}, images_per_second=1
    )


def files(*judged: Judged) -> list[str]:
    return [one.file for one in worth_a_look(report(*judged))]


def test_what_was_confused_most_often_comes_first() -> None:
    judged = [("a", "b", 0.9), ("c", "a", 0.9), ("c", "a", 0.8), ("b", "b", 1.0)]
    assert worst_confusions(report(*judged)) == [(2, "c", "a"), (1, "a", "b")]


def test_of_each_confusion_the_two_that_were_most_surely_wrong_are_looked_at() -> None:
    judged = [("a", "b", 0.99), ("c", "a", 0.5), ("c", "a", 0.9), ("c", "a", 0.7), ("b", "b", 1.0)]
    assert files(*judged) == ["c/2.png", "c/3.png", "a/0.png"]


def test_where_nothing_was_confused_the_least_sure_are_looked_at() -> None:
    assert files(("a", "a", 0.9), ("b", "b", 0.4), ("c", "c", 0.6)) == ["b/1.png", "c/2.png", "a/0.png"]


def test_no_more_are_looked_at_than_a_row_of_pictures_has() -> None:
    right = [("a", "a", share / 100) for share in range(50, 100)]
    wrong = [(true, said, 0.9) for true in CLASSES for said in CLASSES if true != said for _ in range(9)]
    assert len(files(*right)) == 10
    assert len(files(*right, *wrong)) == 10
