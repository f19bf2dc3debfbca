"""unet11, unet-vgg11-v1, -v2 and -a: U-Nets on the 11-layer VGG, from Carvana's first place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import timm
import torch
from torch import Tensor, nn

from carvana_ens import EncoderOptions, Recipe, Size, TorchModel, load_encoder, option

ENCODER = "vgg11"

Block = Callable[[int, int, int], nn.Module]
"""(channels in, between, out) -> layers that double the grid."""


class VggUnet(nn.Module):
    """A U-Net on VGG-11, whose features are taken after each level's last ReLU, before the pooling.

    Args:
        colours: input channels.
        width: channels of the finest level; those of the five blocks are 8, 8, 4, 2 and 1 times as many.
        middles: channels inside the five blocks, coarse to fine, in widths.
        block: what a block is.
    """

    def __init__(self, colours: int, width: int, middles: Sequence[int], block: Block) -> None:
        super().__init__()
        self.encoder = make_encoder(colours)
        *skips, bottom = self.encoder.feature_info.channels()
        outputs = [part * width for part in (8, 8, 4, 2, 1)]
        *inputs, joined = [bottom, *(out + skip for out, skip in zip(outputs, reversed(skips), strict=True))]
        self.blocks = nn.ModuleList(
            block(before, part * width, after) for before, part, after in zip(inputs, middles, outputs, strict=True)
        )
        self.last = nn.Sequential(*_conv_relu(joined, width))
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 1, H, W) of normalised images (N, colours, H, W); H and W multiples of 32."""
        *skips, x = self.encoder(images)
        for block in self.blocks:
            x = torch.cat([block(x), skips.pop()], 1)
        return self.head(self.last(x))


def make_encoder(colours: int) -> nn.Module:
    """VGG-11 without weights: features at strides 1, 2, 4, 8, 16 before the pooling, and at 32 after the last."""
    # Its classifier, which is dropped at once, would have a hundred million parameters to draw.
    return timm.create_model(ENCODER, features_only=True, in_chans=colours, mlp_ratio=1 / 4096)


def _conv_relu(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]


