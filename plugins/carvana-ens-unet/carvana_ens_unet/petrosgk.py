"""unet-128 ... unet-1024: the ladder of petrosgk's Kaggle-Carvana-Image-Masking-Challenge, in Keras."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from carvana_ens import Size
from carvana_ens_unet import recipes as authors
from carvana_ens_unet.keras import KerasOptions, keras_norm, start_as_keras
from carvana_ens_unet.network import UnetModel, ladder, stages

BOTTOM = 1024


class Unet128(UnetModel):
    """Four levels from 64 channels: two convolutions a level down, nearest doubling, three convolutions a level up.

    Source: get_unet_128 ... get_unet_1024, to which Unet1024 of a later solution goes back.
    """

    Options = KerasOptions
    options: KerasOptions
    widths: ClassVar[tuple[int, ...]] = (64, 128, 256, 512)
    size = Size(128, 128)
    recipes = authors.keras("s0-unet-128", 24, 3)
    divisor = 16

    def build(self) -> nn.Module:
        """The network, untrained: (N, C, H, W) in, logits (N, 1, H, W) out."""
        norm = keras_norm(self.options.momentum)
        (bottom,) = self.narrow(BOTTOM)
        down, up = stages(2, norm=norm), stages(3, norm=norm)
        return start_as_keras(ladder(self.channels, self.narrow(*self.widths), bottom, down=down, up=up))


class Unet256(Unet128):
    """Five levels from 32 channels."""

    widths = (32, *Unet128.widths)
    size = Size(256, 256)
    recipes = authors.keras("s0-unet-256", 24, 3)
    divisor = 32


class Unet512(Unet128):
    """Six levels from 16 channels."""

    widths = (16, *Unet256.widths)
    size = Size(512, 512)
    recipes = authors.keras("s0-unet-512", 8, 8)
    divisor = 64


class Unet1024(Unet128):
    """Seven levels from 8 channels."""

    widths = (8, *Unet512.widths)
    size = Size(1024, 1024)
    recipes = authors.keras("s0-unet-1024", 4, 16)
    divisor = 128
