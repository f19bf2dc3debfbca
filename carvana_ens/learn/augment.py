"""Random changes of photo and mask together: flips, warps, light, colour, and the object's paint.

The changes are drawn here, so that each is a function of seed, epoch and photo; torchvision v2 makes what it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from carvana_ens.errors import TrainingError
from carvana_ens.learn.augment_options import AugmentOptions
from carvana_ens.learn.clahe import equalised_image
from carvana_ens.learn.colour import hsv_added
from carvana_ens.learn.warp import Fill, warped
from carvana_ens.types import Size


@dataclass(frozen=True)
class Change:
    """What happens to one photo.

    flip, updown: -1 or 1, left-right and up-down. zoom, angle, shift, centre, fill: see ``warp.warped``. brightness,
    contrast, saturation: factors. hue: degrees. hsv: what is added to S and V. paint: RGB in [0, 1] with its opacity,
    or None. gray, gray_object: photo or object turn gray. clahe: brightness is equalised. soft: the mask is not cut to
    0 and 1. window: the size of a part to cut out, or None; corner: where, (down, right) in [0, 1).
    """

    flip: float
    zoom: float
    shift: tuple[float, float]
    brightness: float
    contrast: float
    paint: tuple[float, float, float, float] | None
    updown: float = 1.0
    angle: float = 0.0
    centre: tuple[float, float] = (0.0, 0.0)
    fill: Fill = "symmetric"
    saturation: float = 1.0
    hue: float = 0.0
    hsv: tuple[float, float] = (0.0, 0.0)
    gray: bool = False
    gray_object: bool = False
    clahe: bool = False
    soft: bool = True
    window: Size | None = None
    corner: tuple[float, float] = (0.0, 0.0)


def draw_change(options: AugmentOptions, seed: int, epoch: int, index: int) -> Change:
    """The change of photo ``index`` in an epoch: a function of its arguments alone, so that a resumed run, another
    batch size or another reading order draws the same.

    Every number is drawn whether it is used or not: switching one change on leaves the others as they were.
    """
    rng = np.random.default_rng((abs(seed), epoch, index))
    flip, zoom, down, right, bright, contrast, repaint = rng.random(7).tolist()
    paint = (*rng.random(3).tolist(), rng.uniform(0.0, 0.8))
    vflip, warp, angle, crop, crop_down, crop_right, corner_down, corner_right = rng.random(8).tolist()
    light_bright, light_contrast, light_saturation, light_hsv = (rng.random(4) < options.light).tolist()
    saturation, hue, s, v, gray, gray_object, clahe = rng.random(7).tolist()

    least, most = options.sizes
    warps = warp < options.warp
    part = options.crop_part if crop < options.crop else 1.0
    return Change(
        flip=-1.0 if flip < options.hflip else 1.0,
        updown=-1.0 if vflip < options.vflip else 1.0,
        zoom=(least * (most / least) ** zoom if warps else 1.0) / part,
        angle=_swing(angle, options.rotation, warps),
        shift=(_swing(down, options.shift, warps), _swing(right, options.shift, warps)),
        centre=(_swing(crop_down, (1 - part) / 2), _swing(crop_right, (1 - part) / 2)),
        fill=options.fill,
        brightness=1 + _swing(bright, options.brightness, light_bright),
        contrast=1 + _swing(contrast, options.contrast, light_contrast),
        saturation=1 + _swing(saturation, options.saturation, light_saturation),
        hue=_swing(hue, options.hue, light_hsv),
        hsv=(_swing(s, options.hsv_saturation, light_hsv), _swing(v, options.value, light_hsv)),
        paint=paint if repaint < options.repaint else None,
        gray=gray < options.gray,
        gray_object=gray_object < options.gray_object,
        clahe=clahe < options.clahe,
        soft=options.soft_masks,
        window=options.window,
        corner=(corner_down, corner_right) if options.window else (0.0, 0.0),
    )


def _swing(drawn: float, limit: float, on: bool = True) -> float:
    """-limit to limit, from a number drawn in [0, 1)."""
    return (2 * drawn - 1) * limit if on and limit else 0.0


def augment(images: Tensor, masks: Tensor, changes: Sequence[Change]) -> tuple[Tensor, Tensor]:
    """Applies one change a photo.

    Args:
        images: (N, 3, H, W) float RGB in [0, 1].
        masks: (N, 1, H, W) float in [0, 1], the part of each pixel that is object.
        changes: N of them, all with the same window.

    Returns:
        Images and masks of the same ranges, and of the same shapes or of the window's.

    Raises:
        TrainingError: a window that is larger than the photos.
    """
    changed = [_changed(i, m, c) for i, m, c in zip(images, masks, changes, strict=True)]
    return torch.stack([image for image, _ in changed]), torch.stack([mask for _, mask in changed])


def _changed(image: Tensor, mask: Tensor, change: Change) -> tuple[Tensor, Tensor]:
    if change.clahe:
        image = _equalised(image)
    if change.gray_object:
        image = image + mask * (transforms.rgb_to_grayscale_image(image, 3) - image)
    if change.paint is not None:
        *colour, opacity = change.paint
        image = image + mask * opacity * (image.new_tensor(colour).view(3, 1, 1) - image)
    # One warp of four channels: torchvision would cut a mask of its own kind back to whole pixels.
    layers = torch.cat([image, mask])
    if change.flip < 0:
        layers = transforms.horizontal_flip_image(layers)
    if change.updown < 0:
        layers = transforms.vertical_flip_image(layers)
    layers = warped(layers, change.zoom, change.angle, change.shift, change.centre, change.fill)
    if change.window is not None:
        layers = _cut(layers, change.window, change.corner)
    image, mask = layers[:3], layers[3:]
    return _lit(image, change), mask if change.soft else (mask >= 0.5).to(mask.dtype)


def _equalised(image: Tensor) -> Tensor:
    levels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return torch.from_numpy(equalised_image(levels)).permute(2, 0, 1).to(image) / 255


def _cut(layers: Tensor, window: Size, corner: tuple[float, float]) -> Tensor:
    spare = [whole - own for whole, own in zip(layers.shape[1:], window, strict=True)]
    if min(spare) < 0:
        raise TrainingError(
            f"option patch is {window}, larger than photos of {Size(*layers.shape[1:])}: "
            "lower it, or give the member a larger size"
        )
    top, left = (int(part * (room + 1)) for part, room in zip(corner, spare, strict=True))
    cut: Tensor = transforms.crop_image(layers, top, left, *window)
    return cut


def _lit(image: Tensor, change: Change) -> Tensor:
    if change.contrast != 1:
        image = transforms.adjust_contrast_image(image, change.contrast)
    if change.brightness != 1:
        image = transforms.adjust_brightness_image(image, change.brightness)
    if change.saturation != 1:
        image = transforms.adjust_saturation_image(image, change.saturation)
    if change.hue:
        image = transforms.adjust_hue_image(image, change.hue / 360)
    image = hsv_added(image, *change.hsv)
    return transforms.rgb_to_grayscale_image(image, 3) if change.gray else image
