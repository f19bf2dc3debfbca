"""Version 6: gates, and logit maps on seven grids."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from carvana_ens_refinenet.encoder import Encoder
from carvana_ens_refinenet.network import conv, doubling


class Gate(nn.Module):
    """The product of coarse features, brought to the channels and the grid of finer ones, with those."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.coarse = nn.Sequential(conv(coarse, fine), doubling())
        self.fine = conv(fine, fine)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """(N, fine, 2 H, 2 W) of (N, coarse, H, W) and (N, fine, 2 H, 2 W)."""
        return self.coarse(coarse) * self.fine(fine)


class Refinement(nn.Module):
    """The next finer logit map, from features and a map of one grid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.look = conv(channels, 1)
        self.join = nn.Sequential(conv(2, 1), doubling())

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """(N, 1, 2 H, 2 W) of (N, channels, H, W) and (N, 1, H, W)."""
        return self.join(torch.cat([self.look(features), logits], 1))


class GatedRefineNet(nn.Module):
    """RefineNet, version 6: VGG's features pass a chain of gates; seven logit maps, all of them trained.

    Source: as RefineNet, and its refinenetv6_trainer.py. The six coarser maps end in ReLU, as there.
    """

    def __init__(self, colours: int) -> None:
        super().__init__()
        self.encoder = Encoder("vgg16_bn", colours, divisor=64)
        fine = self.encoder.channels[::-1]
        self.coarsest = nn.Sequential(conv(fine[0], 512), nn.MaxPool2d(2))
        self.first = nn.Sequential(conv(512, 512), conv(512, 1), doubling())
        self.gates = nn.ModuleList(Gate(before, after) for before, after in zip((512, *fine), fine, strict=False))
        self.refinements = nn.ModuleList(Refinement(channels) for channels in fine)
        self.last = nn.Sequential(conv(1, 64), nn.Conv2d(64, 1, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits (N, 1, H, W) of normalised images (N, colours, H, W); in training mode the tuple of all maps, fine to
        coarse, whose pixels are 1, 1, 2, 4, 8, 16 and 32 apart.

        Raises:
            UsageError: a side is no multiple of 64.
        """
        features = self.encoder(images)
        x = self.coarsest(features[-1])
        maps = [self.first(x)]
        for gate, refinement, feature in zip(self.gates, self.refinements, reversed(features), strict=True):
            x = gate(x, feature)
            maps.append(refinement(x, maps[-1]))
        maps.append(self.last(maps[-1]))
        return tuple(reversed(maps)) if self.training else maps[-1]
