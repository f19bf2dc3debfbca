"""What the U-Nets share: rows of convolutions, the ladder with its skips, ways to double a grid, and their options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from carvana_ens import TorchModel, TorchOptions, option

Norm = Callable[[int], nn.Module]
"""Channels -> a normalisation layer."""
Stage = Callable[[int, int], nn.Module]
"""(channels in, channels out) -> layers on one grid."""


def row(
    channels: Sequence[int],
    kernels: Sequence[int],
    *,
    norm: Norm | None = None,
    bias: bool = True,
    strides: Sequence[int] | None = None,
) -> nn.Sequential:
    """Convolutions that keep the grid ("same"), each followed by normalisation (if any) and ReLU.

    Args:
        channels: of the input, then of each convolution.
        kernels: the side of each.
        norm: the normalisation layer of so many channels.
        bias: whether the convolutions have one.
        strides: of each; None: 1.
    """
    layers: list[nn.Module] = []
    for (inputs, outputs), kernel, stride in zip(
        pairwise(channels), kernels, strides or [1] * len(kernels), strict=True
    ):
        layers.append(nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=bias))
        layers += [] if norm is None else [norm(outputs)]
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def stages(count: int, *, kernel: int = 3, norm: Norm | None = None, bias: bool = True) -> Stage:
    """Stages of ``count`` convolutions of the same width; arguments as for ``row``."""

    def stage(inputs: int, outputs: int) -> nn.Module:
        return row([inputs, *[outputs] * count], [kernel] * count, norm=norm, bias=bias)

    return stage


class UNet(nn.Module):
    """Stages joined by 2x2 max pooling on the way down and by doubling on the way up, with a skip at every level.

    Args:
        descent: a stage a level, finest first.
        bottom: the coarsest stage.
        doublings: layers that double the grid, coarsest first, as many as levels.
        ascent: a stage a level, coarsest first.
        head: the last layers.
        skip_first: a stage of the ascent gets [skip, doubled]; else [doubled, skip].

    Source: O. Ronneberger et al. (arXiv 1505.04597), with convolutions that keep the grid.
    """

    def __init__(
        self,
        descent: Iterable[nn.Module],
        bottom: nn.Module,
        doublings: Iterable[nn.Module],
        ascent: Iterable[nn.Module],
        head: nn.Module,
        *,
        skip_first: bool,
    ) -> None:
        super().__init__()
        self.skip_first = skip_first
        self.descent = nn.ModuleList(descent)
        self.bottom = bottom
        self.doublings = nn.ModuleList(doublings)
        self.ascent = nn.ModuleList(ascent)
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """What the head makes of normalised images (N, C, H, W); H and W must halve down to the bottom."""
        x, skips = images, []
        for stage in self.descent:
            skips.append(stage(x))
            x = functional.max_pool2d(skips[-1], 2)
        x = self.bottom(x)
        for doubling, stage in zip(self.doublings, self.ascent, strict=True):
            doubled, skip = doubling(x), skips.pop()
            x = stage(torch.cat([skip, doubled] if self.skip_first else [doubled, skip], 1))
        answer: Tensor = self.head(x)
        return answer


def ladder(
    colours: int,
    widths: Sequence[int],
    bottom: int,
    *,
    down: Stage,
    up: Stage,
    doubling: Literal["nearest", "bilinear"] = "nearest",
    learnt: int = 0,
    head: nn.Module | None = None,
) -> UNet:
    """A U-Net whose levels have one width each, the same on the way up as on the way down.

    Args:
        colours: input channels.
        widths: channels of each level, finest first.
        bottom: channels of the coarsest stage.
        down: a stage on the way down, and the coarsest.
        up: a stage on the way up.
        doubling: how pixels are doubled; a stage gets [skip, doubled].
        learnt: not 0: the side of the transposed convolutions that double instead, to the level's channels; a stage
            gets [doubled, skip].
        head: None: a 1x1 convolution to one logit.
    """
    rising = list(pairwise([bottom, *reversed(widths)]))  # (channels from below, channels of the level)
    return UNet(
        descent=[down(above, width) for above, width in pairwise([colours, *widths])],
        bottom=down(widths[-1], bottom),
        doublings=[LearntDoubling(below, width, learnt) if learnt else doubled(doubling) for below, width in rising],
        ascent=[up(width + (width if learnt else below), width) for below, width in rising],
        head=nn.Conv2d(widths[0], 1, 1) if head is None else head,
        skip_first=not learnt,
    )


def doubled(mode: Literal["nearest", "bilinear"]) -> nn.Upsample:
    """Twice the grid. Bilinear is that of old torch: the corner pixels stay in the corners."""
    return nn.Upsample(scale_factor=2, mode=mode, align_corners=True if mode == "bilinear" else None)


class LearntDoubling(nn.ConvTranspose2d):
    """Twice the grid by a linear transposed convolution: Keras's ``Conv2DTranspose(strides=2, padding="same")``.

    TensorFlow takes the gradient of a "same" convolution; with an odd kernel, the pixel too many falls away on the
    right and below.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, stride=2, padding=(kernel - 2) // 2)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, outputs, 2 H, 2 W) of (N, inputs, H, W)."""
        return super().forward(input, output_size)[..., : 2 * input.shape[-2], : 2 * input.shape[-1]]


@dataclass(frozen=True)
class UnetOptions(TorchOptions):
    """The recipe's options, with the photos as 0..1, and the width of the network.

    Raises:
        ValueError: an option out of its range.
    """

    normalise: Literal["unit", "imagenet", "photo", "batch", "fold"] = option(
        "unit", "unit: 0..1, as its author had it; imagenet, photo, batch, fold: less their mean, by their deviation"
    )
    shrink: int = option(1, "divides the channels of every layer; 2 leaves about a quarter of the parameters")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shrink < 1:
            raise ValueError(f"option shrink is {self.shrink}: it must be at least 1")


class UnetModel(TorchModel):
    """A U-Net with these options."""

    Options = UnetOptions
    options: UnetOptions

    def narrow(self, *widths: int) -> tuple[int, ...]:
        """The author's channels, divided as the options say."""
        return tuple(max(1, width // self.options.shrink) for width in widths)
