"""What training minimises, and the Dice that validation reports.

Below, z are the logits, t the target, p = sigmoid(z), w the border weights (1 without), I = sum(w^2 p t) and
S = sum(w^2 p) + sum(w^2 t), over one photo or over the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from carvana_ens.errors import TrainingError
from carvana_ens.learn.borders import border_weights
from carvana_ens.learn.loss_options import LossOptions, border_side, parse_loss

PLAIN = LossOptions()
TINY = 1e-15
"""Keeps the ratios of empty photos from 0 / 0; ternaus's number."""

Term: TypeAlias = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""z, t, w (N, 1, H, W) to a scalar; w None: no border weights."""


def summed_loss(maps: Sequence[Tensor], target: Tensor, options: LossOptions = PLAIN) -> Tensor:
    """Sum of the loss over the logit maps of a deeply supervised network, all of one weight.

    Args:
        maps: (N, 1, h, w) float each, on grids of their own, one or more. Half precision is computed in float32.
        target: (N, 1, H, W) float in [0, 1]. For a map on another grid it is resized: bilinear, corner pixel on corner
            pixel (``align_corners=True``, what torch did when this loss was made).
        options: which loss.

    Returns:
        A scalar.

    Source: JunhongXu's RefineNet v6 for Carvana, which summed its losses over seven maps in this way.
    """
    return torch.stack([one_loss(logits, _resized(target, logits), options) for logits in maps]).sum()


def one_loss(logits: Tensor, target: Tensor, options: LossOptions) -> Tensor:
    """The weighted sum of the terms that the options name, for one map; see ``summed_loss``.

    Args:
        logits: (N, 1, H, W) float.
        target: (N, 1, H, W) float in [0, 1].
        options: which terms; ``border=auto`` goes by H.
    """
    half = logits.dtype in (torch.float16, torch.bfloat16)
    logits = logits.float() if half else logits
    target = target.to(logits.dtype)
    side = border_side(options.border, logits.shape[2])
    weights = border_weights(target, side, options.border_rule, options.border_limit) if side else None
    parts = [factor * TERMS[name](logits, target, weights) for name, factor in parse_loss(options.loss).items()]
    return torch.stack(parts).sum()


def _resized(target: Tensor, logits: Tensor) -> Tensor:
    grid = logits.shape[2:]
    same = target.shape[2:] == grid
    return target if same else functional.interpolate(target, size=grid, mode="bilinear", align_corners=True)


def _bce(z: Tensor, t: Tensor, w: Tensor | None) -> Tensor:
    """sum(w (-t log p - (1 - t) log(1 - p))) / sum(w).

    Source: asanakoy, JunhongXu; without border weights albu, ternaus and eugenbobrov.
    """
    return functional.binary_cross_entropy_with_logits(z, t, w)  # a mean over pixels: that of w is 1


def _bce_positive(z: Tensor, t: Tensor, w: Tensor | None) -> Tensor:
    """sum(-w t log p - (1 - t) log(1 - p)) / sum(w).

    Source: the Keras U-Nets, where TensorFlow's ``weighted_cross_entropy_with_logits`` takes w as its weight of
    positives. They cut p at 1e-7, for want of logits; beyond that theirs has no gradient, this one has.
    """
    return functional.binary_cross_entropy_with_logits(z, t, pos_weight=w)


def _sums(z: Tensor, t: Tensor, w: Tensor | None, batch: bool) -> tuple[Tensor, Tensor]:
    """I and S, (N,) by photo or (1,) over the batch."""
    p = torch.sigmoid(z)
    both, each = p * t, p + t
    if w is not None:
        both, each = w * w * both, w * w * each
    shape = (1 if batch else len(z), -1)
    return both.reshape(shape).sum(1), each.reshape(shape).sum(1)


def _dice(z: Tensor, t: Tensor, w: Tensor | None, *, batch: bool) -> Tensor:
    """1 - mean of (2 I + 1) / (S + 1): in [0, 1), and an empty photo that is predicted empty costs nothing.

    Source: F. Milletari et al., V-Net (arXiv 1606.04797), with 1 added to both sides of the fraction; over the batch
    as the Keras U-Nets and eugenbobrov have it.
    """
    both, each = _sums(z, t, w, batch)
    return (1 - (2 * both + 1) / (each + 1)).mean()


def _dice_plus_score(z: Tensor, t: Tensor, w: Tensor | None) -> Tensor:
    """Mean over photos of 2 (I + 1) / (S + 1): above 0, and up to 2 for empty photos."""
    both, each = _sums(z, t, w, batch=False)
    return (2 * (both + 1) / (each + 1)).mean()


def _dice_plus(z: Tensor, t: Tensor, w: Tensor | None) -> Tensor:
    """1 - the score. Source: asanakoy."""
    return 1 - _dice_plus_score(z, t, w)


def _dice_clamp(z: Tensor, t: Tensor, w: Tensor | None) -> Tensor:
    """1 - the score, cut to [0, 1]. Source: albu, without border weights."""
    return 1 - _dice_plus_score(z, t, w).clamp(0, 1)


def _log_dice_plus(z: Tensor, t: Tensor, w: Tensor | None) -> Tensor:
    """-log of the score. Source: asanakoy's log-Dice option."""
    return -torch.log(_dice_plus_score(z, t, w))


