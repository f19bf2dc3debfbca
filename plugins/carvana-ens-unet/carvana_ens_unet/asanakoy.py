"""unet-scratch and its siblings: the U-Nets that asanakoy trained from scratch for Carvana's first place."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from carvana_ens import Size
from carvana_ens_unet import recipes as authors
from carvana_ens_unet.network import UnetModel, ladder, stages


class UnetScratch(UnetModel):
    """Six levels from 32 channels: two convolutions a level down, bilinear doubling, three convolutions a level up.

    Source: Unet, Unet4, Unet5, Unet7 and UNarrow of asanakoy/unet.py in asanakoy/kaggle_carvana_segmentation, without
    transposed convolutions, as they were trained.
    """

    widths: ClassVar[tuple[int, ...]] = (32, 64, 128, 256, 512, 1024, 1024)
    """Channels of each level, finest first, then of the bottom."""
    size = Size(1024, 1024)
    recipes = authors.asanakoy("s2-unet-scratch")
    divisor = 64

    def build(self) -> nn.Module:
        """The network, untrained: (N, C, H, W) in, logits (N, 1, H, W) out."""
        *widths, bottom = self.narrow(*self.widths)
        down, up = stages(2, norm=nn.BatchNorm2d), stages(3, norm=nn.BatchNorm2d)
        return ladder(self.channels, widths, bottom, down=down, up=up, doubling="bilinear")


class UnetScratch4(UnetScratch):
    """Four levels from 24 channels."""

    widths = (24, 64, 128, 256, 512)
    divisor = 16
    recipes = authors.asanakoy("s2-unet-scratch-4")


class UnetScratch5(UnetScratch):
    """Five levels from 32 channels."""

    widths = (32, 64, 128, 256, 512, 1024)
    divisor = 32
    recipes = authors.asanakoy("s2-unet-scratch-5")


class UnetScratch7(UnetScratch):
    """Seven levels from 48 channels."""

    widths = (48, 96, 128, 256, 512, 1024, 1536, 1536)
    divisor = 128
    recipes = authors.asanakoy("s2-unet-scratch-7")


class UnetScratchNarrow(UnetScratch):
    """Six levels from 32 channels, which widen a level later."""

    widths = (32, 32, 64, 128, 256, 512, 768)
    recipes = authors.asanakoy("s2-unet-scratch-narrow")
