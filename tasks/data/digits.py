"""The handwritten digits that scikit-learn ships, as PNG files: 1,797 real pictures that need no network."""

import shutil
import tempfile
from pathlib import Path

from PIL import Image

from tasks.contracts import DatasetSpec
from tasks.data.locks import alone
from tasks.data.splits import assign_splits

DIGITS = 1797
_BRIGHTEST = 16


def write_digits(spec: DatasetSpec, workspace: Path) -> Path:
    """Write the digits as 8x8 greyscale PNGs in train/valid/test class folders and return the folder.

    Every call with the same split finds the folder of the first; it appears under its name only when it is complete.
    """
    folder = workspace / f"digits-{spec.seed}-{spec.valid_fraction:g}-{spec.test_fraction:g}"
    with alone(workspace / "digits.lock"):
        if sum(1 for _ in folder.glob("*/*/digit-*.png")) != DIGITS:
            shutil.rmtree(folder, ignore_errors=True)  # it has lost files
            with tempfile.TemporaryDirectory(dir=workspace, prefix=".digits-") as scratch:
                _write(spec, Path(scratch, "digits"))
                Path(scratch, "digits").rename(folder)
    return folder


def _write(spec: DatasetSpec, folder: Path) -> None:
    from sklearn.datasets import load_digits  # noqa: PLC0415 - takes 1.3 s to import

    digits = load_digits()
    pixels = (digits.images * (255 / _BRIGHTEST)).round().astype("uint8")
    names_by_label: dict[str, list[str]] = {}
    for index, label in enumerate(digits.target):
        names_by_label.setdefault(str(label), []).append(f"digit-{index:04d}")
    for label, names in names_by_label.items():
        for name, split in assign_splits(names, spec).items():
            path = folder / split / label / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            # Stored, not deflated: compressors differ between machines, and the bytes decide the dataset's digest.
            Image.fromarray(pixels[int(name.removeprefix("digit-"))]).save(path, compress_level=0)
