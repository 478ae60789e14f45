"""Reports show what came from outside, and do not obey it."""

import io

from PIL import Image

from tasks import charts
from tasks.contracts import ComparedTraining, Epoch, LabelledImage, PredictedImage, Prediction, Trial
from tasks.markdown import escape, link, picture, table, to_html

PIXEL = io.BytesIO()
Image.new("L", (8, 8)).save(PIXEL, "PNG")
IMAGE = LabelledImage(name="a.png", label="a_very_long_breed_name_that_does_not_fit", body=PIXEL.getvalue())
JUDGED = PredictedImage(
    image=IMAGE, prediction=Prediction(file="a/a.png", label=IMAGE.label, predicted="cat", probability=0.9)
)
TRIALS = [
    Trial(
        name=str(i),
        status="Completed",
        hyperparameters={"learning_rate": str(10 ** -(1 + i / 4)), "trainable": '"head"' if i % 2 else '"all"'},
        objective=1 / (1 + i),
        ended_after_seconds=i,
    )
    for i in range(20)
]
ROW = ComparedTraining(
    way="EC2",
    machines="m5.xlarge",
    job="flows-train-ec2-1",
    how="created",
    start_up_seconds=60,
    download_seconds=0,
    training_seconds=20,
    upload_seconds=1,
    images_per_second=100,
    billable_seconds=90,
    cost_usd=None,
    valid_accuracy=1,
    test_accuracy=1,
    code_path="a shell",
)


def is_png(body: bytes) -> bool:
    with Image.open(io.BytesIO(body)) as drawn:
        return drawn.format == "PNG" and min(drawn.size) > 50


def test_names_from_outside_cannot_break_a_table_or_bring_html() -> None:
    page = to_html(table(["class"], [["a|b <script>alert(1)</script>"]]))
    assert page.count("<td>") == 1
    assert "<script>" not in page
    assert "a|b &lt;script&gt;" in page


def test_a_name_cannot_become_a_link_or_a_picture() -> None:
    assert "<img" not in to_html(escape("![x](data:image/png;base64,AAAA)"))
    assert "<a " not in to_html(escape("[x](javascript:alert(1))"))


def test_pictures_survive_into_the_page() -> None:
    assert 'src="data:image/png;base64,' in to_html(picture("curves", PIXEL.getvalue()))


def test_a_link_survives_in_a_table_whatever_its_text_is() -> None:
    page = to_html(table(["job"], [[link("a|b](x) <b>", "http://127.0.0.1/a?b=1&c=$252F")]]))
    assert '<a href="http://127.0.0.1/a?b=1&amp;c=$252F">a|b](x) &lt;b&gt;</a>' in page
    assert page.count("<td>") == 1


def test_every_chart_is_a_picture_also_of_one_thing_or_of_many() -> None:
    epoch = Epoch(
        epoch=1, train_loss=1, train_accuracy=0.5, valid_loss=1, valid_accuracy=0.5, learning_rate=0.1, seconds=1
    )
    many = [f"class {i}" for i in range(133)]
    assert is_png(charts.sample_sheet([IMAGE]))
    assert is_png(charts.prediction_sheet([JUDGED] * 10))
    assert is_png(charts.latency_histogram([3.0], 3, 3))
    assert is_png(charts.latency_histogram([2.0 + i for i in range(32)], 17, 33))
    assert is_png(charts.class_balance({"train": dict.fromkeys(many, 3)}, many))
    assert is_png(charts.training_curves([epoch], 1))
    assert is_png(charts.confusion_matrix([[3, 1], [0, 4]], ["a", "b"]))
    assert is_png(charts.tuning_trials(TRIALS, TRIALS[0], "valid_loss"))
    assert is_png(charts.tuning_trials(TRIALS[:1], TRIALS[0], "valid_accuracy"))
    assert is_png(charts.training_seconds([ROW]))
    assert is_png(charts.confusion_matrix([[0] * 133] * 133, many))
