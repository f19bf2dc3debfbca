"""Photos and masks brought to a network's grid, and maps back, the same way in training and prediction.

Resizing is Pillow's (half-pixel). Padding leaves every pixel of the photo as it is, and cropping gives it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from carvana_ens.errors import DataError
from carvana_ens.learn.clahe import equalised_image
from carvana_ens.learn.recipe import TorchOptions
from carvana_ens.model import Model
from carvana_ens.types import Image, Mask, ProbabilityMap, Size

BILINEAR = Pillow.Resampling.BILINEAR
BOX = Pillow.Resampling.BOX
MODES: dict[str, Literal["constant", "edge", "reflect"]] = {"zero": "constant", "edge": "edge", "reflect": "reflect"}
"""numpy's name of each fill."""


def grid_of(array: NDArray[np.generic]) -> Size:
    """Size of an (H, W) or (H, W, 3) array."""
    return Size(array.shape[0], array.shape[1])


def resize_image(image: Image, size: Size) -> Image:
    """(H, W, 3) uint8 on the grid ``size``: bilinear, with the support widened where it shrinks (no aliasing)."""
    if grid_of(image) == size:
        return np.ascontiguousarray(image)
    return resize_picture(Pillow.fromarray(image), size)


def resize_picture(picture: Pillow.Image, size: Size) -> Image:
    """``resize_image`` of an RGB picture that Pillow has read."""
    return np.array(picture.resize((size.width, size.height), BILINEAR))  # a copy where the size is the same


def mask_cover(mask: Mask | ProbabilityMap, size: Size) -> ProbabilityMap:
    """(H, W) float32 on the grid ``size``: the part of each new pixel's area that the object covers.

    mask: bool, or float32 in [0, 1] where it is soft.
    """
    cover = mask.astype(np.float32)
    if grid_of(mask) == size:
        return cover
    resized = Pillow.fromarray(cover).resize((size.width, size.height), BOX)
    return np.array(resized, dtype=np.float32)


def resize_map(values: ProbabilityMap, size: Size) -> ProbabilityMap:
    """(H, W) float32 on the grid ``size``, bilinear as in ``resize_image``."""
    if grid_of(values) == size:
        return values
    return np.array(Pillow.fromarray(values).resize((size.width, size.height), BILINEAR), dtype=np.float32)


class Fitting(Protocol):
    """A way from photos to a network's grid and back."""

    def grid(self, size: Size) -> Size:
        """The network's grid for an input size that was asked for, or for a photo's own."""

    def image(self, image: Image, grid: Size, image_id: str) -> Image:
        """(H, W, 3) uint8 on the grid. Raises DataError, naming the photo, where it cannot be brought there."""

    def cover(self, mask: Mask | ProbabilityMap, grid: Size) -> ProbabilityMap:
        """(H, W) float32 in [0, 1] on the grid: the part of each pixel that the object covers. A mask may be soft."""

    def window(self, grid: Size, size: Size) -> tuple[slice, slice]:
        """Rows and columns of the grid that show a photo of this size."""


def map_back(values: ProbabilityMap, size: Size, fitting: Fitting) -> ProbabilityMap:
    """(H, W) float32 values of the network's grid on that of a photo of this size."""
    return np.ascontiguousarray(resize_map(values[fitting.window(grid_of(values), size)], size))


def scaled_image(image: Image, fitted: Image, grid: Size, fitting: Fitting, image_id: str) -> Image:
    """(H, W, 3) uint8 on a grid of another scale. fitted: the photo on the network's own grid.

    From the photo itself where all of the grid shows it; a padded photo is scaled with its padding.
    """
    own = grid_of(fitted)
    whole = fitting.window(own, grid_of(image)) == SQUASH.window(own, grid_of(image))
    return fitting.image(image, grid, image_id) if whole and own != grid_of(image) else resize_image(fitted, grid)


class Squash:
    """Photos are resized to the grid, whatever their proportions."""

    def grid(self, size: Size) -> Size:
        """The size as it is."""
        return size

    def image(self, image: Image, grid: Size, image_id: str) -> Image:  # noqa: ARG002 - nothing can go wrong
        """See ``resize_image``."""
        return resize_image(image, grid)

    def cover(self, mask: Mask | ProbabilityMap, grid: Size) -> ProbabilityMap:
        """See ``mask_cover``."""
        return mask_cover(mask, grid)

    def window(self, grid: Size, size: Size) -> tuple[slice, slice]:  # noqa: ARG002 - all of it, whatever the size
        """All of it."""
        return slice(0, grid.height), slice(0, grid.width)


