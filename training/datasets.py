"""Class folders, read into one array of small pictures for each split."""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.errors import DatasetError
from training.report import SkippedFile
from training.serving.errors import ImageError
from training.serving.preprocessing import Resize, decode

_CHANNELS = 3
# Of the memory that is free: the pictures beyond it lie in a file that is mapped into memory.
_MEMORY_SHARE = 0.4
_CHUNK = 1024


@dataclass(frozen=True, slots=True)
class Pictures:
    """The readable pictures of a split: (N, size, size, 3) bytes, and of each its class and its `class/name`."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    files: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Everything there is to learn from and to measure with."""

    classes: tuple[str, ...]
    splits: dict[str, Pictures]
    skipped: tuple[SkippedFile, ...]


def find_classes(train: Path) -> tuple[str, ...]:
    """Return the names of the class folders, sorted: the place of a name is its class's number.

    Raises:
        DatasetError: There are fewer than two.
    """
    classes = tuple(sorted(path.name for path in train.iterdir() if path.is_dir() and not path.name.startswith(".")))
    if not classes:
        msg = f"{train} has no class folders: put the pictures of each class into a folder named after it"
        raise DatasetError(msg)
    if len(classes) == 1:
        msg = f"{train} has one class only, {classes[0]}: there is nothing to tell apart"
        raise DatasetError(msg)
    return classes


def load_dataset(folders: dict[str, Path], classes: tuple[str, ...], resize: Resize, workers: int) -> Dataset:
    """Read all pictures of all splits; those that cannot be read are named in `skipped`.

    Raises:
        DatasetError: A split is empty, train has no readable pictures of a class, or lacks another split's class.
    """
    splits: dict[str, Pictures] = {}
    skipped: list[SkippedFile] = []
    for split, folder in folders.items():
        _check_classes(split, folder, classes)
        splits[split], bad = _read_split(split, folder, classes, resize, workers)
        skipped += bad
    _check_counts(splits, classes, folders, skipped)
    return Dataset(classes, splits, tuple(skipped))


def channel_statistics(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each colour over all pictures, in 0..1."""
    counts = np.zeros((_CHANNELS, 256), np.int64)
    for start in range(0, len(images), _CHUNK):
        for channel in range(_CHANNELS):
            counts[channel] += np.bincount(images[start : start + _CHUNK, ..., channel].ravel(), minlength=256)
    shares, values = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = shares @ values
    std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(axis=1)).clip(min=1 / 255)
    return tuple(float(round(one, 6)) for one in mean), tuple(float(round(one, 6)) for one in std)


def _check_classes(split: str, folder: Path, classes: tuple[str, ...]) -> None:
    found = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    strange = sorted(found - set(classes))
    if strange:
        msg = f"{split} has classes that train lacks: {', '.join(strange)}"
        raise DatasetError(msg)


def _check_counts(
    splits: dict[str, Pictures], classes: tuple[str, ...], folders: dict[str, Path], skipped: list[SkippedFile]
) -> None:
    hint = (
        f"; {len(skipped)} files could not be read, such as {skipped[0].file}: {skipped[0].reason}" if skipped else ""
    )
    for split, pictures in splits.items():
        if not len(pictures):
            msg = f"{folders[split]} has no readable pictures for {split}{hint}"
            raise DatasetError(msg)
    counts = Counter(splits["train"].labels.tolist())
    empty = [name for number, name in enumerate(classes) if not counts[number]]
    if empty:
        msg = f"train has no readable pictures of {', '.join(empty)}{hint}"
        raise DatasetError(msg)


def _files(folder: Path, classes: tuple[str, ...]) -> Iterator[tuple[int, str, Path]]:
    for number, name in enumerate(classes):
        for path in sorted((folder / name).rglob("*")):
            inside = path.relative_to(folder)
            if path.is_file() and not any(part.startswith(".") for part in inside.parts):
                yield number, inside.as_posix(), path


def _read_split(
    split: str, folder: Path, classes: tuple[str, ...], resize: Resize, workers: int
) -> tuple[Pictures, list[SkippedFile]]:
    found = list(_files(folder, classes))
    images = _room_for(len(found), resize.size)

    def read(place: int) -> str | None:
        try:
            images[place] = decode(found[place][2].read_bytes(), resize)
        except (ImageError, OSError) as error:
            return str(error)
        return None

    with ThreadPoolExecutor(workers) as pool:
        reasons = list(pool.map(read, range(len(found)), chunksize=1))
    good = [place for place, reason in enumerate(reasons) if reason is None]
    skipped = [SkippedFile(f"{split}/{found[place][1]}", reason) for place, reason in enumerate(reasons) if reason]
    for after, before in enumerate(good):  # closes the gaps in place: a copy of all may not fit into memory
        if after != before:
            images[after] = images[before]
    labels = np.asarray([found[place][0] for place in good], np.int64)
    return Pictures(images[: len(good)], labels, tuple(found[place][1] for place in good)), skipped


def _room_for(count: int, size: int) -> NDArray[np.uint8]:
    """Return an array in memory if it fits, and in a temporary file that is gone with the process if it does not."""
    shape = (count, size, size, _CHANNELS)
    needed = int(np.prod(shape))
    if needed <= _free_memory_bytes() * _MEMORY_SHARE:
        return np.zeros(shape, np.uint8)
    scratch = tempfile.gettempdir()
    free = shutil.disk_usage(scratch).free
    if needed > free:
        msg = f"{count} pictures of {size} pixels take {needed / 1e9:.1f} GB, {scratch} has {free / 1e9:.1f} GB"
        raise DatasetError(msg)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.uint8, "w+", shape=shape)


def _free_memory_bytes() -> int:
    name = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"  # macOS has the second only
    return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")
