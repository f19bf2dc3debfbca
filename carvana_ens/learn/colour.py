"""Changes of colour that torchvision has not."""

from __future__ import annotations

import torch
from torch import Tensor


def hsv_added(image: Tensor, saturation: float, value: float) -> Tensor:
    """Adds to the S and to the V of HSV, each cut to [0, 1]; the hue stays.

    Args:
        image: (3, H, W) float RGB in [0, 1].
        saturation: what is added to S, in [-1, 1].
        value: what is added to V, in [-1, 1].

    Returns:
        (3, H, W) float. A gray pixel has no hue to be saturated with and stays gray (OpenCV's turns red).

    Source: A. R. Smith, Color Gamut Transform Pairs (SIGGRAPH 1978): V is the largest of R, G, B, and the distances to
    it are proportional to S.
    """
    if saturation == value == 0:
        return image
    top = image.amax(0)
    s = (top - image.amin(0)) / torch.where(top > 0, top, 1.0)
    more = torch.where(s > 0, (s + saturation).clamp(0, 1) / torch.where(s > 0, s, 1.0), 1.0)
    new_top = (top + value).clamp(0, 1)
    saturated = top - (top - image) * more
    return torch.where(top > 0, saturated * (new_top / torch.where(top > 0, top, 1.0)), new_top).clamp(0, 1)
