"""Random changes of photo and mask together: flip, shift, size, light, and the object's paint.

The changes are drawn here, so that each is a function of seed, epoch and photo; torchvision v2 makes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

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
    changed = [_changed(i, m, c) for i, m, c in zip(images, masks, changes, strict=True)]
    return torch.stack([image for image, _ in changed]), torch.stack([mask for _, mask in changed])


def _changed(image: Tensor, mask: Tensor, change: Change) -> tuple[Tensor, Tensor]:
    if change.paint is not None:
        *colour, opacity = change.paint
        image = image + mask * opacity * (image.new_tensor(colour).view(3, 1, 1) - image)
    # One warp of four channels: torchvision would cut a mask of its own kind back to whole pixels.
    layers = torch.cat([image, mask])
    if change.flip < 0:
        layers = transforms.horizontal_flip_image(layers)
    layers = _warped(layers, change)
    image = transforms.adjust_contrast_image(layers[:3], change.contrast)
    return transforms.adjust_brightness_image(image, change.brightness), layers[3:]


def _warped(layers: Tensor, change: Change) -> Tensor:
    """Zoom about the middle, then shift. torchvision fills what comes in from outside with one colour, so the photo
    is first mirrored as far out as the change reaches.
    """
    if (change.zoom, *change.shift) == (1.0, 0.0, 0.0):
        return layers
    height, width = layers.shape[1:]
    down, right = (part * side for part, side in zip(change.shift, (height, width), strict=True))
    margins = [
        min(math.ceil((side / 2 + abs(offset)) / change.zoom - side / 2) + 2, side)
        for side, offset in ((height, down), (width, right))
    ]
    above, beside = (max(margin, 0) for margin in margins)
    wide = transforms.pad_image(layers, [beside, above], padding_mode="symmetric")
    moved = transforms.affine_image(
        wide,
        angle=0.0,
        translate=[right, down],
        scale=change.zoom,
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )
    cropped: Tensor = transforms.center_crop_image(moved, [height, width])
    return cropped
