"""evaluate: scores any submission CSV against masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from carvana_ens.core.rle import rle_decode
from carvana_ens.data.ids import groups
from carvana_ens.data.images import ImageFolder
from carvana_ens.data.masks import MaskSource, open_masks
from carvana_ens.data.rle_csv import read_rle_csv
from carvana_ens.ensemble.evaluation import Evaluation, evaluate_masks
from carvana_ens.errors import DataError, RLEError, UsageError
from carvana_ens.types import Mask, Size, Track, untracked


def evaluate(
    submission: Path,
    masks: Path,
    *,
    categories: Sequence[str] = (),
    images: Path | None = None,
    size: Size | None = None,
    group: str | None = None,
    partial: bool = False,
    track: Track = untracked,
) -> Evaluation:
    """Decodes every row strictly and scores it.

    masks: a folder, an RLE CSV or a COCO file. The size of each image is the mask's own; an RLE CSV has none, so that
    ``images`` (the photos) or ``size`` (of all) must be given. partial: score the images that both have; otherwise
    both must have the same.

    Raises:
        DataError: a row that is not valid RLE of its image's size, or images that only one side has.
        UsageError: no size is known.
    """
    rows = read_rle_csv(submission)
    source = open_masks(masks, categories)
    ids = sorted(set(rows) & set(source.ids))
    if not partial:
        _refuse_different(submission, rows, masks, source.ids)
    photos = ImageFolder(images) if images is not None else None

    def pairs() -> Iterator[tuple[str, Mask, Mask]]:
        for image_id in track(ids, len(ids), "evaluate"):
            expected = _size(image_id, source, photos, size, masks)
            try:
                mask = rle_decode(rows[image_id], expected)
            except RLEError as error:
                raise RLEError(f"{submission}, image {image_id} of {expected}: {error}") from error
            yield image_id, mask, source.read(image_id, expected)

    return evaluate_masks(pairs(), groups(ids, group))


def _refuse_different(submission: Path, rows: dict[str, str], masks: Path, ids: Sequence[str]) -> None:
    for here, there, place, other in ((rows, ids, submission, masks), (ids, rows, masks, submission)):
        lost = sorted(set(here) - set(there))
        if lost:
            names = ", ".join(lost[:3])
            raise DataError(
                f"{place} has {len(lost)} images that {other} lacks ({names}): "
                f"use --partial to score only the common ones"
            )


def _size(image_id: str, source: MaskSource, photos: ImageFolder | None, size: Size | None, masks: Path) -> Size:
    if size is not None:
        return size
    if photos is not None:
        return photos.size(image_id)
    own = source.own_size(image_id)
    if own is None:
        raise UsageError(
            f"{masks} does not say how large the images are: give their folder with --images, or --size HxW"
        )
    return own
