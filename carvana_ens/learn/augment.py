"""Random changes of photo and mask together: flip, shift, size, light, and the object's paint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from carvana_ens.learn.recipe import TorchOptions

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class Change:
    """What happens to one photo. flip: -1 or 1. zoom: above 1 enlarges. shift: (down, right), parts of height and
    width. brightness, contrast: factors. paint: RGB in [0, 1] with its opacity, or None.
    """

    flip: float
    zoom: float
    shift: tuple[float, float]
    brightness: float
    contrast: float
    paint: tuple[float, float, float, float] | None


def draw_change(options: TorchOptions, seed: int, epoch: int, index: int) -> Change:
    """The change of photo ``index`` in an epoch: a function of its arguments alone, so that a resumed run, another
    batch size or another reading order draws the same.
    """
    rng = np.random.default_rng((abs(seed), epoch, index))
    flip, zoom, down, right, bright, contrast, repaint = rng.random(7)
    red, green, blue = rng.random(3)
    paint = (float(red), float(green), float(blue), float(rng.uniform(0.0, 0.8)))
    return Change(
        flip=-1.0 if flip < options.hflip else 1.0,
        zoom=float((1 + options.scale) ** (2 * zoom - 1)),
        shift=(float((2 * down - 1) * options.shift), float((2 * right - 1) * options.shift)),
        brightness=float(1 + (2 * bright - 1) * options.brightness),
        contrast=float(1 + (2 * contrast - 1) * options.contrast),
        paint=paint if repaint < options.repaint else None,
    )


def augment(images: Tensor, masks: Tensor, changes: Sequence[Change]) -> tuple[Tensor, Tensor]:
    """Applies one change a photo.

    Args:
        images: (N, 3, H, W) float RGB in [0, 1].
        masks: (N, 1, H, W) float in [0, 1], the part of each pixel that is object.
        changes: N of them.

    Returns:
        Images and masks of the same shapes and ranges. What a shift brings in from outside is the photo mirrored at
        its border.
    """
    images = torch.stack([_repaint(i, m, c) for i, m, c in zip(images, masks, changes, strict=True)])
    warped = _warp(torch.cat([images, masks], 1), changes)
    return _light(warped[:, :3], changes), warped[:, 3:]


def _repaint(image: Tensor, mask: Tensor, change: Change) -> Tensor:
    if change.paint is None:
        return image
    *colour, opacity = change.paint
    return image + mask * opacity * (image.new_tensor(colour).view(3, 1, 1) - image)


def _warp(layers: Tensor, changes: Sequence[Change]) -> Tensor:
    rows = []
    for change in changes:  # maps output coordinates in [-1, 1] to where they come from
        down, right = change.shift
        rows.append(
            [
                [change.flip / change.zoom, 0, -2 * right / change.zoom * change.flip],
                [0, 1 / change.zoom, -2 * down / change.zoom],
            ]
        )
    theta = torch.tensor(rows, dtype=layers.dtype, device=layers.device)
    grid = functional.affine_grid(theta, list(layers.shape), align_corners=False)
    return functional.grid_sample(layers, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _light(images: Tensor, changes: Sequence[Change]) -> Tensor:
    brightness = images.new_tensor([c.brightness for c in changes]).view(-1, 1, 1, 1)
    contrast = images.new_tensor([c.contrast for c in changes]).view(-1, 1, 1, 1)
    mean = images.mean((1, 2, 3), keepdim=True)
    return ((images - mean) * contrast + mean).mul(brightness).clamp(0, 1)
