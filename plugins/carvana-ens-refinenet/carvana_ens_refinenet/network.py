"""Versions 1 to 5: one decoder, five plans of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from carvana_ens_refinenet.encoder import VGG, Encoder

MIDDLE = 1024
"""Channels of the layer between encoder and decoder."""


def conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    """Convolution on one grid, normalisation, ReLU."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def doubling() -> nn.Upsample:
    """Bilinear doubling with corner pixel on corner pixel, which is what bilinear meant in the torch of 2017."""
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)


class Unit(nn.Module):
    """Two 3x3 convolutions and a projection of the input, each normalised, added; ReLU before and after the sum."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(conv(inputs, outputs), conv(outputs, outputs))
        self.projection = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(N, outputs, H, W) of (N, inputs, H, W)."""
        return functional.relu(self.convs(x) + self.projection(x))


def _units(width: int, widths: Sequence[int]) -> nn.Sequential:
    return nn.Sequential(*(Unit(before, after) for before, after in pairwise([width, *widths])))


class Join(nn.Module):
    """Units, doubling if the encoder's features of this step lie on a finer grid, and these features.

    Args:
        width: channels from below.
        units: channels of the units.
        channels: of the encoder's features.
        kernel: of the layer that they go through first, 0 for none.
        adds: they are added; else they are concatenated, after such a layer in front of the others.
    """

    def __init__(self, width: int, units: Sequence[int], channels: int, kernel: int, adds: bool) -> None:
        super().__init__()
        self.adds, self.in_front = adds, kernel > 0
        self.units = _units(width, units)
        self.doubling = doubling()
        refined = [width, *units][-1]
        skipped = refined if adds else channels
        self.skip = conv(channels, skipped, kernel) if kernel else nn.Identity()
        self.width = refined if adds else refined + skipped

    def forward(self, x: Tensor, feature: Tensor) -> Tensor:
        """(N, self.width, H, W) of (N, width, H, W) or half that grid, and features (N, channels, H, W)."""
        x = self.units(x)
        if x.shape[2:] != feature.shape[2:]:
            x = self.doubling(x)
        skipped = self.skip(feature)
        if self.adds:
            return x + skipped
        return torch.cat([skipped, x] if self.in_front else [x, skipped], 1)


@dataclass(frozen=True)
class Plan:
    """What tells versions 1 to 5 apart.

    encoder: a key of ENCODERS. middle: kernel size of the layer after it. pooled: that layer ends in 2x2 max pooling,
    and the encoder's coarsest features are joined like the others. units: channels of the units before each join, and
    after the last. kernel: of the joins. added: so many of the joins, the finest, add. head: channels of the last
    layers.
    """

    encoder: str
    middle: int
    pooled: bool
    units: tuple[tuple[int, ...], ...]
    kernel: int
    added: int
    head: tuple[int, ...]


class RefineNet(nn.Module):
    """RefineNet, versions 1 to 5: units refine, and the encoder's features are joined, from coarse to fine.

    Source: refinenet.py of JunhongXu/kaggle-carvana-car-masking.
    """

    def __init__(self, plan: Plan, colours: int) -> None:
        super().__init__()
        self.encoder = Encoder(plan.encoder, colours, divisor=64 if plan.pooled else 32)
        *fine, coarsest = self.encoder.channels
        joined = [coarsest, *reversed(fine)] if plan.pooled else list(reversed(fine))
        self.middle = nn.Sequential(conv(coarsest, MIDDLE, plan.middle))
        if plan.pooled:
            self.middle.append(nn.MaxPool2d(2))
        self.joins = nn.ModuleList()
        width = MIDDLE
        *units, last = plan.units
        for number, (widths, channels) in enumerate(zip(units, joined, strict=True)):
            join = Join(width, widths, channels, plan.kernel, adds=number >= len(joined) - plan.added)
            self.joins.append(join)
            width = join.width
        head = [[width, *last][-1], *plan.head]
        # The features of the finest join lie 4 pixels apart in a ResNet, 2 in VGG.
        doubled = [] if self.encoder.taps is VGG else [doubling()]
        convs = [conv(before, after) for before, after in pairwise(head)]
        self.last = nn.Sequential(_units(width, last), *doubled, *convs, doubling(), nn.Conv2d(head[-1], 1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 1, H, W) of normalised images (N, colours, H, W).

        Raises:
            UsageError: a side is no multiple of the divisor.
        """
        features = self.encoder(images)
        x = self.middle(features[-1])
        for join, feature in zip(self.joins, reversed(features[: len(self.joins)]), strict=True):
            x = join(x, feature)
        return self.last(x)
