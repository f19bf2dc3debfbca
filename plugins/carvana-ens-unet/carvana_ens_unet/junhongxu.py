"""myunet-...: the U-Nets of JunhongXu's kaggle-carvana-car-masking, from its myunet.py and miscs/unet.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from carvana_ens import Size, option
from carvana_ens_unet import recipes as authors
from carvana_ens_unet.network import Norm, UNet, UnetModel, UnetOptions, doubled, ladder, row, stages


@dataclass(frozen=True)
class MyunetOptions(UnetOptions):
    """The options, with the photos as OpenCV reads them."""

    colour: Literal["bgr", "rgb", "gray", "mean", "hsv"] = option(
        "bgr", "what the network sees: bgr, rgb, hsv, or one channel: gray (luma) or mean (of red, green and blue)"
    )


class _Myunet(UnetModel):
    Options = MyunetOptions
    options: MyunetOptions


def _even(colours: int, widths: Sequence[int], bottom: int, head: nn.Module | None = None) -> UNet:
    """Two convolutions without bias a level down, bilinear doubling, three a level up."""
    down, up = (stages(count, norm=nn.BatchNorm2d, bias=False) for count in (2, 3))
    return ladder(colours, widths, bottom, down=down, up=up, doubling="bilinear", head=head)


class MyunetEven128(_Myunet):
    """Four levels from 64 channels, 1024 at the bottom.

    Source: UNet128_2, UNet256_2 and UNet512_2 of myunet.py.
    """

    widths: ClassVar[tuple[int, ...]] = (64, 128, 256, 512)
    size = Size(128, 128)
    recipes = authors.junhongxu("s1-myunet-128-2")
    divisor = 16

    def build(self) -> nn.Module:
        """The network, untrained: (N, C, H, W) in, logits (N, 1, H, W) out."""
        *widths, bottom = self.narrow(*self.widths, 1024)
        return _even(self.channels, widths, bottom)


class MyunetEven256(MyunetEven128):
    """Five levels from 32 channels, 1024 at the bottom."""

    widths = (32, *MyunetEven128.widths)
    size = Size(256, 256)
    recipes = authors.junhongxu("s1-myunet-256-2")
    divisor = 32


class MyunetEven512(MyunetEven128):
    """Six levels from 16 channels, 1024 at the bottom."""

    widths = (16, *MyunetEven256.widths)
    size = Size(512, 512)
    recipes = authors.junhongxu("s1-myunet-512-2")
    divisor = 64


class PhotoAtEnd(nn.Module):
    """A ladder whose features meet the photo once more, on the photo's own grid, before the last convolutions.

    Args:
        features: a network from photos to ``width`` channels on their grid.
        colours: channels of a photo.
        width: channels of the features.
        last: channels of the last three convolutions.
        double: the features are those of the photo at half its size (the mean of each 2x2 pixels), and they and that
            half photo are doubled, so that the answer has the grid of the photo that came in.

    Source: UNet_1024_5 and UNet_double_1024_5 of myunet.py; there the doubling one is given the half photo.
    """

    def __init__(self, features: nn.Module, colours: int, width: int, last: int, *, double: bool) -> None:
        super().__init__()
        self.features = features
        self.doubling = doubled("bilinear") if double else None
        meeting = stages(3, norm=nn.BatchNorm2d, bias=False)(colours + width, last)
        self.head = nn.Sequential(meeting, nn.Conv2d(last, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 1, H, W) of normalised images (N, colours, H, W)."""
        if self.doubling is None:
            joined = torch.cat([images, self.features(images)], 1)
        else:
            half = functional.avg_pool2d(images, 2)
            joined = self.doubling(torch.cat([half, self.features(half)], 1))
        logits: Tensor = self.head(joined)
        return logits


class MyunetPhoto(_Myunet):
    """Six levels from 16 channels, and the photo again before the last convolutions of 8."""

    double: ClassVar[bool] = False
    size = Size(1024, 1024)
    recipes = authors.junhongxu("s1-myunet-1024-5")
    divisor = 64

    def build(self) -> nn.Module:
        """The network, untrained: (N, C, H, W) in, logits (N, 1, H, W) out."""
        *widths, bottom, last = self.narrow(*MyunetEven512.widths, 1024, 8)
        features = _even(self.channels, widths, bottom, nn.Identity())
        return PhotoAtEnd(features, self.channels, widths[0], last, double=self.double)


class MyunetPhotoDouble(MyunetPhoto):
    """The same on the photo at half its size, its features doubled to the photo's grid."""

    double = True
    divisor = 128
    recipes = authors.five_fold("s1-myunet-double-1024-5")


