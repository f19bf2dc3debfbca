"""Colours as networks see them, and changes of colour that torchvision has not."""

from __future__ import annotations

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""What red, green and blue add to brightness (ITU-R BT.601)."""


def coloured(images: Tensor, colour: str) -> Tensor:
    """(N, C, H, W) float as option ``colour`` says, of (N, 3, H, W) float RGB; C is 1 for gray and mean, else 3."""
    match colour:
        case "bgr":
            return images.flip(1)
        case "gray":
            return (images * images.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
        case "mean":
            return images.mean(1, keepdim=True)
        case "hsv":
            return hsv(images)
        case _:
            return images


def hsv(images: Tensor) -> Tensor:
    """Hue, saturation and value, each in [0, 1], of RGB in [0, 1]; both (N, 3, H, W) float. Gray has hue 0.

    Source: A. R. Smith, Color Gamut Transform Pairs (SIGGRAPH 1978), as scikit-image's rgb2hsv.
    """
    red, green, blue = images.unbind(1)
    value, spread = images.amax(1), images.amax(1) - images.amin(1)
    unit = torch.where(spread > 0, spread, 1)
    sixths = torch.where(
        value == red,
        (green - blue) / unit,
        torch.where(value == green, 2 + (blue - red) / unit, 4 + (red - green) / unit),
    )
    return torch.stack([sixths / 6 % 1, spread / torch.where(value > 0, value, 1), value], 1)


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
