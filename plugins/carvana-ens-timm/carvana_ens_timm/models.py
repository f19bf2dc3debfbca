"""The three models: one encoder, and the decoder that each has."""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import timm
import torch
from torch import nn

from carvana_ens import EncoderOptions, Recipe, TorchModel, load_encoder, option
from carvana_ens_timm.encoder import coarsest_stride, make_encoder
from carvana_ens_timm.fpn import FpnDecoder
from carvana_ens_timm.linknet import LinknetDecoder
from carvana_ens_timm.unet import UnetDecoder


@dataclass(frozen=True)
class TimmOptions(EncoderOptions):
    """The recipe's options, the weights that training starts from, and the backbone.

    Raises:
        ValueError: an unknown backbone, or a number out of its range.
    """

    encoder: str = option(
        "mobilenetv2_100", "timm backbone: any of timm.list_models() that gives a pyramid of features"
    )
    output_stride: Literal[0, 8, 16] = option(
        0, "pixels between the coarsest features: 8 or 16 dilates the last stages; 0 leaves the backbone as it is"
    )
    dropout: float = option(0.0, "part of the decoder's last channels that training drops, whole channels at a time")
    normalise: Literal["imagenet", "unit", "photo", "batch", "fold"] = option(
        "imagenet",
        "imagenet: the mean and deviation that the backbone was trained with, mostly ImageNet's; photo, batch, fold: "
        "those of the photo, of the mini-batch, of the fold's training photos; unit: 0..1",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not timm.is_model(self.encoder):
            near = difflib.get_close_matches(self.encoder, timm.list_models(), 3)
            hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() has the names"
            raise ValueError(f"option encoder is {self.encoder!r}, which timm {timm.__version__} does not know: {hint}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"option dropout is {self.dropout}: it must be at least 0 and below 1")


@dataclass(frozen=True)
class TimmUnetOptions(TimmOptions):
    """The options of every model here, and the decoder's widths.

    Raises:
        ValueError: as its base, or widths that cannot be read.
    """

    decoder_channels: str = option("96,64,32,16,8", "widths of the decoder, one a doubling of the grid, coarse to fine")

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_widths(self.decoder_channels)


@dataclass(frozen=True)
class TimmFpnOptions(TimmOptions):
    """The options of every model here, and the decoder's two widths.

    Raises:
        ValueError: as its base, or a width out of its range.
    """

    pyramid_channels: int = option(256, "channels of the feature pyramid")
    branch_channels: int = option(128, "channels of the branch that sums the pyramid's levels")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("pyramid_channels", "branch_channels"):
            if not 1 <= getattr(self, name) <= WIDEST:
                raise ValueError(f"option {name} is {getattr(self, name)}: it must be from 1 to {WIDEST}")


WIDEST = 4096


def parse_widths(text: str) -> tuple[int, ...]:
    """Channel counts from ``"96,64,32"``.

    Raises:
        ValueError: the text is anything else.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and 0 < int(word) <= WIDEST for word in words):
        raise ValueError(f"option decoder_channels is {text!r}: write widths from 1 to {WIDEST}, as in 96,64,32,16,8")
    return tuple(int(word) for word in words)


class TimmModel(TorchModel):
    """A decoder on a timm backbone; training starts from the backbone weights that the options name."""

    Options: ClassVar[type] = TimmOptions
    options: TimmOptions
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "modern": Recipe(
            "the defaults of this version, every one written out, and timm's own weights of the backbone",
            options={"encoder_weights": "hub"},
        )
    }

    @cached_property
    def divisor(self) -> int:  # type: ignore[override]  # worked out when it is first wanted
        """Pixels between the coarsest features; the backbone is asked without allocating it.

        Raises:
            UsageError: it gives no features, or cannot be dilated.
        """
        with torch.device("meta"):
            return coarsest_stride(self.options.encoder, self.options.output_stride)

    def decoder(self, channels: Mapping[int, int]) -> nn.Module:
        """The decoder, untrained, on features of so many channels by stride."""
        raise NotImplementedError

    def build(self) -> nn.Module:
        """The network, untrained: (N, C, H, W) in, logits (N, 1, H, W) out.

        Raises:
            UsageError: the backbone gives no pyramid, or the decoder's widths do not fit it.
        """
        options = self.options
        encoder = make_encoder(
            options.encoder, options.colour, options.output_stride, imagenet=options.normalise == "imagenet"
        )
        self.divisor = max(encoder.channels)
        return nn.Sequential(OrderedDict(encoder=encoder, decoder=self.decoder(encoder.channels)))

    def initialise(self, network: nn.Module) -> None:
        """Gives a new network the backbone weights that training starts from.

        Raises:
            UsageError: no such file, or timm has no weights for the backbone.
            TrainingError: the file holds no weights of the backbone, or the hub gave none.
        """
        options, backbone = self.options, network.get_submodule("encoder.backbone")
        load_encoder(backbone, options.encoder_weights, options.encoder, self.channels)


class TimmUnetModel(TimmModel):
    """A U-Net on a timm backbone."""

    Options = TimmUnetOptions
    options: TimmUnetOptions

    def decoder(self, channels: Mapping[int, int]) -> nn.Module:
        """See ``UnetDecoder``."""
        return UnetDecoder(channels, parse_widths(self.options.decoder_channels), self.options.dropout)


class TimmFpnModel(TimmModel):
    """A feature pyramid network on a timm backbone."""

    Options = TimmFpnOptions
    options: TimmFpnOptions

    def decoder(self, channels: Mapping[int, int]) -> nn.Module:
        """See ``FpnDecoder``."""
        options = self.options
        return FpnDecoder(channels, options.pyramid_channels, options.branch_channels, options.dropout)


class TimmLinknetModel(TimmModel):
    """A LinkNet on a timm backbone."""

    def decoder(self, channels: Mapping[int, int]) -> nn.Module:
        """See ``LinknetDecoder``."""
        return LinknetDecoder(channels, self.options.dropout)
