"""What all sources of masks have in common."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Protocol

from carvana_ens.errors import DataError
from carvana_ens.types import Mask, Size


class MaskSource(Protocol):
    """Masks by image id, read one at a time; reading is safe in threads."""

    @property
    def ids(self) -> tuple[str, ...]:
        """All image ids that have a mask, sorted."""

    @property
    def describe(self) -> str:
        """Where the masks come from, in a few words."""

    def own_size(self, image_id: str) -> Size | None:
        """The size that the source itself gives a mask; None where it does not know (an RLE table).

        Raises:
            DataError: no such mask, or a damaged one.
        """

    def read(self, image_id: str, size: Size) -> Mask:
        """(H, W) bool, True = object.

        Args:
            image_id: one of ``ids``.
            size: that of the photo.

        Raises:
            DataError: no such mask, a damaged one, or one of another size than the photo.
        """


def check_mask_size(image_id: str, got: Size, size: Size, where: str) -> None:
    """Refuses a mask that does not fit its photo.

    Raises:
        DataError: the sizes differ; says so if one is the other turned, which is how lost EXIF rotation looks.
    """
    if got == size:
        return
    turned = " (was one of them turned without the other?)" if got == (size.width, size.height) else ""
    raise DataError(
        f"the mask of image {image_id!r} in {where} is {got}, its photo is {size}{turned}: "
        f"masks are not resized, make it again on the photo's own grid"
    )


def unknown_id(image_id: str, where: str, ids: Collection[str]) -> DataError:
    """The error for an image id that a source does not have, with the nearest that it has."""
    near = difflib.get_close_matches(image_id, ids, 1) if len(ids) <= 10_000 else []
    hint = f"did you mean {near[0]!r}?" if near else f"it has {len(ids)} others"
    return DataError(f"image {image_id!r} is not in {where}: {hint}")
