"""The decoder of LinkNet, as the Carvana winners had it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from torch import Tensor, nn

LAST = 32
"""Channels of the last convolutions."""


class LinknetDecoder(nn.Module):
    """From the coarsest features up, each doubling brought to the channels of its grid's features and added to them.

    The doubling to a stride of 2, and one without features of its grid, keeps its channels and adds nothing. The
    photo's own grid comes by convolutions without normalisation: 3x3 transposed, 3x3, 2x2.

    Args:
        channels: of the encoder's features, by stride.
        dropout: part of the last channels that training drops.

    Source: A. Chaurasia and E. Culurciello (arXiv 1707.03718), in the form of the first solution's albu group, which
        has no skip at a stride of 2.
    """

    def __init__(self, channels: Mapping[int, int], dropout: float = 0.0) -> None:
        super().__init__()
        self.coarsest = max(channels)
        self.strides = [self.coarsest >> step for step in range(1, self.coarsest.bit_length() - 1)]
        self.skips = [stride for stride in self.strides if stride in channels and stride > 2]
        widths = [channels[self.coarsest]]
        for stride in self.strides:
            widths.append(channels[stride] if stride in self.skips else widths[-1])
        self.blocks = nn.ModuleList(_double(*pair) for pair in itertools.pairwise(widths))
        # On a side of H / 2 these give H + 1, H - 1 and H pixels.
        self.head = nn.Sequential(
            nn.ConvTranspose2d(widths[-1], LAST, 3, stride=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(LAST, LAST, 3),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
            nn.Conv2d(LAST, 1, 2, padding=1),
        )

    def forward(self, features: Mapping[int, Tensor]) -> Tensor:
        """Logits (N, 1, H, W) of the features (N, channels[s], H / s, W / s) by stride s."""
        x = features[self.coarsest]
        for block, stride in zip(self.blocks, self.strides, strict=True):
            x = block(x)
            if stride in self.skips:
                x = x + features[stride]
        logits: Tensor = self.head(x)
        return logits


def _double(inputs: int, outputs: int) -> nn.Sequential:
    """A grid twice as fine, through a quarter of the channels."""
    middle = max(1, inputs // 4)
    doubling = nn.ConvTranspose2d(middle, middle, 3, stride=2, padding=1, output_padding=1, bias=False)
    layers: list[nn.Module] = []
    for convolution, channels in (
        (nn.Conv2d(inputs, middle, 1, bias=False), middle),
        (doubling, middle),
        (nn.Conv2d(middle, outputs, 1, bias=False), outputs),
    ):
        layers += [convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
