"""A feature pyramid network with a semantic branch."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

FINEST = 4
"""The finest stride that takes part."""


class FpnDecoder(nn.Module):
    """Features of every grid in one width, each improved by the coarser ones, all summed on the finest grid.

    A 1x1 convolution brings each map to one width, the coarser result, doubled by repeating pixels, is added, and a
    3x3 convolution smooths the sum. From there every grid is doubled, by a 3x3 convolution, group normalisation, ReLU
    and bilinear doubling at a time, up to the finest; the finest gets one such convolution without doubling. Their
    sum gives the logits by a 1x1 convolution, and these are brought to the photo's grid bilinearly.

    Args:
        channels: of the encoder's features, by stride; finer ones than 4 are left aside.
        pyramid: channels of the pyramid.
        branch: channels of the semantic branch.
        dropout: part of the branch's channels that training drops.

    Source: T.-Y. Lin et al. (arXiv 1612.03144), the pyramid; A. Kirillov et al. (arXiv 1901.02446), the branch. Both
        have 256 and 128 channels, and 32 groups.
    """

    def __init__(
        self, channels: Mapping[int, int], pyramid: int = 256, branch: int = 128, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.strides = sorted((stride for stride in channels if stride >= FINEST), reverse=True)
        self.finest = self.strides[-1]
        self.laterals = nn.ModuleList(nn.Conv2d(channels[stride], pyramid, 1) for stride in self.strides)
        self.smooth = nn.ModuleList(nn.Conv2d(pyramid, pyramid, 3, padding=1) for _ in self.strides)
        self.branches = nn.ModuleList(_branch(pyramid, branch, stride // self.finest) for stride in self.strides)
        self.head = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(branch, 1, 1))

    def forward(self, features: Mapping[int, Tensor]) -> Tensor:
        """Logits (N, 1, H, W) of the features (N, channels[s], H / s, W / s) by stride s."""
        joined = total = None
        for stride, lateral, smooth, branch in zip(
            self.strides, self.laterals, self.smooth, self.branches, strict=True
        ):
            own = lateral(features[stride])
            joined = own if joined is None else own + functional.interpolate(joined, own.shape[-2:], mode="nearest")
            level = branch(smooth(joined))
            total = level if total is None else total + level
        logits = self.head(total)
        return functional.interpolate(logits, scale_factor=self.finest, mode="bilinear", align_corners=False)


def _branch(inputs: int, outputs: int, enlarge: int) -> nn.Sequential:
    """From one level of the pyramid to the grid that is ``enlarge`` (a power of two) times finer."""
    layers: list[nn.Module] = []
    for number in range(max(1, enlarge.bit_length() - 1)):
        layers += [
            nn.Conv2d(outputs if number else inputs, outputs, 3, padding=1, bias=False),
            nn.GroupNorm(math.gcd(32, outputs), outputs),
            nn.ReLU(inplace=True),
        ]
        if enlarge > 1:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers)
