"""Moving, turning and resizing layers of pixels, with a rule for what comes in from outside."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor
from torch.nn import functional

Fill = Literal["symmetric", "reflect", "edge", "zero"]
MODES = {"symmetric": "reflection", "reflect": "reflection", "edge": "border", "zero": "zeros"}
"""torch's name of each; which of the mirrors it is, is said by ``align_corners``. torchvision fills with one colour."""


def warped(
    layers: Tensor,
    zoom: float,
    angle: float,
    shift: tuple[float, float],
    centre: tuple[float, float],
    fill: Fill,
) -> Tensor:
    """Output pixel v, counted from the middle, is input pixel centre + R (v - shift) / zoom, bilinear.

    Args:
        layers: (C, H, W) float.
        zoom: above 1 enlarges.
        angle: degrees; above 0 turns anticlockwise.
        shift: (down, right), parts of height and width.
        centre: the input point that comes to the middle before the shift, likewise, from the middle.
        fill: beyond the input lies: symmetric: the input mirrored; reflect: mirrored, border pixels not repeated;
            edge: its border pixels; zero: 0.

    Returns:
        (C, H, W), the very same tensor where nothing moves.
    """
    if (zoom, angle, *shift, *centre) == (1.0, 0.0, 0.0, 0.0, 0.0, 0.0):
        return layers
    height, width = layers.shape[1:]
    aligned = fill == "reflect"
    # The distances that torch counts as 1: from the middle to the outer edge or to the middle of the border pixels.
    half_height, half_width = (max(side - aligned, 1) / 2 for side in (height, width))
    cos, sin = (part(math.radians(angle)) / zoom for part in (math.cos, math.sin))
    down, right = shift[0] * height, shift[1] * width
    from_left = centre[1] * width - cos * right + sin * down
    from_top = centre[0] * height - sin * right - cos * down
    theta = layers.new_tensor(
        [
            [cos, -sin * half_height / half_width, from_left / half_width],
            [sin * half_width / half_height, cos, from_top / half_height],
        ]
    )
    grid = functional.affine_grid(theta[None], [1, 1, height, width], align_corners=aligned)
    return functional.grid_sample(layers[None], grid, "bilinear", MODES[fill], align_corners=aligned)[0]
