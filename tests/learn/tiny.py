"""A tiny torch model and photos in memory; run as a script it trains them, so that a test can kill it.

usage: python tiny.py FOLDER EPOCHS
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from carvana_ens.learn.torch_model import TorchModel
from carvana_ens.model import FitTask, MemberConfig
from carvana_ens.types import Size


class Net(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.1), nn.Conv2d(8, 8, 3, 1, 1)
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(8, 1, 3, 1, 1))

    def forward(self, x):
        return self.head(self.body(x))


class TinyModel(TorchModel):
    size = Size(24, 32)
    divisor = 4
    batch_size = 3

    def build(self):
        return Net(self.channels)


class Memory:
    """Bright discs on a dark, noisy ground: photos of 40 x 50 with their masks."""

    def __init__(self, first, count, shape=(40, 50)):
        self.ids = [f"disc{i:02d}" for i in range(first, first + count)]
        self.shape = shape
        self.read = []

    def mask(self, image_id):
        rng = np.random.default_rng(int(image_id[4:]))
        y, x = np.indices(self.shape)
        return (y - rng.uniform(12, 28)) ** 2 + (x - rng.uniform(15, 35)) ** 2 < rng.uniform(6, 11) ** 2

    def image(self, image_id):
        self.read.append(image_id)
        rng = np.random.default_rng(int(image_id[4:]))
        ground = rng.integers(0, 90, (*self.shape, 3))
        return np.where(self.mask(image_id)[..., None], ground + 140, ground).astype(np.uint8)


def resized(values, height, width):
    """(..., H, W) on another grid, bilinear, the corner pixels of both grids on one another."""

    def weights(side, wanted):
        points = np.linspace(0, side - 1, wanted) if wanted > 1 else [0]
        return np.stack([np.interp(points, np.arange(side), unit) for unit in np.eye(side)], 1)

    return weights(values.shape[-2], height) @ values @ weights(values.shape[-1], width).T


def config(**options):
    return MemberConfig(name="small", model="tiny", options={"rate": 0.03, **options})


def task(folder, report=lambda numbers: None, **changes):
    values = {"train": Memory(0, 7), "valid": Memory(20, 4), "digest": "a", "seed": 3, "device": "cpu", **changes}
    return FitTask(directory=Path(folder), report=report, **values)


if __name__ == "__main__":
    torch.set_num_threads(1)
    model = TinyModel(config(epochs=int(sys.argv[2]), batch_size=2))
    model.fit(task(sys.argv[1], report=lambda numbers: print(int(numbers["epoch"]), flush=True)))
