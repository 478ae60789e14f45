"""Small datasets on disk, drawn for the test."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """Encode a picture of noise; equal seeds give equal bytes."""

    def encode(seed: int, kind: str = "PNG", size: int = 8) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind)
        return buffer.getvalue()

    return encode


@pytest.fixture
def folder(tmp_path: Path, picture: Callable[..., bytes]) -> Callable[..., Path]:
    """Write files: a list of relative paths, each a picture of its own, or a dict with their bytes."""

    def write(files: list[str] | dict[str, bytes], name: str = "pets") -> Path:
        root = tmp_path / name
        bodies = files if isinstance(files, dict) else {path: picture(hash_of(path)) for path in files}
        for path, body in bodies.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(body)
        return root

    return write


def hash_of(path: str) -> int:
    return int.from_bytes(path.encode(), "big")


@pytest.fixture
def good_files() -> list[str]:
    """The smallest dataset that is fit for training."""
    return [
        f"{split}/{label}/{i}.png" for split in ("train", "valid", "test") for label in ("cat", "dog") for i in "12"
    ]