def learnt_doubling(inputs: int, middle: int, outputs: int) -> nn.Module:
    """3x3 convolution and ReLU, then a 3x3 transposed convolution of stride 2 and ReLU."""
    doubling = nn.ConvTranspose2d(middle, outputs, 3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(*_conv_relu(inputs, middle), doubling, nn.ReLU(inplace=True))


def bilinear_doubling(inputs: int, middle: int, outputs: int) -> nn.Module:
    """Bilinear doubling, corners on corners as torch 0.2 did it, then twice 3x3 convolution and ReLU."""
    doubling = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    return nn.Sequential(doubling, *_conv_relu(inputs, middle), *_conv_relu(middle, outputs))


ASANAKOY: Mapping[str, Any] = {
    "encoder_weights": "hub",
    "colour": "rgb",
    "normalise": "imagenet",
    "pad": "none",
    "loss": "bce,dice-plus",
    "border": "auto",
    "border_rule": "torch",
    "optimiser": "adam",
    "rate": 1e-4,
    "weight_decay": 0.0,
    "schedule": "steps",
    "rate_steps": "10:0.1,15:0.01",
    "cycle": 20,
    "stages": "epochs=15; epochs=45 rate=1e-6 cycle=0 rate_steps=5:100,15:10,20:1,25:100,35:10,40:1 "
    "warp=0.75 rotation=5 light=0 gray=0",
    "epochs": 60,
    "batch_size": 1,
    "accumulate": 4,
    "accumulate_as": "sum",
    "best_by": "dice",
    "hflip": 0.5,
    "warp": 0.5,
    "shift": 0.0625,
    "scale_least": 0.91,
    "scale_most": 1.21,
    "rotation": 10.0,
    "fill": "reflect",
    "soft_masks": False,
    "light": 0.5,
    "brightness": 0.5,
    "contrast": 0.5,
    "saturation": 0.3,
    "gray": 0.25,
    "repaint": 0.0,
}
"""Two stages, for the augmentation changes after 15 epochs; the rate's cycle of 20 runs on through both."""

TERNAUS: Mapping[str, Any] = {
    "encoder_weights": "hub",
    "colour": "rgb",
    "normalise": "imagenet",
    "pad": "reflect",
    "pad_sides": "both",
    "loss": "bce,log-dice",
    "border": "0",
    "optimiser": "adam",
    "rate": 1e-4,
    "weight_decay": 0.0,
    "reset": "every",
    "schedule": "steps",
    "rate_steps": "1:0.5,3:0.25,4:1",
    "cycle": 5,
    "epochs": 52,
    "batch_size": 4,
    "best_by": "loss",
    "hflip": 0.5,
    "warp": 0.0,
    "shift": 0.0,
    "scale": 0.0,
    "light": 0.25,
    "brightness": 0.0,
    "contrast": 0.0,
    "hue": 100.0,
    "hsv_saturation": 5 / 255,
    "value": 15 / 255,
    "gray_object": 0.25,
    "repaint": 0.0,
}
"""His hue of 50 is of OpenCV's 180 a turn."""


MODERN = {
    "modern": Recipe(
        "the defaults of this version, every one written out, and ImageNet's weights",
        options={"encoder_weights": "hub"},
    )
}


def _asanakoy(name: str) -> Mapping[str, Recipe]:
    told = (
        "asanakoy (first place), --folds 7 --fold-rule histogram: Adam, cycles of 20 epochs, one photo at a time, four "
        "a step. Not here: the second stage starts from the best epoch, his from the last; gray by other weights"
    )
    return {**MODERN, name: Recipe(told, options=ASANAKOY)}


class _VggUnet(TorchModel):
    Options: ClassVar[type] = EncoderOptions
    options: EncoderOptions
    size: ClassVar[Size | None] = Size(1024, 1024)
    divisor = 32

    def initialise(self, network: nn.Module) -> None:
        """Gives a new network the VGG weights that training starts from.

        Raises:
            UsageError: no such file.
            TrainingError: the file does not hold VGG-11, or the hub gave nothing.
        """
        load_encoder(network.encoder, self.options.encoder_weights, ENCODER, self.channels)


class UnetVgg11V1(_VggUnet):
    """Asanakoy's UnetVgg11: 64 channels at the finest level, learnt doublings."""

    recipes = _asanakoy("s2-unet-vgg11-v1")

    def build(self) -> nn.Module:
        """The network, untrained: (N, C, H, W) in, logits (N, 1, H, W) out."""
        return VggUnet(self.channels, 64, (16, 8, 8, 4, 2), learnt_doubling)


class UnetVgg11V2(_VggUnet):
    """The same with bilinear doublings."""

    recipes = _asanakoy("s2-unet-vgg11-v2")

    def build(self) -> nn.Module:
        """The network, untrained: (N, C, H, W) in, logits (N, 1, H, W) out."""
        return VggUnet(self.channels, 64, (16, 8, 8, 4, 2), bilinear_doubling)


class UnetVgg11A(_VggUnet):
    """Ternaus' UNet11, 32 channels at the finest level, as asanakoy fed it: squashed to 1024x1024."""

    recipes = _asanakoy("s2-unet-vgg11-a")

    def build(self) -> nn.Module:
        """The network, untrained: (N, C, H, W) in, logits (N, 1, H, W) out."""
        return VggUnet(self.channels, 32, (16, 16, 16, 8, 4), learnt_doubling)


@dataclass(frozen=True)
class Unet11Options(EncoderOptions):
    """Photos are never resized, but mirrored out to sides that are multiples of 32."""

    pad: Literal["reflect", "edge", "zero", "none"] = option(
        "reflect", "reflect, edge, zero: pixels beside the photo, which is not resized; none: resized to the input size"
    )
    pad_sides: Literal["both", "after"] = option(
        "both", "where padding lies: both (half of it left and above), or after (right and below)"
    )


class Unet11(UnetVgg11A):
    """Ternaus' UNet11 on whole photos."""

    Options = Unet11Options
    size = None
    recipes: ClassVar[Mapping[str, Recipe]] = {
        **MODERN,
        "s2-unet11": Recipe(
            "ternaus (first place), --folds 5 --by-view 05: a fresh Adam every epoch, hue and gray cars. Not here: hue "
            "and gray cars never on one photo, and maps cut down to whole codes (rounded here)",
            options=TERNAUS,
        ),
    }