class Myunet128(_Myunet):
    """Four levels of two convolutions, 3x3 then 1x1 on the way down, 1x1 then 3x3 on the way up.

    Source: UNet128, UNet128_1, UNet256 and UNet256_1 of myunet.py.
    """

    falls: ClassVar = ((16, 32), (64, 128), (256, 512), (512, 512))
    """Channels of the convolutions of each level, finest first; the last are the bottom's too."""
    rises: ClassVar = ((512, 512), (512, 128), (128, 32), (64, 32))
    """The same on the way up, coarsest first."""
    kernels: ClassVar = ((3, 1), (3,), (1, 3))
    """On the way down, at the bottom, on the way up."""
    halved: ClassVar[bool] = False
    """The first level's second convolution halves the grid, and one more doubling with a convolution ends the way."""
    size = Size(128, 128)
    recipes = authors.junhongxu("s1-myunet-128")
    divisor = 16

    def build(self) -> nn.Module:
        """The network, untrained: (N, C, H, W) in, logits (N, 1, H, W) out."""
        falls, rises = ([self.narrow(*pair) for pair in pairs] for pairs in (self.falls, self.rises))
        levels = [pair[-1] for pair in falls]
        below = [levels[-1], *(pair[-1] for pair in rises[:-1])]
        down, bottom, up = self.kernels
        first = (1, 2) if self.halved else None

        def plain(channels: Sequence[int], kernels: Sequence[int], strides: Sequence[int] | None = None) -> nn.Module:
            return row(channels, kernels, norm=nn.BatchNorm2d, bias=False, strides=strides)

        logit = nn.Conv2d(levels[0], 1, 1)
        last = plain((levels[0], levels[0]), (3,))
        return UNet(
            descent=[
                plain((above, *pair), down, first if level == 0 else None)
                for level, (above, pair) in enumerate(zip([self.channels, *levels], falls, strict=False))
            ],
            bottom=plain((levels[-1], levels[-1]), bottom),
            doublings=[doubled("bilinear") for _ in rises],
            ascent=[
                plain((skip + under, *pair), up)
                for skip, under, pair in zip(reversed(levels), below, rises, strict=True)
            ],
            head=nn.Sequential(doubled("bilinear"), last, logit) if self.halved else logit,
            skip_first=True,
        )


class Myunet128Wide(Myunet128):
    """The same of 3x3 convolutions, with 1x1 at the bottom."""

    recipes = authors.junhongxu("s1-myunet-128-1")
    kernels = ((3, 3), (1,), (3, 3))


class Myunet256(Myunet128):
    """Myunet128 on half the grid from its first level on."""

    halved = True
    size = Size(256, 256)
    recipes = authors.junhongxu("s1-myunet-256")
    divisor = 32


class Myunet256Wide(Myunet128Wide):
    """Myunet128Wide on half the grid from its first level on."""

    halved = True
    size = Size(256, 256)
    recipes = authors.junhongxu("s1-myunet-256-1")
    divisor = 32


def _early(
    colours: int,
    widths: Sequence[int],
    bottom: nn.Module,
    outputs: Sequence[int],
    head: nn.Module,
    norm: Norm | None,
) -> UNet:
    """The early tries: a 3x3 and a 1x1 convolution a level up, nearest doubling, [doubled, skip].

    outputs: channels of the bottom, then of each level on the way up, coarsest first. norm: None has biases instead.
    """
    bias = norm is None
    down = stages(2, norm=norm, bias=bias)
    return UNet(
        descent=[down(above, width) for above, width in pairwise([colours, *widths])],
        bottom=bottom,
        doublings=[doubled("nearest") for _ in widths],
        ascent=[
            row((below + skip, 2 * width, width), (3, 1), norm=norm, bias=bias)
            for skip, (below, width) in zip(reversed(widths), pairwise(outputs), strict=True)
        ],
        head=head,
        skip_first=False,
    )


class MyunetEarly512(_Myunet):
    """Five levels from 32 channels on the photo at half its size, with one doubling more at the end.

    Source: UNet512 of miscs/unet.py, which is given the half photo. Its convolutions on the way down go through one
    normalisation layer twice and leave their other one idle; here each has its own.
    """

    size = Size(1024, 1024)
    recipes = authors.junhongxu("s1-myunet-512")
    divisor = 64

    def build(self) -> nn.Module:
        """The network, untrained: (N, C, H, W) in, logits (N, 1, H, W) out."""
        widths, outputs = self.narrow(32, 64, 128, 256, 512), self.narrow(512, 256, 128, 64, 32, 32)
        middle, last = self.narrow(1024, 16)
        bottom = row((widths[-1], middle, outputs[0]), (1, 1), norm=nn.BatchNorm2d, bias=False)
        end = row((outputs[-1], last), (1,), norm=nn.BatchNorm2d, bias=False)
        head = nn.Sequential(doubled("nearest"), end, nn.Conv2d(last, 1, 1))
        return nn.Sequential(nn.AvgPool2d(2), _early(self.channels, widths, bottom, outputs, head, nn.BatchNorm2d))


class Difference(nn.Module):
    """The logit of two classes: log p - log (1 - p) is the second channel minus the first, softmax or not."""

    def forward(self, scores: Tensor) -> Tensor:
        """(N, 1, H, W) of (N, 2, H, W): background, object."""
        return scores[:, 1:] - scores[:, :1]


class MyunetEarly3(_Myunet):
    """Four levels from 16 channels, without normalisation, that score background and object.

    Source: UNetV3 of miscs/unet.py, which gives the log-softmax of the two.
    """

    size = Size(256, 256)
    recipes = authors.junhongxu("s1-myunet-v3")
    divisor = 16

    def build(self) -> nn.Module:
        """The network, untrained: (N, C, H, W) in, logits (N, 1, H, W) out."""
        widths, outputs = self.narrow(16, 32, 64, 128), self.narrow(128, 128, 64, 32, 16)
        (middle,) = self.narrow(256)
        bottom = row((widths[-1], middle, middle, outputs[0]), (3, 3, 1))
        end = row((outputs[-1], outputs[-1]), (1,))
        head = nn.Sequential(end, nn.Conv2d(outputs[-1], 2, 1), Difference())
        return _early(self.channels, widths, bottom, outputs, head, None)
