"""Weights that are larger near the border of the object."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional


def border_weights(target: Tensor, side: int, rule: Literal["torch", "tensorflow"], limit: float) -> Tensor:
    """Weights w = 1 + 2 [limit <= a <= 1 - limit], scaled so that its mean over the whole batch is 1.

    a is the mean of the target over the square of ``side`` pixels around each pixel. Rule torch: the square is filled
    up with zeros beyond the photo, and the limits themselves are border; a photo whose object touches its rim has a
    border there. Rule tensorflow: a is the mean of the pixels inside the photo, and the limits are no border.

    Args:
        target: (N, 1, H, W) float in [0, 1].
        side: odd, at least 3.
        rule: see above.
        limit: above 0, below 0.5.

    Returns:
        (N, 1, H, W), of the target's precision.

    Source: the losses of asanakoy (Carvana's first place) and JunhongXu, by torch's average pooling, and of the Keras
    U-Nets, by TensorFlow's.
    """
    zeros = rule == "torch"
    mean = target
    for kernel in ((side, 1), (1, side)):  # the mean over a square is the mean of its rows' means
        padding = (kernel[0] // 2, kernel[1] // 2)
        mean = functional.avg_pool2d(mean, kernel, stride=1, padding=padding, count_include_pad=zeros)
    near = (mean >= limit) & (mean <= 1 - limit) if zeros else (mean > limit) & (mean < 1 - limit)
    weights = 1 + 2 * near.to(target.dtype)
    return weights * (weights.numel() / weights.sum())
