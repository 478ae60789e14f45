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
_CHANCES = 8


def draw_chances(count: int, device: torch.device) -> Tensor:
    """Return what chance decides for each of `count` pictures: (count, 8) numbers in -1..1.

    They are drawn for a whole batch, also by a rank that has a part of it: who has which does not matter then.
    """
    return torch.rand((count, _CHANCES), device=device) * 2 - 1


def augment(images: Tensor, chances: Tensor, strength: float, *, mirror: bool) -> Tensor:
    """Return each picture turned, moved, zoomed, sheared, lit and perhaps mirrored in its own random way.

    Args:
        images: Floats in 0..1 in the shape (N, 3, H, W).
        chances: One row of draw_chances for each.
        strength: 0 returns the pictures as they are, 1 is the most.
        mirror: Half of the pictures are mirrored left to right; a mirrored digit is not a digit any more.
    """
    if strength == 0 or not len(images):
        return images
    turn, shear, zoom, across, down, contrast, brightness = (chances[:, :-1] * strength).unbind(dim=1)
    side = torch.where(chances[:, -1] < 0, -1.0, 1.0) if mirror else torch.ones_like(turn)
    maps = _maps(turn, shear, side, torch.exp(zoom * _ZOOM), torch.stack([across, down], dim=1) * _SHIFT)
    grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return _lit(moved, contrast, brightness)


def _maps(turn: Tensor, shear: Tensor, side: Tensor, zoom: Tensor, shift: Tensor) -> Tensor:
    """Return one affine map for each picture, (N, 2, 3), from the new picture's coordinates to the old one's."""
    turn, shear = turn * _TURN_RADIANS, shear * _SHEAR
    cosine, sine = torch.cos(turn) * zoom, torch.sin(turn) * zoom
    top = torch.stack([side * cosine, side * (shear * cosine - sine), shift[:, 0]], dim=1)
    bottom = torch.stack([sine, shear * sine + cosine, shift[:, 1]], dim=1)
    return torch.stack([top, bottom], dim=1)


def _lit(images: Tensor, contrast: Tensor, brightness: Tensor) -> Tensor:
    contrast = (1 + contrast * _LIGHT).clamp(min=_LEAST_CONTRAST).view(-1, 1, 1, 1)
    middle = images.mean(dim=(1, 2, 3), keepdim=True)
    return ((images - middle) * contrast + middle + brightness.view(-1, 1, 1, 1) * (_LIGHT / 2)).clamp(0, 1)