SQUASH = Squash()


@dataclass(frozen=True)
class Padding:
    """Photos keep their pixels; the grid's other pixels lie beside them. Masks are padded as their photos are.

    fill: zero: black; edge: the border repeated; reflect: mirrored, the border pixel not repeated. sides: after:
    right and below; both: half left and above, an odd pixel right and below. multiple: what the grid's sides are
    multiples of.
    """

    fill: Literal["zero", "edge", "reflect"]
    sides: Literal["after", "both"]
    multiple: int = 1

    def grid(self, size: Size) -> Size:
        """The size, its sides rounded up to the multiple."""
        return Size(*(-(-side // self.multiple) * self.multiple for side in size))

    def image(self, image: Image, grid: Size, image_id: str) -> Image:
        """The photo with its padding.

        Raises:
            DataError: it is larger than the grid, or too small to be mirrored that far out.
        """
        photo = grid_of(image)
        margins = self._margins(photo, grid)
        if grid.height < photo.height or grid.width < photo.width:
            raise DataError(
                f"photo {image_id} is {photo}, larger than the input size {grid}, and option pad={self.fill} never "
                f"shrinks it: give the member a size of {photo} or more or none at all, or set pad=none"
            )
        if self.fill == "reflect" and any(max(margin) >= side for margin, side in zip(margins, photo, strict=True)):
            raise DataError(
                f"photo {image_id} is {photo}, too small to be mirrored out to {grid}: "
                "set pad=edge or pad=zero, or give the member a smaller size"
            )
        return np.pad(image, (*margins, (0, 0)), MODES[self.fill])

    def cover(self, mask: Mask | ProbabilityMap, grid: Size) -> ProbabilityMap:
        """The mask as 0 and 1, with its padding."""
        return np.pad(mask.astype(np.float32), self._margins(grid_of(mask), grid), MODES[self.fill])

    def window(self, grid: Size, size: Size) -> tuple[slice, slice]:
        """The photo's own pixels."""
        (above, _), (left, _) = self._margins(size, grid)
        return slice(above, above + size.height), slice(left, left + size.width)

    def _margins(self, photo: Size, grid: Size) -> tuple[tuple[int, int], ...]:
        """(before, after) of each axis."""
        added = [whole - own for whole, own in zip(grid, photo, strict=True)]
        return tuple((0, n) if self.sides == "after" else (n // 2, n - n // 2) for n in added)


@dataclass(frozen=True)
class Equalised:
    """Photos are equalised on their own grid, then go the way of ``fitting``."""

    fitting: Fitting

    def grid(self, size: Size) -> Size:
        """That of ``fitting``."""
        return self.fitting.grid(size)

    def image(self, image: Image, grid: Size, image_id: str) -> Image:
        """See ``clahe.equalised_image``."""
        return self.fitting.image(equalised_image(image), grid, image_id)

    def cover(self, mask: Mask | ProbabilityMap, grid: Size) -> ProbabilityMap:
        """That of ``fitting``."""
        return self.fitting.cover(mask, grid)

    def window(self, grid: Size, size: Size) -> tuple[slice, slice]:
        """That of ``fitting``."""
        return self.fitting.window(grid, size)


def input_rule(model: Model, *, tiled: bool = False) -> tuple[Size | None, Fitting]:
    """The input size that photos are brought to (None: each photo's own), and the way there.

    A photo that is padded, or predicted in tiles, is not resized, so the model's default size, chosen to squash to,
    does not bind it: only the member's own size does.
    """
    options = model.options
    size = model.config.size or (None if tiled else model.size)
    fitting: Fitting = SQUASH
    if not isinstance(options, TorchOptions):
        return size, fitting
    if options.pad != "none":
        size, fitting = model.config.size, Padding(options.pad, options.pad_sides, getattr(model, "divisor", 1))
    return size, Equalised(fitting) if options.equalise else fitting
