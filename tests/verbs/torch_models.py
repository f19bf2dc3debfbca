"""A torch network small enough to be trained by the verbs in a test."""

from __future__ import annotations

from torch import nn

from carvana_ens import Size, TorchModel


class TinyNet(TorchModel):
    size = Size(16, 24)

    def build(self):
        return nn.Sequential(nn.Conv2d(self.channels, 4, 3, 1, 1), nn.ReLU(), nn.Conv2d(4, 1, 3, 1, 1))
