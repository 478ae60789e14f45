"""Pictures for people who would rather look than read: PNG bytes, drawn without a display."""

import io
from collections.abc import Callable, Sequence
from typing import Any

from tasks.contracts import (
    SPLITS,
    ComparedTraining,
    Epoch,
    LabelledImage,
    LoadLevel,
    MinuteLoad,
    PredictedImage,
    SampleAnswer,
    ScalingActivity,
    Split,
    Trial,
)
from tasks.markdown import short_number

_DPI = 96
_GOOD, _BAD, _PLAIN, _SECOND = "#1a7f37", "#cf222e", "#0969da", "#bf8700"
_WIDE = 10  # numbers further apart than this are drawn on a log scale
_FEW = 6  # choices that are no more than this stand side by side, at equal distances
_MOST_BINS = 24
_MOST_IN_A_ROW, _SIDE = 5, 1.45  # as wide as Prefect's page of an artifact; a side in inches
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


def prediction_sheet(pictures: Sequence[PredictedImage]) -> bytes:
    """Draw test pictures with what the trained model took each for, green where it was right."""
    judged = [(one.image, one.prediction) for one in pictures]
    titles = [f"{said.predicted} {said.probability:.0%}\n(true: {said.label})" for _image, said in judged]
    colours = [_GOOD if said.predicted == said.label else _BAD for _image, said in judged]
    return _sheet([image for image, _said in judged], titles, colours)


def latency_histogram(milliseconds: Sequence[float], p50_ms: float, p99_ms: float) -> bytes:
    """Draw how many answers took how long, with the median and the p99."""

    def draw(axes: Any) -> None:
        axes.hist(milliseconds, bins=min(_MOST_BINS, len(milliseconds)), color=_PLAIN, alpha=0.4)
        for name, value, colour in (("p50", p50_ms, _GOOD), ("p99", p99_ms, _BAD)):
            axes.axvline(value, color=colour, linestyle="--", label=f"{name} {value:.0f} ms")
        axes.set_xlim(left=0)
        axes.set_xlabel("milliseconds")
        axes.set_ylabel("answers")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)

    return _draw(draw, width=6, height=2.4)


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


def tuning_trials(trials: Sequence[Trial], best: Trial, metric: str) -> bytes:
    """Draw the objective against each hyperparameter that was searched, and the best so far over time."""
    judged = [trial for trial in trials if trial.objective is not None]
    names = sorted({name for trial in judged for name in trial.hyperparameters})

    def draw(axes: Any) -> None:
        panels = _panels(axes)
        for panel, name in zip(panels, names, strict=False):
            _scatter(panel, name, judged, best)
        panels[0].set_ylabel(metric)
        _best_so_far(panels[-1], judged, metric)

    return _draw(draw, width=2.8 * (len(names) + 1), height=2.8, columns=len(names) + 1)


def _scatter(panel: Any, name: str, trials: Sequence[Trial], best: Trial) -> None:
    values = [trial.hyperparameters[name].strip('"') for trial in trials]
    numbers = _numbers(values)
    chosen = sorted(set(values), key=float if numbers else str)
    few = len(chosen) <= _FEW and all(number.is_integer() for number in numbers)  # choices, and no range
    places = [float(chosen.index(value)) for value in values] if few or not numbers else numbers
    panel.plot(places, [trial.objective for trial in trials], "o", color=_PLAIN)
    panel.plot(places[[trial.name for trial in trials].index(best.name)], best.objective, "*", color=_GOOD, ms=14)
    if few:
        panel.set_xticks(range(len(chosen)), [short_number(value) for value in chosen], fontsize=8)
        panel.margins(x=0.3)
    elif _are_wide(places):
        panel.set_xscale("log")
    else:
        panel.locator_params(axis="x", nbins=4)
    if _are_wide([trial.objective or 0.0 for trial in trials]):
        panel.set_yscale("log")
    panel.set_xlabel(name)


def _are_wide(numbers: Sequence[float]) -> bool:
    return min(numbers) > 0 and max(numbers) > _WIDE * min(numbers)


def _best_so_far(panel: Any, trials: Sequence[Trial], metric: str) -> None:
    choose = min if metric.endswith("loss") else max
    ended = sorted((trial.ended_after_seconds or 0.0, trial.objective or 0.0) for trial in trials)
    best = [choose(value for _, value in ended[: i + 1]) for i in range(len(ended))]
    panel.step([seconds for seconds, _ in ended], best, where="post", color=_GOOD, marker=".")
    if _are_wide(best):
        panel.set_yscale("log")
    panel.set_xlabel("seconds")
    panel.set_title("best so far", fontsize=9)


def _numbers(texts: Sequence[str]) -> list[float]:
    """Return texts as numbers; none when one is not."""
    try:
        return [float(text) for text in texts]
    except ValueError:
        return []


