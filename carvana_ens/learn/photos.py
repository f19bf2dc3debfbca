"""Training photos on the network's grid, kept in memory as bytes when they fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carvana_ens.errors import DataError
from carvana_ens.learn.ahead import read_ahead
from carvana_ens.learn.resize import SQUASH, Fitting, grid_of
from carvana_ens.model import Samples, SoftSamples
from carvana_ens.types import Size

CACHE_BYTES = 2 * 2**30


class Photos:
    """Photos and masks of a sample source, brought to the network's grid once.

    Everything is kept (4 bytes a pixel) when the whole source fits ``CACHE_BYTES``, else each photo is read anew.
    """

    def __init__(self, samples: Samples, size: Size | None, fitting: Fitting = SQUASH) -> None:
        """size, fitting: of ``input_rule``; size None takes the first photo's, and all must come to its grid."""
        self.samples, self.fitting = samples, fitting
        self.ids = tuple(samples.ids)
        self.asked = grid_of(samples.image(self.ids[0])) if size is None else size
        self.size = fitting.grid(self.asked)
        self.sized = size is not None
        fits = len(self.ids) * self.size.height * self.size.width * 4 <= CACHE_BYTES
        self._kept: dict[int, NDArray[np.uint8]] | None = {} if fits else None

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self, chunks: Iterable[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """For each chunk of indices: images (N, 3, H, W) uint8 RGB, and covers (N, 1, H, W) uint8, the object's part
        of each pixel, 255 = all of it. The next chunk is read meanwhile.
        """
        for layers in read_ahead(self._read, chunks):
            stacked = torch.from_numpy(np.stack(layers))
            yield stacked[:, :3], stacked[:, 3:]

    def _read(self, index: int) -> NDArray[np.uint8]:
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        image_id = self.ids[index]
        samples, image = self.samples, self.samples.image(image_id)
        mask = samples.target(image_id) if isinstance(samples, SoftSamples) else samples.mask(image_id)
        if grid_of(image) != grid_of(mask):
            raise DataError(f"the mask of {image_id} is {grid_of(mask)}, its photo {grid_of(image)}: they must agree")
        if not self.sized and self.fitting.grid(grid_of(image)) != self.size:
            raise DataError(
                f"photo {image_id} is {grid_of(image)}, {self.ids[0]} is {self.asked}: "
                "give the member an input size to train on photos of several sizes"
            )
        fitted = self.fitting.image(image, self.size, image_id)
        cover = np.rint(self.fitting.cover(mask, self.size) * 255).astype(np.uint8)
        layers = np.concatenate([fitted.transpose(2, 0, 1), cover[None]])
        if self._kept is not None:
            self._kept[index] = layers
        return layers
