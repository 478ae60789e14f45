"""Pictures for people who would rather look than read: PNG bytes, drawn without a display."""

import io
from collections.abc import Callable, Sequence
from typing import Any

from tasks.contracts import SPLITS, Epoch, LabelledImage, SampleAnswer, Split

_DPI = 96
_GOOD, _BAD, _PLAIN, _SECOND = "#1a7f37", "#cf222e", "#0969da", "#bf8700"
_MOST_NAMES = 40  # more class names than this cannot be read on an axis


def sample_sheet(images: Sequence[LabelledImage]) -> bytes:
    """Draw pictures side by side, each under its label."""
    return _sheet(images, [image.label for image in images], ["black"] * len(images))


def answer_sheet(samples: Sequence[SampleAnswer]) -> bytes:
    """Draw pictures with what the endpoint said of each, green where it is right."""
    titles = [
        f"{sample.answer.label} {sample.answer.probability:.0%}\n(true: {sample.image.label})" for sample in samples
    ]
    colours = [_GOOD if sample.answer.label == sample.image.label else _BAD for sample in samples]
    return _sheet([sample.image for sample in samples], titles, colours)


def class_balance(counts: dict[Split, dict[str, int]], classes: Sequence[str]) -> bytes:
    """Draw the number of pictures per class, one colour a split."""

    def draw(axes: Any) -> None:
        below = [0] * len(classes)
        for split in SPLITS:
            heights = [counts.get(split, {}).get(name, 0) for name in classes]
            axes.bar(range(len(classes)), heights, bottom=below, label=split)
            below = [low + height for low, height in zip(below, heights, strict=True)]
        _name_axis(axes.set_xticks, classes)
        axes.set_ylabel("pictures")
        axes.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    return _draw(draw, width=7, height=2.8)


def training_curves(epochs: Sequence[Epoch], best_epoch: int) -> bytes:
    """Draw loss and accuracy over epochs, and where the best weights were found."""

    def draw(axes: Any) -> None:
        passes = [epoch.epoch for epoch in epochs]
        for panel, name in zip(axes, ("loss", "accuracy"), strict=True):
            panel.plot(passes, [getattr(epoch, f"train_{name}") for epoch in epochs], color=_SECOND, label="train")
            panel.plot(passes, [getattr(epoch, f"valid_{name}") for epoch in epochs], color=_PLAIN, label="valid")
            panel.axvline(best_epoch, color=_GOOD, linestyle=":", label="kept")
            panel.set_xlabel("epoch")
            panel.xaxis.get_major_locator().set_params(integer=True)  # there is no epoch 2.5
            panel.set_title(name)
        axes[0].legend(frameon=False)

    return _draw(draw, width=8, height=2.8, columns=2)


def confusion_matrix(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> bytes:
    """Draw true classes (rows) against predicted ones (columns)."""

    def draw(axes: Any) -> None:
        axes.imshow(confusion, cmap="Blues")
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        _name_axis(axes.set_xticks, classes)
        _name_axis(axes.set_yticks, classes, rotation=0)
        if len(classes) <= _MOST_NAMES // 2:
            _write_counts(axes, confusion)

    side = min(4 + 0.12 * len(classes), 9)
    return _draw(draw, width=side, height=side)


def _write_counts(axes: Any, confusion: Sequence[Sequence[int]]) -> None:
    darkest = max(max(row) for row in confusion)
    for i, row in enumerate(confusion):
        for j, count in enumerate(row):
            if count:
                axes.text(j, i, count, ha="center", va="center", color="white" if count > darkest / 2 else "black")


def _sheet(images: Sequence[LabelledImage], titles: Sequence[str], colours: Sequence[str]) -> bytes:
    from PIL import Image  # noqa: PLC0415 - a third of a second that only pictures need

    def draw(axes: Any) -> None:
        for panel, image, title, colour in zip(_panels(axes), images, titles, colours, strict=False):
            with Image.open(io.BytesIO(image.body), formats=["PNG", "JPEG"]) as picture:
                panel.imshow(picture.convert("RGB"), interpolation="nearest")
            panel.set_title(_shorten(title), fontsize=8, color=colour)
        for panel in _panels(axes):
            panel.set_axis_off()

    return _draw(draw, width=1.15 * max(len(images), 1), height=1.6, columns=max(len(images), 1))


def _panels(axes: Any) -> list[Any]:
    return list(axes.flat) if hasattr(axes, "flat") else [axes]


def _shorten(title: str, most: int = 22) -> str:
    return "\n".join(line if len(line) <= most else f"{line[: most - 1]}…" for line in title.split("\n"))


def _name_axis(set_ticks: Callable[..., Any], classes: Sequence[str], rotation: int = 45) -> None:
    if len(classes) > _MOST_NAMES:
        set_ticks([])
        return
    short = max((len(name) for name in classes), default=0) <= 2  # noqa: PLR2004 - digits and the like stand upright
    turn = 0 if short else rotation
    set_ticks(range(len(classes)), [_shorten(name) for name in classes], rotation=turn, ha="center")


def _draw(draw: Callable[[Any], None], width: float, height: float, columns: int = 1) -> bytes:
    """Return the PNG of a figure, inches wide and high."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - a second of import that only pictures need

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    draw(figure.subplots(1, columns))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