def _log_dice(z: Tensor, t: Tensor, w: Tensor | None) -> Tensor:
    """-log((2 I + 1e-15) / (S + 1e-15)) over the batch.

    Source: ternaus, without border weights; there 1e-15 stands under the fraction only, and a batch without object
    costs infinity.
    """
    both, each = _sums(z, t, w, batch=True)
    return (torch.log(each + TINY) - torch.log(2 * both + TINY)).mean()


def _iou(z: Tensor, t: Tensor, w: Tensor | None) -> Tensor:  # noqa: ARG001 - a term that has no border weights
    """1 - sum(p t) / sum(p + t - p t) over the batch, with t > 0.5 as 1; nothing where nothing lies costs nothing.

    Source: JunhongXu.
    """
    p, truth = torch.sigmoid(z), (t > 0.5).to(z.dtype)
    both = p * truth
    return 1 - (both.sum() + TINY) / ((p + truth - both).sum() + TINY)


def _focal(z: Tensor, t: Tensor, w: Tensor | None) -> Tensor:  # noqa: ARG001 - as above
    """Mean of -a (1 - q)^2 log q, q the probability of the truth, a 0.25 for the object and 0.75 for the rest.

    Source: T.-Y. Lin et al., Focal Loss (arXiv 1708.02002), as torchvision has it.
    """
    loss: Tensor = sigmoid_focal_loss(z, t, alpha=0.25, gamma=2, reduction="mean")
    return loss


def _focal_positive(z: Tensor, t: Tensor, w: Tensor | None) -> Tensor:  # noqa: ARG001 - as above
    """Mean of -t (1 - p)^0.5 log p. Source: JunhongXu."""
    return -(t * torch.exp(0.5 * functional.logsigmoid(-z)) * functional.logsigmoid(z)).mean()


TERMS: dict[str, Term] = {
    "bce": _bce,
    "bce-positive": _bce_positive,
    "dice": partial(_dice, batch=False),
    "dice-batch": partial(_dice, batch=True),
    "dice-plus": _dice_plus,
    "dice-clamp": _dice_clamp,
    "log-dice": _log_dice,
    "log-dice-plus": _log_dice_plus,
    "iou": _iou,
    "focal": _focal,
    "focal-positive": _focal_positive,
}
"""Every term of ``loss_options.TERMS``."""


def hard_dice(logits: Tensor, target: Tensor, rim: int = 0) -> Tensor:
    """Dice of each photo at probability 0.5: 2 TP / (2 TP + FP + FN), both empty = 1.

    Args:
        logits: (N, 1, H, W) float; a pixel is object when its logit is at least 0.
        target: (N, 1, H, W) bool.
        rim: so many pixels along each side are left out, as albu did with 6.

    Returns:
        (N,) float32.

    Raises:
        TrainingError: the rim is the whole photo.
    """
    height, width = target.shape[2:]
    if 2 * rim >= min(height, width):
        raise TrainingError(f"option dice_rim is {rim} and leaves nothing of photos of {height}x{width}: lower it")
    inner = (..., slice(rim, height - rim), slice(rim, width - rim))
    predicted = (logits[inner] >= 0).flatten(1)
    truth = target[inner].flatten(1)
    both = (predicted & truth).sum(1)
    areas = predicted.sum(1) + truth.sum(1)
    return torch.where(areas > 0, 2 * both / areas.clamp(min=1), torch.ones_like(both, dtype=torch.float32))
