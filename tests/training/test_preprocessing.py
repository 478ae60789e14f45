"""Preprocessing: what the network sees is the same whoever reads the picture, and hostile files do no harm."""

import contextlib
import io

import numpy as np
import pytest
from PIL import Image

from training.serving.errors import ImageError, TooManyPixelsError
from training.serving.preprocessing import Resize, decode, normalise


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int, height: int, enlarged: int = 4) -> Image.Image:
    pixels = np.random.default_rng(5).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(pixels).resize((width * enlarged, height * enlarged), Image.Resampling.BICUBIC)


def test_the_same_as_torchvisions_transform_for_its_weights() -> None:
    """The weights were trained with resize, centre crop, scale and normalise, in this order."""
    from torchvision.models import ResNet18_Weights

    image = noise(16, 12, enlarged=32)
    wanted = ResNet18_Weights.DEFAULT.transforms(antialias=True)
    expected = wanted(image).numpy()
    ours = normalise(
        decode(encoded(image), Resize(224, 224 / 256, "bilinear"))[None], tuple(wanted.mean), tuple(wanted.std)
    )
    assert ours.shape == (1, *expected.shape)
    # In units of a standard deviation; a level of 8 bits is 0.017.
    assert np.abs(ours[0] - expected).mean() < 0.05


def test_a_picture_is_put_upright_as_its_camera_says() -> None:
    image = Image.new("RGB", (40, 40), "red")
    image.paste("blue", (0, 0, 40, 20))  # blue above
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    pixels = decode(encoded(image, "JPEG", quality=95, exif=exif), Resize(8))
    assert pixels[0, 0, 0] > 200, "red is above now"
    assert pixels[-1, 0, 2] > 200


def test_sixteen_bits_a_pixel_are_not_clipped_to_white() -> None:
    grey = Image.fromarray(np.full((20, 20), 128 * 256, np.uint16))
    assert decode(encoded(grey), Resize(8)).tolist() == np.full((8, 8, 3), 128).tolist()


def test_a_large_jpeg_decoded_small_is_nearly_the_same_picture() -> None:
    image = noise(300, 300)
    whole, small = decode(encoded(image), Resize(32)), decode(encoded(image, "JPEG", quality=95), Resize(32))
    assert np.abs(whole.astype(int) - small.astype(int)).mean() < 6


def test_a_picture_of_one_pixel_in_height_is_no_burden() -> None:
    assert decode(encoded(Image.new("RGB", (60_000, 1))), Resize(1024)).shape == (1024, 1024, 3)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [8_001, 20_000])
def test_too_many_pixels_are_refused_before_decoding(side: int) -> None:
    body = encoded(Image.new("1", (side, side)))
    with pytest.raises(TooManyPixelsError, match="more than 64,000,000 pixels"):
        decode(body, Resize(8))


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP"])
def test_only_jpeg_and_png_are_decoded(kind: str) -> None:
    """Every decoder that is not there cannot be attacked."""
    with pytest.raises(ImageError, match="neither JPEG nor PNG"):
        decode(encoded(Image.new("RGB", (9, 9)), kind), Resize(8))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_damaged_picture_is_read_or_refused_and_nothing_else(kind: str) -> None:
    random = np.random.default_rng(11)
    whole = encoded(noise(16, 16), kind)
    for _ in range(300):
        damaged = bytearray(whole[: random.integers(1, len(whole) + 1)])
        for place in random.integers(0, len(damaged), random.integers(0, 8)):
            damaged[place] = random.integers(0, 256)
        with contextlib.suppress(ImageError):
            assert decode(bytes(damaged), Resize(8)).shape == (8, 8, 3)
