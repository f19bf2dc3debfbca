"""unet-128 ... unet-1024 and unet-gray: the U-Nets that two Carvana solutions trained from scratch in Keras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from carvana_ens import Size, TorchModel, TorchOptions, option

Stage = Callable[[int, int], nn.Module]
"""(channels in, channels out) -> layers on one grid."""


class UNet(nn.Module):
    """A U-Net: stages joined by 2x2 max pooling on the way down and by doubling on the way up, with skips.

    Args:
        colours: input channels.
        widths: channels of each level, finest first; each level halves the grid once.
        bottom: channels of the coarsest stage.
        down: a stage on the way down, and the coarsest.
        up: a stage on the way up.
        learnt: a linear 2x2 transposed convolution doubles the features, to the level's channels, and a stage gets
            [doubled, skip]; else pixels are repeated, and it gets [skip, doubled].
    """

    def __init__(
        self, colours: int, widths: Sequence[int], bottom: int, *, down: Stage, up: Stage, learnt: bool
    ) -> None:
        super().__init__()
        self.learnt = learnt
        rising = list(pairwise([bottom, *reversed(widths)]))  # (channels from below, channels of the level)
        self.descent = nn.ModuleList(down(above, width) for above, width in pairwise([colours, *widths]))
        self.bottom = down(widths[-1], bottom)
        self.doublings = nn.ModuleList(_doubling(below, width, learnt) for below, width in rising)
        self.ascent = nn.ModuleList(up(width + (width if learnt else below), width) for below, width in rising)
        self.head = nn.Conv2d(widths[0], 1, 1)
        self.apply(_start_as_keras)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 1, H, W) of normalised images (N, colours, H, W); H and W multiples of 2 ** levels."""
        x, skips = images, []
        for stage in self.descent:
            skips.append(stage(x))
            x = functional.max_pool2d(skips[-1], 2)
        x = self.bottom(x)
        for doubling, stage in zip(self.doublings, self.ascent, strict=True):
            doubled, skip = doubling(x), skips.pop()
            x = stage(torch.cat([doubled, skip] if self.learnt else [skip, doubled], 1))
        return self.head(x)


def _doubling(below: int, width: int, learnt: bool) -> nn.Module:
    return nn.ConvTranspose2d(below, width, 2, stride=2) if learnt else nn.Upsample(scale_factor=2, mode="nearest")


def _start_as_keras(layer: nn.Module) -> None:
    # torch's own start halves the signal in every layer, and unet-gray has no normalisation to bring it back.
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _normed(count: int, momentum: float) -> Stage:
    """Stages of ``count`` times 3x3 convolution (with bias), batch normalisation, ReLU."""

    def stage(inputs: int, outputs: int) -> nn.Module:
        layers: list[nn.Module] = []
        for channels in (inputs, *[outputs] * (count - 1)):
            norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=momentum)  # Keras's eps
            layers += [nn.Conv2d(channels, outputs, 3, padding=1), norm, nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)

    return stage


def _plain_pair(inputs: int, outputs: int) -> nn.Module:
    first, second = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True))


def unet_rgb(widths: Sequence[int], colours: int = 3, momentum: float = 0.01) -> UNet:
    """Two convolutions a level down, 1024 at the bottom, nearest doubling, three convolutions a level up.

    Source: get_unet_128 ... get_unet_1024 of petrosgk/Kaggle-Carvana-Image-Masking-Challenge.
    """
    down, up = _normed(2, momentum), _normed(3, momentum)
    return UNet(colours, widths, 1024, down=down, up=up, learnt=False)


def unet_gray(colours: int = 1) -> UNet:
    """Levels of 32, 64, 128 and 256, 512 at the bottom; doubling by linear 2x2 transposed convolution; no norm.

    Source: the gray network of eugenbobrov's Carvana solution.
    """
    return UNet(colours, (32, 64, 128, 256), 512, down=_plain_pair, up=_plain_pair, learnt=True)


@dataclass(frozen=True)
class UnetOptions(TorchOptions):
    """The recipe's options, with the photos as 0..1 and Keras's slow running statistics.

    Raises:
        ValueError: an option out of its range.
    """

    normalise: Literal["unit", "imagenet", "photo"] = option(
        "unit", "unit: 0..1, as its author had it; imagenet: ImageNet's mean and deviation; photo: each photo's own"
    )
    momentum: float = option(
        0.01, "part of each new batch in the normalisation's running means; raise it for runs of under 500 steps"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.momentum <= 1:
            raise ValueError(f"option momentum is {self.momentum}: it must be above 0 and at most 1")


class _Unet(TorchModel):
    Options = UnetOptions
    options: UnetOptions
    widths: ClassVar[tuple[int, ...]]

    def build(self) -> nn.Module:
        """The network, untrained: (N, C, H, W) in, logits (N, 1, H, W) out."""
        return unet_rgb(self.widths, self.channels, self.options.momentum)


class Unet128(_Unet):
    """Four levels from 64 channels."""

    widths = (64, 128, 256, 512)
    size = Size(128, 128)
    divisor = 16


class Unet256(_Unet):
    """Five levels from 32 channels."""

    widths = (32, *Unet128.widths)
    size = Size(256, 256)
    divisor = 32


class Unet512(_Unet):
    """Six levels from 16 channels."""

    widths = (16, *Unet256.widths)
    size = Size(512, 512)
    divisor = 64


class Unet1024(_Unet):
    """Seven levels from 8 channels."""

    widths = (8, *Unet512.widths)
    size = Size(1024, 1024)
    divisor = 128


@dataclass(frozen=True)
class UnetGrayOptions(TorchOptions):
    """The recipe's options, for one channel of mean 0 and deviation 1."""

    colour: Literal["gray", "rgb", "bgr"] = option("gray", "what the network sees: gray (one channel), rgb or bgr")
    normalise: Literal["photo", "unit", "imagenet"] = option(
        "photo", "photo: each photo's own mean and deviation; unit: 0..1; imagenet: ImageNet's mean and deviation"
    )


class UnetGray(TorchModel):
    """Four levels from 32 channels, without normalisation layers, on small gray photos."""

    Options = UnetGrayOptions
    size = Size(320, 480)
    divisor = 16

    def build(self) -> nn.Module:
        """The network, untrained: (N, C, H, W) in, logits (N, 1, H, W) out."""
        return unet_gray(self.channels)
