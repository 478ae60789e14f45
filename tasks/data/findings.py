"""What is wrong with a dataset, said in words; pure, and the same for pictures on disk and in S3."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from tasks.contracts import SPLITS
from tasks.data.pictures import Picture, StagedDataset, place_of
from tasks.data.sentences import quantity, some

_FEWEST_CLASSES = 2


def errors_in(pictures: Sequence[Picture], empty_folders: Sequence[str]) -> list[str]:
    """Return what makes a training impossible or its scores meaningless, each with what to do about it."""
    errors = []
    if empty_folders:
        folders = quantity(len(empty_folders), "class folder")
        errors.append(f"{folders} without usable pictures ({some(empty_folders)}), add pictures or remove the folder")
    if not pictures:
        return errors or ["it has no pictures, add JPEG or PNG files to its class folders"]
    labels = {split: {picture.label for picture in pictures if picture.split == split} for split in SPLITS}
    classes = sorted(set().union(*labels.values()))
    if len(classes) < _FEWEST_CLASSES:
        errors.append(f"it has only one class ({classes[0]}), a classifier needs at least two")
    if lacking := [split for split in SPLITS if not labels[split]]:
        errors.append(f"no pictures in {' and '.join(lacking)}, every split needs some")
    if labels["train"] and (unknown := [label for label in classes if label not in labels["train"]]):
        missing = quantity(len(unknown), "class", "classes")
        errors.append(
            f"{missing} missing from train ({some(unknown)}), add training pictures or remove them everywhere"
        )
    return errors


def warnings_in(pictures: Sequence[Picture]) -> list[str]:
    """Return what spoils a training or its scores without making it impossible."""
    return [*_leaks(pictures), *_contradictions(pictures), *_unmeasured_classes(pictures)]


def warnings_of_folder(staged: StagedDataset, unreadable: Sequence[str]) -> list[str]:
    """Return what was left out of a folder; unreadable pictures come with the reason in their names."""
    return [
        *_left_out("that cannot be decoded", "picture", unreadable),
        *_left_out("that are not JPEG or PNG by name", "file", staged.unsupported_files),
        *_left_out("outside the class folders", "picture", staged.stray_images),
        *_left_out("beside train, valid and test", "folder", staged.ignored_folders),
    ]


def sentence_of(subject: str, errors: Sequence[str]) -> str:
    """Return all errors of a dataset as one sentence."""
    return f"The dataset {subject} cannot be used: {'; '.join(errors)}. Nothing was uploaded"


def _left_out(why: str, noun: str, names: Sequence[str]) -> list[str]:
    return [f"Left out {quantity(len(names), noun)} {why}: {some(names)}"] if names else []


def _leaks(pictures: Sequence[Picture]) -> list[str]:
    leaks = _alike(pictures, lambda picture: picture.split)
    if not leaks:
        return []
    found = quantity(len(leaks), "picture")
    return [f"Found {found} in more than one split, which flatters the scores: {some(leaks)}"]


def _contradictions(pictures: Sequence[Picture]) -> list[str]:
    contradictions = _alike(pictures, lambda picture: picture.label)
    if not contradictions:
        return []
    found = quantity(len(contradictions), "picture")
    return [f"Found {found} in more than one class, so that labels contradict each other: {some(contradictions)}"]


def _unmeasured_classes(pictures: Sequence[Picture]) -> Iterable[str]:
    trained = {picture.label for picture in pictures if picture.split == "train"}
    for split in SPLITS[1:]:
        missing = sorted(trained - {picture.label for picture in pictures if picture.split == split})
        if missing:
            yield f"Found {quantity(len(missing), 'class', 'classes')} without pictures in {split}: {some(missing)}"


def _alike(pictures: Sequence[Picture], differ_in: Callable[[Picture], str]) -> list[str]:
    """Return the places of equal pictures that differ in something, each group as `place = place`."""
    groups: dict[str, dict[str, Picture]] = defaultdict(dict)
    for picture in pictures:
        groups[picture.sha256].setdefault(differ_in(picture), picture)
    return [" = ".join(place_of(picture) for picture in g.values()) for g in groups.values() if len(g) > 1]
