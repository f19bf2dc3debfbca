"""Photos joined with their masks."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from carvana_ens.data.images import ImageFolder
from carvana_ens.data.mask_source import MaskSource
from carvana_ens.errors import DataError
from carvana_ens.types import Image, Mask


class LabelledImages:
    """Some photos of a folder with their masks, read one at a time (:class:`carvana_ens.model.Samples`)."""

    def __init__(self, images: ImageFolder, masks: MaskSource, ids: Iterable[str]) -> None:
        """Joins them.

        Args:
            images: the photos.
            masks: their masks.
            ids: which of them, in this order.

        Raises:
            DataError: an id that has no photo or no mask, or comes twice.
        """
        self.ids: tuple[str, ...] = tuple(ids)
        if len(set(self.ids)) != len(self.ids):
            twice = next(image_id for image_id in self.ids if self.ids.count(image_id) > 1)
            raise DataError(f"image {twice!r} is listed twice: list each photo once")
        _refuse_missing(self.ids, images.ids, f"photo in {images.folder}")
        _refuse_missing(self.ids, masks.ids, f"mask in {masks.describe}")
        self._images = images
        self._masks = masks

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, image_id: str) -> Image:
        """The photo, (H, W, 3) uint8 RGB."""
        return self._images.read(image_id)

    def mask(self, image_id: str) -> Mask:
        """The photo's mask, (H, W) bool, True = object, on the photo's grid.

        Raises:
            DataError: a mask that cannot be used, or is not of the photo's size.
        """
        return self._masks.read(image_id, self._images.size(image_id))


def matched_ids(images: ImageFolder, masks: MaskSource) -> tuple[str, ...]:
    """The ids of all photos, sorted, if every photo has a mask and every mask a photo.

    Raises:
        DataError: names up to three ids that lack one.
    """
    _refuse_missing(images.ids, masks.ids, f"mask in {masks.describe}")
    _refuse_missing(masks.ids, images.ids, f"photo in {images.folder}")
    return images.ids


def _refuse_missing(wanted: Collection[str], there: Iterable[str], what: str) -> None:
    missing = sorted(set(wanted) - set(there))
    if missing:
        names = ", ".join(repr(image_id) for image_id in missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise DataError(
            f"{len(missing)} of {len(wanted)} images have no {what}: {names}; add them or take the rest out"
        )
