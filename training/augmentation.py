"""Random variations of a batch, with plain tensor operations: torchvision takes longer to import than this to run."""

import math

import torch
from torch import Tensor
from torch.nn import functional

# At strength 1.
_TURN_RADIANS = math.pi / 4
_SHIFT = 0.4  # of half the side
_ZOOM = 0.4
_SHEAR = 0.3
_LIGHT = 0.4
_LEAST_CONTRAST = 0.1


def augment(images: Tensor, strength: float, *, mirror: bool) -> Tensor:
    """Return each picture turned, moved, zoomed, sheared, lit and perhaps mirrored in its own random way.

    Args:
        images: Floats in 0..1 in the shape (N, 3, H, W).
        strength: 0 returns the pictures as they are, 1 is the most.
        mirror: Half of the pictures are mirrored left to right; a mirrored digit is not a digit any more.
    """
    if strength == 0:
        return images
    grid = functional.affine_grid(_maps(images, strength, mirror=mirror), list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return _lit(moved, strength)


def _maps(images: Tensor, strength: float, *, mirror: bool) -> Tensor:
    """Return one affine map for each picture, (N, 2, 3), from the new picture's coordinates to the old one's."""
    count = images.shape[0]
    turn, shear = _symmetric(images, count) * _TURN_RADIANS * strength, _symmetric(images, count) * _SHEAR * strength
    zoom = torch.exp(_symmetric(images, count) * _ZOOM * strength)
    side = torch.where(torch.rand(count, device=images.device) < 1 / 2, -1.0, 1.0) if mirror else torch.ones_like(zoom)
    shift = _symmetric(images, count, 2) * _SHIFT * strength
    cosine, sine = torch.cos(turn) * zoom, torch.sin(turn) * zoom
    top = torch.stack([side * cosine, side * (shear * cosine - sine), shift[:, 0]], dim=1)
    bottom = torch.stack([sine, shear * sine + cosine, shift[:, 1]], dim=1)
    return torch.stack([top, bottom], dim=1)


def _lit(images: Tensor, strength: float) -> Tensor:
    shape = (images.shape[0], 1, 1, 1)
    contrast = (1 + _symmetric(images, *shape) * _LIGHT * strength).clamp(min=_LEAST_CONTRAST)
    brightness = _symmetric(images, *shape) * _LIGHT / 2 * strength
    middle = images.mean(dim=(1, 2, 3), keepdim=True)
    return ((images - middle) * contrast + middle + brightness).clamp(0, 1)


def _symmetric(images: Tensor, *shape: int) -> Tensor:
    """Return random numbers in -1..1."""
    return torch.rand(shape, device=images.device) * 2 - 1
