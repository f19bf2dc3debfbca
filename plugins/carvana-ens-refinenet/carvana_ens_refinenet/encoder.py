"""The encoders, timm's ResNets and VGG, tapped where the decoders join them."""

from __future__ import annotations

import timm
from torch import Tensor, nn

from carvana_ens import Size, UsageError

RESNET = ("maxpool", "layer1", "layer2", "layer3", "layer4")  # 4, 4, 8, 16 and 32 pixels apart
VGG = ("features_6", "features_13", "features_23", "features_33", "features_43")  # after each pooling: 2 ... 32
ENCODERS = {
    "resnet34": (RESNET, (64, 64, 128, 256, 512)),
    "resnet50": (RESNET, (64, 256, 512, 1024, 2048)),
    "vgg16_bn": (VGG, (64, 128, 256, 512, 512)),
}
"""Layers of timm's networks whose outputs the decoders join, fine to coarse, and their channels."""


class Encoder(nn.Module):
    """A backbone of timm without weights, that gives the outputs of five of its layers.

    Args:
        name: a key of ENCODERS.
        colours: input channels.
        divisor: of the photo's sides, as encoder and decoder together need it.
    """

    def __init__(self, name: str, colours: int, divisor: int) -> None:
        super().__init__()
        self.name, self.divisor = name, divisor
        self.taps, self.channels = ENCODERS[name]
        # VGG's classifier, which is thrown away at once, would be made with 100 million numbers.
        spared = {"mlp_ratio": 1 / 4096} if self.taps is VGG else {}
        self.body = timm.create_model(name, features_only=True, in_chans=colours, **spared)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features, fine to coarse, of normalised images (N, colours, H, W).

        Raises:
            UsageError: H or W is no multiple of the divisor.
        """
        height, width = x.shape[2:]
        if height % self.divisor or width % self.divisor:
            fits = Size(*(-(-side // self.divisor) * self.divisor for side in (height, width)))
            raise UsageError(
                f"this RefineNet takes sides that are multiples of {self.divisor}, not {Size(height, width)}: "
                f"use size {fits}"
            )
        features = []
        for name, layer in self.body.items():
            x = layer(x)
            if name in self.taps:
                features.append(x)
        return features
