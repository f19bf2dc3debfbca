"""The decoder of a U-Net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from carvana_ens import UsageError


class UnetDecoder(nn.Module):
    """From the coarsest features up, each doubling joined by the features of its grid where there are any.

    Args:
        channels: of the encoder's features, by stride.
        widths: channels after each doubling of the grid, down to the photo's own.
        dropout: part of the last channels that training drops.

    Raises:
        UsageError: the number of widths is not the number of doublings.

    Source: O. Ronneberger et al. (arXiv 1505.04597), with the encoder's last features in place of the bottom.
    """

    def __init__(self, channels: Mapping[int, int], widths: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.coarsest = max(channels)
        doublings = self.coarsest.bit_length() - 1
        if len(widths) != doublings:
            raise UsageError(
                f"option decoder_channels has {len(widths)} widths, but this encoder's coarsest features lie "
                f"{self.coarsest} pixels apart: give {doublings} widths"
            )
        self.strides = [self.coarsest >> step for step in range(1, doublings + 1)]
        inputs = [channels[self.coarsest], *widths[:-1]]
        self.blocks = nn.ModuleList(
            _conv_twice(before + channels.get(stride, 0), width)
            for before, stride, width in zip(inputs, self.strides, widths, strict=True)
        )
        self.head = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, features: Mapping[int, Tensor]) -> Tensor:
        """Logits (N, 1, H, W) of the features (N, channels[s], H / s, W / s) by stride s."""
        x = features[self.coarsest]
        for block, stride in zip(self.blocks, self.strides, strict=True):
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = block(torch.cat([x, features[stride]], 1) if stride in features else x)
        logits: Tensor = self.head(x)
        return logits


def _conv_twice(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [
            nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
