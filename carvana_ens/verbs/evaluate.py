"""evaluate: scores any submission CSV against masks: those that are named, or those of the project."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from carvana_ens.core.rle import bits_mask
from carvana_ens.core.rle_dialects import CARVANA, Dialect, find_dialect
from carvana_ens.data.ids import groups
from carvana_ens.data.images import ImageFolder
from carvana_ens.data.masks import MaskSource, open_masks
from carvana_ens.data.rle_csv import SUFFIXES, read_rle_csv
from carvana_ens.ensemble.evaluation import Evaluation, evaluate_masks
from carvana_ens.errors import DataError, RLEError, UsageError
from carvana_ens.project import Project
from carvana_ens.types import Mask, Say, Size, Track, unsaid, untracked
from carvana_ens.verbs.out_of_fold import truth_cache
from carvana_ens.verbs.workspace import Workspace


def evaluate(
    submission: Path,
    masks: Path,
    *,
    categories: Sequence[str] = (),
    images: Path | None = None,
    size: Size | None = None,
    group: str | None = None,
    partial: bool = False,
    dialect: str = CARVANA,
    track: Track = untracked,
) -> Evaluation:
    """Decodes every row strictly and scores it.

    masks: a folder, an RLE CSV or a COCO file. The size of each image is the mask's own; an RLE CSV has none, so that
    ``images`` (the photos) or ``size`` (of all) must be given. partial: score the images that both have; otherwise
    both must have the same. dialect: of the submission, and of masks that are an RLE table, see ``core.rle_dialects``.

    Raises:
        DataError: a row that is not valid RLE of its image's size, or images that only one side has.
        UsageError: no size is known, or an unknown dialect.
    """
    written = find_dialect(dialect)
    rows = read_rle_csv(submission)
    table = masks.is_file() and masks.name.lower().endswith(SUFFIXES)
    source = open_masks(masks, categories, dialect if table else None)
    photos = ImageFolder(images) if images is not None else None
    ids = _common(submission, rows, masks, source.ids, partial)

    def pairs() -> Iterator[tuple[str, Mask, Mask]]:
        for image_id in track(ids, len(ids), "evaluate"):
            expected = _size(image_id, source, photos, size, masks)
            yield image_id, _decoded(submission, written, rows, image_id, expected), source.read(image_id, expected)

    return evaluate_masks(pairs(), groups(ids, group))


def evaluate_here(
    project: Project,
    submission: Path,
    *,
    partial: bool = False,
    dialect: str = CARVANA,
    say: Say = unsaid,
    track: Track = untracked,
) -> Evaluation:
    """As ``evaluate``, against the project's masks, which are decoded once into its ``cache/masks``.

    Raises:
        ProjectError: the project has no masks.
        DataError: as for ``evaluate``.
        UsageError: no size is known, or an unknown dialect.
    """
    written = find_dialect(dialect)
    workspace = Workspace(project, say, track)
    source, place = workspace.masks, project.data.masks
    assert place is not None  # or the masks could not have been opened
    rows = read_rle_csv(submission)
    photos = workspace.images if project.data.images is not None else None
    ids = _common(submission, rows, place, source.ids, partial)
    sizes = {image_id: _size(image_id, source, photos, None, place) for image_id in ids}
    truth = truth_cache(workspace, sizes)

    def pairs() -> Iterator[tuple[str, Mask, Mask]]:
        for image_id in track(ids, len(ids), "evaluate"):
            size = sizes[image_id]
            yield image_id, _decoded(submission, written, rows, image_id, size), bits_mask(truth(image_id, size), size)

    return evaluate_masks(pairs(), workspace.groups_of(ids))


def _common(submission: Path, rows: dict[str, str], masks: Path, known: Sequence[str], partial: bool) -> list[str]:
    """Ids that both have; unless ``partial``, both must have the same."""
    if not partial:
        _refuse_different(submission, rows, masks, known)
    return sorted(set(rows) & set(known))


def _decoded(submission: Path, dialect: Dialect, rows: dict[str, str], image_id: str, size: Size) -> Mask:
    try:
        return dialect.decode(rows[image_id], size)
    except RLEError as error:
        raise RLEError(f"{submission}, image {image_id} of {size}: {error}") from error


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
