"""From the bytes of a picture to what the network sees; training reads its pictures through this very code."""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import ImageError, TooManyPixelsError

# The largest common cameras take 61 million pixels; decoded that is 183 MB.
MAX_PIXELS = 64_000_000
FORMATS = ("JPEG", "PNG")
_INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_DRAFT_MARGIN = 2
# What Pillow's decoders raise at broken files, as found by feeding them thousands.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    struct.error,
    zlib.error,
)

# Pillow looks at this before it decodes anything, and so guards what is opened outside of this module too.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


@dataclass(frozen=True, slots=True)
class Resize:
    """How a picture becomes a square: the share `crop` of its middle, scaled to `size` pixels."""

    size: int
    crop: float = 1.0
    interpolation: str = "bilinear"


def decode(data: bytes, resize: Resize) -> NDArray[np.uint8]:
    """Return the picture upright, in RGB, cut to its middle square and resized: (size, size, 3).

    Raises:
        ImageError: The bytes are no JPEG or PNG, or a broken one.
        TooManyPixelsError: The header promises more pixels than MAX_PIXELS; nothing was decoded.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _refuse_giants(image.width, image.height)
            return _square(image, resize)
    except Image.DecompressionBombError:
        raise TooManyPixelsError(_too_many("the picture")) from None
    except UnidentifiedImageError:
        msg = "the picture is neither JPEG nor PNG"
        raise ImageError(msg) from None
    except _BROKEN as error:
        msg = f"the picture is broken: {error}"
        raise ImageError(msg) from error


def normalise(images: NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    """Return pictures (N, H, W, 3) as the network wants them: (N, 3, H, W), around 0."""
    scale = np.asarray([1 / (255 * one) for one in std], np.float32)
    shift = np.asarray([-one / other for one, other in zip(mean, std, strict=True)], np.float32)
    normalised = images.astype(np.float32) * scale + shift
    return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2))


def _refuse_giants(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise TooManyPixelsError(_too_many(f"the picture of {width} x {height}"))


def _too_many(what: str) -> str:
    return f"{what} has more than {MAX_PIXELS:,} pixels"


def _square(image: Image.Image, resize: Resize) -> NDArray[np.uint8]:
    # A JPEG can be decoded at a half, quarter or eighth of its size, much faster; twice the wanted size is enough.
    wanted = int(resize.size * _DRAFT_MARGIN / resize.crop)
    image.draft(None, (wanted, wanted))
    ImageOps.exif_transpose(image, in_place=True)
    upright = _rgb(image)
    side = min(upright.size) * resize.crop
    left, top = (upright.width - side) / 2, (upright.height - side) / 2
    # Cropping and resizing in one go: a picture of 1 x 20,000 pixels never becomes one of 224 x 4,480,000.
    box = (left, top, left + side, top + side)
    return np.asarray(upright.resize((resize.size, resize.size), _INTERPOLATIONS[resize.interpolation], box=box))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel: Pillow would clip all but the darkest to white
        grey: NDArray[Any] = np.asarray(image)
        image = Image.fromarray((grey >> 8).astype(np.uint8))
    return image.convert("RGB")
