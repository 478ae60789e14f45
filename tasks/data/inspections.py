"""Look at every picture of a dataset before any of it is uploaded."""

import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image, UnidentifiedImageError

from tasks.aws.errors import DatasetError
from tasks.contracts import DatasetSpec, Split
from tasks.data.findings import errors_in, sentence_of, warnings_in, warnings_of_folder
from tasks.data.pictures import CheckedImage, InspectedDataset, LocalImage, StagedDataset
from tasks.data.splits import assign_splits

# The limit up to which Pillow opens a picture without a warning; decoded, it takes 256 MB.
MOST_PIXELS = 89_478_485
MOST_BYTES = 100_000_000
_THREADS_PER_CORE = 2


def inspect(staged: StagedDataset, spec: DatasetSpec) -> InspectedDataset:
    """Decode and digest every picture, split them where they are not split yet, and judge the whole.

    Raises:
        DatasetError: The dataset is not fit for training; one sentence names everything that is wrong.
    """
    with ThreadPoolExecutor((os.cpu_count() or 1) * _THREADS_PER_CORE) as pool:
        outcomes = list(pool.map(_check, staged.images))
    checked = [(image, digest) for image, (digest, reason) in zip(staged.images, outcomes, strict=True) if not reason]
    unreadable = [
        f"{_folder_of(image)}/{image.name} ({reason})"
        for image, (_, reason) in zip(staged.images, outcomes, strict=True)
        if reason
    ]
    images = _split(checked, spec)
    emptied = {_folder_of(image) for image in staged.images} - {_folder_of(image) for image, _ in checked}
    # A picture that cannot be read is a warning, yet it is also why a folder may have none left: say which.
    empty = [f"{f} has only unreadable ones" for f in sorted(emptied)]
    if errors := errors_in(images, [*staged.empty_folders, *empty]):
        raise DatasetError(sentence_of(str(staged.root), errors))
    warnings = [*warnings_of_folder(staged, unreadable), *warnings_in(images)]
    return InspectedDataset(name=staged.name, root=staged.root, images=images, warnings=tuple(warnings))


def why_unfit(body: bytes) -> str:
    """Return why a file cannot be trained on, nothing when it can: a JPEG or PNG that decodes to its last byte."""
    try:
        with Image.open(io.BytesIO(body), formats=("JPEG", "PNG")) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                return f"{picture.width} x {picture.height} pixels are too many"
            picture.verify()
        with Image.open(io.BytesIO(body), formats=("JPEG", "PNG")) as picture:
            picture.load()
    except UnidentifiedImageError:
        return "neither JPEG nor PNG"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return "too many pixels"
    except Exception as error:  # noqa: BLE001 - decoders raise whatever broken bytes lead them into
        return _in_short(error)
    return ""


def _check(image: LocalImage) -> tuple[tuple[str, int], str]:
    """Return the digest and size of a file, and why it is unfit."""
    try:
        if image.path.stat().st_size > MOST_BYTES:
            return ("", 0), f"more than {MOST_BYTES // 1_000_000} MB"
        body = image.path.read_bytes()
    except OSError as error:
        return ("", 0), error.strerror or "unreadable"
    return (hashlib.sha256(body).hexdigest(), len(body)), why_unfit(body)


def _split(checked: Sequence[tuple[LocalImage, tuple[str, int]]], spec: DatasetSpec) -> tuple[CheckedImage, ...]:
    """Return the pictures with their splits.

    What is to be split is split by content: a file that is renamed stays where it was, and copies stay together.
    """
    digests_by_label: dict[str, list[str]] = defaultdict(list)
    for image, (digest, _) in checked:
        digests_by_label[image.label].append(digest)
    assigned: dict[str, dict[str, Split]] = {
        label: assign_splits(digests, spec) for label, digests in digests_by_label.items()
    }
    return tuple(
        CheckedImage(
            path=image.path,
            split=image.split or assigned[image.label][digest],
            label=image.label,
            name=image.name,
            sha256=digest,
            size_bytes=size,
        )
        for image, (digest, size) in checked
    )


def _folder_of(image: LocalImage) -> str:
    return f"{image.split}/{image.label}" if image.split else image.label


def _in_short(error: Exception) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0][:80]
