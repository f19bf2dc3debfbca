"""linknet34, linknet18 and linknet50: LinkNets on ResNets, the first from Carvana's first place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import timm
from torch import Tensor, nn

from carvana_ens import EncoderOptions, Recipe, Size, TorchModel, load_encoder, option


class LinkNet(nn.Module):
    """A LinkNet: each doubling is added to the encoder's features of its grid, except the last two.

    Args:
        encoder: a ResNet of timm.
        colours: input channels.

    Source: A. Chaurasia and E. Culurciello (arXiv 1707.03718), with the head of albu's LinkNet34.
    """

    def __init__(self, encoder: str, colours: int) -> None:
        super().__init__()
        self.encoder = make_encoder(encoder, colours)
        widths = self.encoder.feature_info.channels()
        self.blocks = nn.ModuleList(_doubling(before, after) for before, after in pairwise([*widths[::-1], widths[0]]))
        # Without padding the first two layers give H + 1 and H - 1 rows; the last brings back H.
        self.head = nn.Sequential(
            nn.ConvTranspose2d(widths[0], 32, 3, stride=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, 3),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 1, 2, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 1, H, W) of normalised images (N, colours, H, W); H and W multiples of 32."""
        *skips, x = self.encoder(images)
        for block in self.blocks:
            x = block(x)
            if skips:
                x = x + skips.pop()
        return self.head(x)


def make_encoder(name: str, colours: int) -> nn.Module:
    """A ResNet without weights: features of its four stages, at strides 4, 8, 16 and 32."""
    return timm.create_model(name, features_only=True, out_indices=(1, 2, 3, 4), in_chans=colours)


