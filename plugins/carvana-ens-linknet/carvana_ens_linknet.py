"""linknet34, linknet18 and linknet50: LinkNets on ResNets, the first from Carvana's first place."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import timm
from torch import Tensor, nn

from carvana_ens import EncoderOptions, TorchModel, load_encoder, option


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


class LinkNet34(TorchModel):
    """LinkNet on ResNet-34, on whole photos with black columns and rows up to a multiple of 32."""

    Options = LinkNetOptions
    options: LinkNetOptions
    size = None
    divisor = 32
    encoder: ClassVar[str] = "resnet34"

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


class LinkNet50(LinkNet34):
    """The same on ResNet-50."""

    encoder = "resnet50"