def training_seconds(rows: Sequence[ComparedTraining]) -> bytes:
    """Draw where the time of each way of training went, one bar a way."""
    phases = {
        "start-up": [row.start_up_seconds for row in rows],
        "download": [row.download_seconds for row in rows],
        "training": [row.training_seconds for row in rows],
        "upload": [row.upload_seconds for row in rows],
    }

    def draw(axes: Any) -> None:
        left = [0.0] * len(rows)
        for (phase, seconds), colour in zip(phases.items(), ("#8c959f", _SECOND, _PLAIN, _GOOD), strict=True):
            axes.barh(range(len(rows)), seconds, left=left, label=phase, color=colour)
            left = [before + more for before, more in zip(left, seconds, strict=True)]
        axes.set_yticks(range(len(rows)), [f"{row.way}\n{row.machines}" for row in rows])
        axes.invert_yaxis()
        axes.set_xlabel("seconds")
        axes.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    return _draw(draw, width=8, height=1 + 0.6 * len(rows))


def load_levels(levels: Sequence[LoadLevel], held: LoadLevel, p99_ms: float) -> bytes:
    """Draw throughput and p99 over the number of callers, the p99 that was asked, and the level that held."""

    def draw(axes: Any) -> None:
        callers = [level.callers for level in levels]
        for panel, name in zip(axes, ("requests_per_second", "p99_ms"), strict=True):
            panel.plot(callers, [getattr(level, name) for level in levels], "o-", color=_PLAIN)
            panel.plot(held.callers, getattr(held, name), "*", color=_GOOD, ms=14, label="held")
            panel.set_xscale("log", base=2)
            panel.set_xticks(callers, callers)
            panel.set_ylim(0, 1.15 * max(getattr(level, name) for level in levels))
            panel.set_xlabel("callers")
        axes[0].set_title("requests per second")
        axes[1].set_title(f"p99, ms ({p99_ms:g} asked)")
        axes[1].axhline(p99_ms, color=_BAD, linestyle=":")  # in sight when it matters: near what was measured
        axes[1].legend(frameon=False)

    return _draw(draw, width=8, height=2.8, columns=2)


def scaling_timeline(load: Sequence[MinuteLoad], activities: Sequence[ScalingActivity], target: float) -> bytes:
    """Draw what each instance was asked, minute by minute, against its target; and below it how many there were."""
    steps = sorted((one.at, one.instances) for one in activities if one.instances is not None)
    times, changes = [minute.at for minute in load], [at for at, _count in steps]
    first, last = min([*times, *changes]), max([*times, *changes])

    def draw(axes: Any) -> None:
        asked, counted = axes
        asked.plot(times, [minute.invocations_per_instance for minute in load], color=_PLAIN, marker=".")
        asked.axhline(target, color=_GOOD, linestyle=":", label="target")
        asked.set_title("invocations per instance and minute")
        asked.legend(frameon=False)
        counts = [count for _at, count in steps]
        counted.step([*changes, last], [*counts, *counts[-1:]], where="post", color=_SECOND)
        counted.plot(changes, counts, color=_SECOND, marker="o", linestyle="")
        counted.yaxis.get_major_locator().set_params(integer=True)
        counted.set_ylim(bottom=0)
        counted.set_title("instances")
        for panel in axes:
            panel.set_xlim(first, last)
            panel.tick_params(axis="x", rotation=30)

    return _draw(draw, width=9, height=3, columns=2)


def _write_counts(axes: Any, confusion: Sequence[Sequence[int]]) -> None:
    darkest = max(max(row) for row in confusion)
    for i, row in enumerate(confusion):
        for j, count in enumerate(row):
            if count:
                axes.text(j, i, count, ha="center", va="center", color="white" if count > darkest / 2 else "black")


def _sheet(images: Sequence[LabelledImage], titles: Sequence[str], colours: Sequence[str]) -> bytes:
    from PIL import Image  # noqa: PLC0415 - a third of a second that only pictures need

    rows = -(-len(images) // _MOST_IN_A_ROW) or 1
    columns = -(-len(images) // rows) or 1  # rows of the same length

    def draw(axes: Any) -> None:
        for panel, image, title, colour in zip(_panels(axes), images, titles, colours, strict=False):
            with Image.open(io.BytesIO(image.body), formats=["PNG", "JPEG"]) as picture:
                panel.imshow(picture.convert("RGB"), interpolation="nearest")
            panel.set_title(_shorten(title), fontsize=8, color=colour)
        for panel in _panels(axes):
            panel.set_axis_off()

    return _draw(draw, width=_SIDE * columns, height=(_SIDE + 0.3) * rows, columns=columns, rows=rows)


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


def _draw(draw: Callable[[Any], None], width: float, height: float, columns: int = 1, rows: int = 1) -> bytes:
    """Return the PNG of a figure, inches wide and high."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - a second of import that only pictures need

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    draw(figure.subplots(rows, columns))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
