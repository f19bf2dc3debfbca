"""unet-gray, segnet-gray and unet-roi: the networks of eugenbobrov's carvana-segmentation, in Keras."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

from torch import nn

from carvana_ens import Size, option
from carvana_ens_unet import recipes as authors
from carvana_ens_unet.keras import KerasOptions, keras_norm, start_as_keras
from carvana_ens_unet.network import UnetModel, UnetOptions, doubled, ladder, stages


@dataclass(frozen=True)
class GrayOptions(UnetOptions):
    """The options, for one channel of mean 0 and deviation 1."""

    colour: Literal["gray", "mean", "rgb", "bgr", "hsv"] = option(
        "gray", "what the network sees: one channel, gray (luma) or mean (of red, green and blue), or rgb, bgr, hsv"
    )
    normalise: Literal["photo", "batch", "fold", "unit", "imagenet"] = option(
        "photo", "photo, batch, fold, imagenet: less their mean, by their deviation (batch: the author's); unit: 0..1"
    )


@dataclass(frozen=True)
class UnetGrayOptions(GrayOptions):
    """The options, with the doubling of the author's last version or of an earlier one."""

    kernel: Literal[2, 3] = option(
        2, "side of the transposed convolutions that double the grid: 2, or 3 as in the author's earlier version"
    )


class _Gray(UnetModel):
    Options = GrayOptions
    options: GrayOptions
    widths: ClassVar[tuple[int, ...]] = (32, 64, 128, 256, 512)
    """Channels of each level, finest first, then of the bottom."""
    size = Size(320, 480)
    divisor = 16


class UnetGray(_Gray):
    """Four levels from 32 channels, without normalisation layers, on small gray photos.

    Source: unet of networks.py before the crops, with kernel 3 one commit earlier.
    """

    Options = UnetGrayOptions
    options: UnetGrayOptions
    recipes = authors.gray("s3-unet-gray")

    def build(self) -> nn.Module:
        """The network, untrained: (N, C, H, W) in, logits (N, 1, H, W) out."""
        *widths, bottom = self.narrow(*self.widths)
        pair = stages(2)
        return start_as_keras(ladder(self.channels, widths, bottom, down=pair, up=pair, learnt=self.options.kernel))


class SegnetGray(_Gray):
    """The same levels without skips: nearest doubling, and twice two convolutions at the bottom.

    Source: segnet of networks.py.
    """

    recipes = authors.gray("s3-segnet-gray")

    def build(self) -> nn.Module:
        """The network, untrained: (N, C, H, W) in, logits (N, 1, H, W) out."""
        *widths, bottom = self.narrow(*self.widths)
        pair = stages(2)
        layers: list[nn.Module] = []
        for above, width in pairwise([self.channels, *widths]):
            layers += [pair(above, width), nn.MaxPool2d(2)]
        layers += [pair(widths[-1], bottom), pair(bottom, bottom)]
        for below, width in pairwise([bottom, *reversed(widths)]):
            layers += [doubled("nearest"), pair(below, width)]
        return start_as_keras(nn.Sequential(*layers, nn.Conv2d(widths[0], 1, 1)))


@dataclass(frozen=True)
class UnetRoiOptions(KerasOptions):
    """The options, with hue, saturation and value as colours, and photos that are mirrored at their border."""

    colour: Literal["hsv", "rgb", "bgr", "gray", "mean"] = option(
        "hsv", "what the network sees: hsv (hue, saturation, value, each 0..1), rgb, bgr, or one channel: gray or mean"
    )
    pad: Literal["reflect", "edge", "zero", "none"] = option(
        "reflect",
        "reflect, edge, zero: photos keep their pixels and get mirrored, border or black ones beside them, up to the "
        "member's own size, or to the least that the network takes; none: they are resized to the input size",
    )
    pad_sides: Literal["both", "after"] = option(
        "both", "where padding lies: both (half of it left and above), or after (right and below)"
    )


class UnetRoi(UnetModel):
    """Four levels from 16 channels of 5x5 convolutions, on each photo's own grid.

    The photo's channels are normalised first, and what each pair of convolutions gives is normalised after it.

    Source: unet of networks.py in the last version.
    """

    Options = UnetRoiOptions
    options: UnetRoiOptions
    widths: ClassVar[tuple[int, ...]] = (16, 32, 64, 128, 256)
    """Channels of each level, finest first, then of the bottom."""
    size = None
    recipes = authors.roi("s3-unet-roi")
    batch_size = 1
    divisor = 16

    def build(self) -> nn.Module:
        """The network, untrained: (N, C, H, W) in, logits (N, 1, H, W) out."""
        *widths, bottom = self.narrow(*self.widths)
        norm, pair = keras_norm(self.options.momentum), stages(2, kernel=5)

        def stage(inputs: int, outputs: int) -> nn.Module:
            return nn.Sequential(pair(inputs, outputs), norm(outputs))

        network = ladder(self.channels, widths, bottom, down=stage, up=stage, learnt=4)
        return start_as_keras(nn.Sequential(norm(self.channels), network))