def _doubling(inputs: int, outputs: int) -> nn.Module:
    """1x1 convolution to a quarter of the channels, 3x3 transposed convolution of stride 2, 1x1 convolution."""
    quarter = inputs // 4
    layers: list[nn.Module] = []
    for layer in (
        nn.Conv2d(inputs, quarter, 1),
        nn.ConvTranspose2d(quarter, quarter, 3, stride=2, padding=1, output_padding=1),
        nn.Conv2d(quarter, outputs, 1),
    ):
        layers += [layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


@dataclass(frozen=True)
class LinkNetOptions(EncoderOptions):
    """The recipe's options with the input rule of the authors, the weights that training starts from, a last layer."""

    colour: Literal["bgr", "rgb", "gray", "mean", "hsv"] = option(
        "bgr", "what the network sees: bgr, rgb, hsv, or one channel: gray (luma) or mean (of red, green and blue)"
    )
    normalise: Literal["unit", "imagenet", "photo", "batch", "fold"] = option(
        "unit", "unit: 0..1, as its author had it; imagenet, photo, batch, fold: less their mean, by their deviation"
    )
    pad: Literal["zero", "edge", "reflect", "none"] = option(
        "zero", "zero, edge, reflect: pixels beside the photo, which is not resized; none: resized to the input size"
    )
    output_conv: bool = option(False, "a 1x1 convolution of the logits at the end, as the Keras solution has it")


ALBU: Mapping[str, Any] = {
    "encoder_weights": "hub",
    "colour": "bgr",
    "normalise": "unit",
    "pad": "zero",
    "pad_sides": "after",
    "loss": "bce,dice-clamp",
    "border": "0",
    "dice_rim": 6,
    "optimiser": "adam",
    "rate": 1e-4,
    "weight_decay": 0.0,
    "clip_norm": 1.0,
    "schedule": "steps",
    "rate_steps": "12:0.1,23:1,25:0.1,27:0.01,28:1,30:0.1,32:0.01,33:1,35:0.1,37:0.01,38:1",
    "reset": "23",
    "reset_to": "adam",
    "epochs": 40,
    "batch_size": 4,
    "drop_last": True,
    "replay": 10,
    "best_by": "loss",
    "hflip": 0.5,
    "warp": 0.75,
    "shift": 0.0,
    "scale_least": 0.9,
    "scale_most": 1.1,
    "rotation": 5.0,
    "fill": "reflect",
    "light": 0.5,
    "brightness": 0.1,
    "contrast": 0.0,
    "hue": 20.0,
    "hsv_saturation": 25 / 255,
    "value": 25 / 255,
    "repaint": 0.0,
}
"""albu's training; his hue of 10 is of OpenCV's 180 a turn."""

KERAS: Mapping[str, Any] = {
    "encoder_weights": "hub",
    "output_conv": True,
    "colour": "rgb",
    "normalise": "unit",
    "pad": "none",
    "loss": "bce-positive,dice-batch",
    "border": "11",
    "border_rule": "tensorflow",
    "optimiser": "sgd",
    "rate": 1e-2,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 0.0,
    "schedule": "plateau",
    "plateau_factor": 0.333,
    "plateau_patience": 3,
    "plateau_delta": 1e-4,
    "plateau_least": 1e-4,
    "epochs": 50,
    "drop_last": True,
    "best_by": "dice",
    "patience": 8,
    "min_delta": 1e-5,
    "hflip": 0.5,
    "warp": 0.5,
    "shift": 0.0625,
    "scale_least": 0.9,
    "scale_most": 1.1,
    "rotation": 0.0,
    "fill": "zero",
    "light": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "repaint": 0.0,
}

MODERN = Recipe(
    "the defaults of this version, every one written out, and ImageNet's weights with the input they were trained on",
    options={"encoder_weights": "hub", "colour": "rgb", "normalise": "imagenet"},
)
NOT_HERE = "Not here: maps cut down to whole codes (rounded here)"


def _albu(told: str, **changes: Any) -> Recipe:
    return Recipe(f"albu (first place), --folds 5: {told}. {NOT_HERE}", tta=("hflip",), options={**ALBU, **changes})


def _keras(size: Size, batch_size: int, accumulate: int) -> Recipe:
    told = (
        f"the Keras solution's LinkNet: {batch_size * accumulate} photos a step, rate lowered on a plateau. Not here: "
        "parameters that also move between its steps, its split by photo (use --holdout 0.2); its weights are not told"
    )
    steps = {"batch_size": batch_size, "accumulate": accumulate, "rate_decay": 1e-6 * accumulate}
    return Recipe(told, size=size, options={**KERAS, **steps})


class LinkNet34(TorchModel):
    """LinkNet on ResNet-34, on whole photos with black columns and rows up to a multiple of 32."""

    Options = LinkNetOptions
    options: LinkNetOptions
    size = None
    divisor = 32
    encoder: ClassVar[str] = "resnet34"
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "modern": MODERN,
        "s0-linknet34": _keras(Size(1024, 1024), 6, 14),
        "s2-linknet34-fma": _albu("folds by each car's whole mask area, as they are by default (three runs: --seed)"),
        "s2-linknet34-f04a": _albu("as fma, folds by the mask area of one view (--by-view 05)"),
        "s2-linknet34-f04a-clahe": _albu("as f04a, on photos equalised by CLAHE", equalise=True),
        "s2-linknet34-f04a-clahe-rmsprop": _albu(
            "as f04a-clahe, RMSprop up to epoch 23", equalise=True, optimiser="rmsprop"
        ),
    }

    def build(self) -> nn.Module:
        """The network, untrained: (N, C, H, W) in, logits (N, 1, H, W) out."""
        network = LinkNet(self.encoder, self.channels)
        if self.options.output_conv:
            network.head.append(nn.Conv2d(1, 1, 1))
        return network

    def initialise(self, network: nn.Module) -> None:
        """Gives a new network the ResNet weights that training starts from.

        Raises:
            UsageError: no such file.
            TrainingError: the file does not hold this ResNet, or the hub gave nothing.
        """
        # Of timm's several, torchvision's, which the authors started from.
        load_encoder(network.encoder, self.options.encoder_weights, f"{self.encoder}.tv_in1k", self.channels)


class LinkNet18(LinkNet34):
    """The same on ResNet-18, the encoder of the LinkNet paper."""

    encoder = "resnet18"
    recipes: ClassVar = {"modern": MODERN}


class LinkNet50(LinkNet34):
    """The same on ResNet-50."""

    encoder = "resnet50"
    recipes: ClassVar = {"modern": MODERN, "s0-linknet50": _keras(Size(1280, 1280), 2, 10)}
