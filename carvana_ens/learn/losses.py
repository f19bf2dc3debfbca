"""What training minimises, and the Dice that validation reports."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def soft_dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - mean over photos of (2 I + 1) / (sum p + sum t + 1), with p = sigmoid(logits) and I = sum(p t).

    Args:
        logits: (N, 1, H, W) float.
        target: (N, 1, H, W) float in [0, 1].

    Returns:
        A scalar in [0, 1); an empty photo that is predicted empty costs nothing.

    Source: F. Milletari et al., V-Net (arXiv 1606.04797), per photo as in the LinkNet34 runs of Carvana's first
    place. Their smoothing, 2 (I + 1) / (sum p + sum t + 1), passes 1 and has to be clamped; 1 added to both sides of
    the fraction does not.
    """
    p = torch.sigmoid(logits).flatten(1)
    t = target.flatten(1)
    return (1 - (2 * (p * t).sum(1) + 1) / (p.sum(1) + t.sum(1) + 1)).mean()


def bce_dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy (mean over all pixels) plus ``soft_dice_loss``; shapes as there."""
    return functional.binary_cross_entropy_with_logits(logits, target) + soft_dice_loss(logits, target)


def summed_loss(maps: Sequence[Tensor], target: Tensor) -> Tensor:
    """Sum of ``bce_dice_loss`` over the logit maps of a deeply supervised network, all of one weight.

    Args:
        maps: (N, 1, h, w) float each, on grids of their own, one or more.
        target: (N, 1, H, W) float in [0, 1]. For a map on another grid it is resized: bilinear, corner pixel on corner
            pixel (``align_corners=True``, what torch did when this loss was made).

    Source: JunhongXu's RefineNet v6 for Carvana, which summed its losses over seven maps in this way.
    """
    return torch.stack([bce_dice_loss(logits, _resized(target, logits)) for logits in maps]).sum()


def _resized(target: Tensor, logits: Tensor) -> Tensor:
    grid = logits.shape[2:]
    same = target.shape[2:] == grid
    return target if same else functional.interpolate(target, size=grid, mode="bilinear", align_corners=True)


def hard_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Dice of each photo at probability 0.5: 2 TP / (2 TP + FP + FN), both empty = 1.

    Args:
        logits: (N, 1, H, W) float; a pixel is object when its logit is at least 0.
        target: (N, 1, H, W) bool.

    Returns:
        (N,) float32.
    """
    predicted = (logits >= 0).flatten(1)
    truth = target.flatten(1)
    both = (predicted & truth).sum(1)
    areas = predicted.sum(1) + truth.sum(1)
    return torch.where(areas > 0, 2 * both / areas.clamp(min=1), torch.ones_like(both, dtype=torch.float32))
