"""Read a folder of labelled pictures: train/valid/test/<class>/…, or <class>/… that is still to be split."""

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from tasks.aws.errors import DatasetError
from tasks.contracts import Split
from tasks.data.pictures import IMAGE_SUFFIXES, LocalImage, StagedDataset
from tasks.data.sentences import quantity, some

SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
}
LAYOUTS = "train/valid/test with one folder per class in each, or one folder per class"
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
# A class is a folder for S3, for the training machine and for this one; these characters break one of them.
_UNFIT_IN_LABELS = re.compile(r"[\x00-\x1f\x7f\\\ufffd]")


def scan(root: Path, name: str) -> StagedDataset:
    """List the pictures below a folder, in an order that does not depend on the disk.

    A folder called train makes it the layout with splits (so do valid and test alone); anything else is a folder of
    classes. Folders inside a class belong to the class. Hidden files and those of file managers do not count.

    Raises:
        DatasetError: There is no such folder, it has no folders, or its layout or class names are ambiguous.
    """
    class_folders = _class_folders(root)
    _check_labels(label for _, label, _ in class_folders)
    images: list[LocalImage] = []
    empty, unsupported = [], []
    for split, label, folder in class_folders:
        where = f"{split}/{label}" if split else label
        found = [(path, _text(path.relative_to(folder).as_posix())) for path in sorted(_files_below(folder))]
        pictures = [LocalImage(path=p, split=split, label=label, name=n) for p, n in found if is_image(n)]
        unsupported += [f"{where}/{name}" for _, name in found if not is_image(name)]
        images += pictures
        empty += [] if pictures else [where]
    return StagedDataset(
        name=name,
        root=root,
        images=tuple(sorted(images, key=lambda image: (image.split or "", image.label, image.name))),
        empty_folders=tuple(empty),
        unsupported_files=tuple(unsupported),
        stray_images=tuple(_stray_images(root)),
        ignored_folders=tuple(_ignored_folders(root)),
    )


def is_image(name: str) -> bool:
    """Tell whether a file name is one of a picture that we train on."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - keys of S3 are no paths


def is_hidden(name: str) -> bool:
    """Tell whether a name belongs to the system rather than to the dataset (.DS_Store, Thumbs.db, __MACOSX)."""
    return name.startswith(".") or name.lower() in _SYSTEM_FILES


def unfit_labels(labels: Iterator[str]) -> list[str]:
    """Return the class names that cannot be folder names everywhere, sorted."""
    return sorted({label for label in labels if _UNFIT_IN_LABELS.search(label)})


def _class_folders(root: Path) -> list[tuple[Split | None, str, Path]]:
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        msg = f"The dataset {root} {what}: give 'digits', 'dog-breeds', an s3:// URI, or a folder with {LAYOUTS}"
        raise DatasetError(msg)
    children = _subfolders(root)
    if not children:
        msg = f"The dataset {root} has no folders: arrange its pictures as {LAYOUTS}"
        raise DatasetError(msg)
    splits = _split_folders(root, children)
    if not splits:
        return [(None, _text(child.name), child) for child in children]
    return [(split, _text(f.name), f) for split, folder in splits.items() for f in _subfolders(folder)]


def _split_folders(root: Path, children: list[Path]) -> dict[Split, Path]:
    """Return the folders of the splits, none when the folder is one of classes."""
    named = [child for child in children if child.name in SPLIT_FOLDERS]
    if not (any(child.name == "train" for child in named) or len(named) == len(children)):
        return {}
    splits = {SPLIT_FOLDERS[child.name]: child for child in named}
    if len(splits) < len(named):
        names = some([child.name for child in named if SPLIT_FOLDERS[child.name] == "valid"])
        msg = f"The dataset {root} has more than one folder for validation ({names}): keep one"
        raise DatasetError(msg)
    return splits


def _check_labels(labels: Iterator[str]) -> None:
    if unfit := unfit_labels(labels):
        shown = some([ascii(label) for label in unfit])
        msg = (
            f"{quantity(len(unfit), 'class name')} with control characters or backslashes ({shown}): rename the folder"
        )
        raise DatasetError(msg)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not is_hidden(child.name))


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        yield from (Path(parent, name) for name in files if not is_hidden(name))


def _stray_images(root: Path) -> list[str]:
    """Return the pictures that lie where only folders should: in the root, or in a split beside its classes."""
    parents = [root, *_split_folders(root, _subfolders(root)).values()]
    files = (child for parent in parents for child in parent.iterdir() if child.is_file())
    return sorted(_text(f.relative_to(root).as_posix()) for f in files if is_image(f.name) and not is_hidden(f.name))


def _ignored_folders(root: Path) -> list[str]:
    children = _subfolders(root)
    used = _split_folders(root, children).values()
    return [_text(child.name) for child in children if used and child not in used]


def _text(name: str) -> str:
    """Return a file name as text that JSON and S3 can carry, spelled the same on every system."""
    # macOS decomposes umlauts, Linux does not; and Linux allows bytes that are no text at all.
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "replace"))
