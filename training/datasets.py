"""Class folders, read into one array of small pictures for each split."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import DatasetError
from training.ranks import ALONE, Ranks
from training.report import SkippedFile
from training.serving.errors import ImageError
from training.serving.preprocessing import Resize, decode
from training.sharding import Share

_CHANNELS = 3
# Of the memory that is free: the pictures beyond it lie in a file that is mapped into memory.
_MEMORY_SHARE = 0.4
_CHUNK = 1024
_DIGESTS = 2**128
# The number of its class, `class/name`, and where it is.
_Found = tuple[int, str, Path]


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
    """Everything there is to learn from and to measure with.

    `splits` are the pictures that this rank holds, `shares` what those are of all; `skipped` is of all ranks, and
    `digests` tell whether they hold other files than an earlier time.
    """

    classes: tuple[str, ...]
    splits: dict[str, Pictures]
    shares: dict[str, Share]
    skipped: list[SkippedFile]
    digests: dict[str, list[str]]

    @property
    def counts(self) -> dict[str, int]:
        """Return how many pictures each split has, over all ranks."""
        return {split: share.total for split, share in self.shares.items()}


def find_classes(train: Path, ranks: Ranks = ALONE) -> tuple[str, ...]:
    """Return the names of all ranks' class folders, sorted: the place of a name is its class's number.

    Raises:
        DatasetError: There are fewer than two.
    """
    classes = tuple(sorted(set().union(*ranks.gather(_class_folders(train)))))
    if not classes:
        msg = f"{train} has no class folders: put the pictures of each class into a folder named after it"
        raise DatasetError(msg)
    if len(classes) == 1:
        msg = f"{train} has one class only, {classes[0]}: there is nothing to tell apart"
        raise DatasetError(msg)
    return classes


def load_dataset(
    folders: dict[str, Path],
    classes: tuple[str, ...],
    resize: Resize,
    workers: int,
    *,
    ranks: Ranks = ALONE,
    sharded: frozenset[str] = frozenset(),
) -> Dataset:
    """Read this rank's pictures of all splits; those that cannot be read are named in `skipped`.

    Of a split in `sharded` every host has other files, which its ranks divide. Of another all hosts have all files:
    every rank holds the whole of train, whose batches are divided later, and its slice of what is only measured.

    Raises:
        DatasetError: A split is empty, train has no readable pictures of a class, or lacks another split's class;
            or ranks that should have the same files have not.
    """
    dataset = Dataset(classes, {}, {}, [], {})
    for split, folder in folders.items():
        _check_classes(split, folder, classes)
        common = split == "train" and split not in sharded
        found = list(_files(folder, classes))
        own = found if common else _slice_of(found, ranks, shard=split in sharded)
        dataset.splits[split], skipped = _read_split(split, own, resize, workers)
        told = ranks.gather(_told(dataset.splits[split], classes, skipped))
        _take_in(dataset, split, told, Share(tuple(sum(one["counts"]) for one in told), ranks.rank, common))
        _check_counts(split, folder, told, dataset)
    return dataset


def channel_statistics(images: NDArray[np.uint8], ranks: Ranks = ALONE) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each colour over all pictures of the ranks, in 0..1."""
    counts = np.zeros((_CHANNELS, 256), np.int64)
    for start in range(0, len(images), _CHUNK):
        for channel in range(_CHANNELS):
            counts[channel] += np.bincount(images[start : start + _CHUNK, ..., channel].ravel(), minlength=256)
    # Where all ranks hold the same pictures they count each as often as any other: the shares are the same.
    counts = np.sum(ranks.gather(counts.tolist()), axis=0)
    shares, values = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = shares @ values
    std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(axis=1)).clip(min=1 / 255)
    return tuple(float(round(one, 6)) for one in mean), tuple(float(round(one, 6)) for one in std)


def _class_folders(folder: Path) -> list[str]:
    """Return the names of the class folders; a host without any shard of a channel may not even have the folder."""
    if not folder.is_dir():
        return []
    return [path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _check_classes(split: str, folder: Path, classes: tuple[str, ...]) -> None:
    strange = sorted(set(_class_folders(folder)) - set(classes))
    if strange:
        msg = f"{split} has classes that train lacks: {', '.join(strange)}"
        raise DatasetError(msg)


def _slice_of(found: list[_Found], ranks: Ranks, *, shard: bool) -> list[_Found]:
    """Return a rank's slice of the files: of its host's where hosts have shards, of all where they have the same."""
    cluster = ranks.cluster
    number, of = (
        (ranks.rank % cluster.processes_per_host, cluster.processes_per_host) if shard else (ranks.rank, ranks.size)
    )
    return found[len(found) * number // of : len(found) * (number + 1) // of]


def _told(pictures: Pictures, classes: tuple[str, ...], skipped: list[SkippedFile]) -> dict[str, Any]:
    """Return what the other ranks must know of this one's pictures."""
    return {
        "counts": np.bincount(pictures.labels, minlength=len(classes)).tolist(),
        "skipped": [[one.file, one.reason] for one in skipped],
        "files": _digest_of(pictures.files),
    }


def _digest_of(files: tuple[str, ...]) -> int:
    """Return a digest of the names; those of parts add up to that of the whole, however it was divided."""
    return sum(int.from_bytes(hashlib.sha256(file.encode()).digest()[:16]) for file in files) % _DIGESTS


def _take_in(dataset: Dataset, split: str, told: list[dict[str, Any]], share: Share) -> None:
    files = [one["files"] for one in told]
    if share.common and len(set(files)) > 1:
        msg = f"the instances have different {split} pictures, though each should have all of them"
        raise DatasetError(msg)
    if share.common:
        files = files[:1]
    elif split != "train":  # in training the steps depend on who holds what
        files = [sum(files) % _DIGESTS]
    dataset.digests[split] = [f"{one:032x}" for one in files]
    dataset.shares[split] = share
    for rank in told[:1] if share.common else told:
        dataset.skipped.extend(SkippedFile(*one) for one in rank["skipped"])


def _check_counts(split: str, folder: Path, told: list[dict[str, Any]], dataset: Dataset) -> None:
    skipped = dataset.skipped
    hint = (
        f"; {len(skipped)} files could not be read, such as {skipped[0].file}: {skipped[0].reason}" if skipped else ""
    )
    if not dataset.shares[split].total:
        msg = f"{folder} has no readable pictures for {split}{hint}"
        raise DatasetError(msg)
    counts = np.sum([one["counts"] for one in told], axis=0)
    empty = [name for name, count in zip(dataset.classes, counts, strict=True) if not count]
    if empty and split == "train":
        msg = f"train has no readable pictures of {', '.join(empty)}{hint}"
        raise DatasetError(msg)


def _files(folder: Path, classes: tuple[str, ...]) -> Iterator[_Found]:
    for number, name in enumerate(classes):
        for path in sorted((folder / name).rglob("*")):
            inside = path.relative_to(folder)
            if path.is_file() and not any(part.startswith(".") for part in inside.parts):
                yield number, inside.as_posix(), path


def _read_split(split: str, found: list[_Found], resize: Resize, workers: int) -> tuple[Pictures, list[SkippedFile]]:
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
