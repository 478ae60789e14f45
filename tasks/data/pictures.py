"""The values of the local part: a dataset as found on disk, and as it is once every picture was looked at."""

from pathlib import Path
from typing import Protocol

from tasks.contracts import Split, Value

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


class Picture(Protocol):
    """What findings and digests need to know of a picture, wherever it lies."""

    @property
    def split(self) -> Split:
        """Return what it is used for."""

    @property
    def label(self) -> str:
        """Return its class."""

    @property
    def name(self) -> str:
        """Return its path below the class folder."""

    @property
    def sha256(self) -> str:
        """Return what identifies its content."""


class LocalImage(Value):
    """A file that claims to be a picture; its split is None until one was assigned to it."""

    path: Path
    split: Split | None
    label: str
    name: str


class StagedDataset(Value):
    """A folder of pictures as it was found, with all that was strange about it."""

    name: str
    root: Path
    images: tuple[LocalImage, ...]
    empty_folders: tuple[str, ...] = ()
    unsupported_files: tuple[str, ...] = ()
    stray_images: tuple[str, ...] = ()
    ignored_folders: tuple[str, ...] = ()


class CheckedImage(Value):
    """A picture that was read and decoded in full."""

    path: Path
    split: Split
    label: str
    name: str
    sha256: str
    size_bytes: int


class InspectedDataset(Value):
    """A dataset that is fit for training; warnings are sentences for people."""

    name: str
    root: Path
    images: tuple[CheckedImage, ...]
    warnings: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names, sorted."""
        return tuple(sorted({image.label for image in self.images}))


def place_of(picture: Picture) -> str:
    """Return how a picture is named to people: split/class/name."""
    return f"{picture.split}/{picture.label}/{picture.name}"
