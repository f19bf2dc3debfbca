"""show: pictures of photos, truth, maps and blend."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from carvana_ens.core.weights import threshold_text
from carvana_ens.data.images import ImageFolder
from carvana_ens.ensemble.blending import Blend
from carvana_ens.ensemble.steps import PostProcessed, parse_steps, steps_text
from carvana_ens.errors import UsageError
from carvana_ens.output.drawing import check_suffix
from carvana_ens.output.pictures import PictureRow, comparison, mosaic
from carvana_ens.project import Project
from carvana_ens.store.place import place_of
from carvana_ens.store.store import ProbabilityStore, open_store
from carvana_ens.types import Image, Mask, Track, untracked
from carvana_ens.verbs.blend import open_blend, post_processed, tuned_steps
from carvana_ens.verbs.workspace import Workspace

MOSAIC_IMAGES = 16


def show(
    project: Project,
    output: Path,
    ids: Sequence[str] = (),
    *,
    as_mosaic: bool = False,
    split: str | None = None,
    weights: str = "equal",
    threshold: str | None = None,
    postprocess: str | None = None,
    images: Path | None = None,
    track: Track = untracked,
) -> list[str]:
    """Draws the named images (a mosaic without names: the first 16 of the split), and returns their ids.

    Each row: photo, truth where there is one, the map of each member that has one, the blend's outline. As a mosaic:
    rows of plain photos in turn with rows of the cars cut out by the blend. split: "oof" or "test", found from the
    ids where it is not given; another split needs ``images``, its photos. postprocess: steps that masks go
    through; None: the tuned ones with tuned weights.

    Raises:
        UsageError: no ids, or ids of no split.
        StoreError, StaleError, PluginError: what ``open_blend``, ``parse_steps`` or ``post_processed`` refuses.
    """
    check_suffix(output)
    workspace = Workspace(project)
    steps = parse_steps(tuned_steps(project, weights) if postprocess is None else postprocess)
    split, photos = _photos(workspace, ids, split, images)
    plain = open_blend(project, weights, threshold, split)
    blend = post_processed(project, plain, steps, split) if steps else plain
    if not ids:
        if not as_mosaic:
            raise UsageError("show needs image ids, or --mosaic for the first photos of a split")
        ids = blend.ids[:MOSAIC_IMAGES]
    unknown = [image_id for image_id in ids if image_id not in blend.ids]
    if unknown:
        raise UsageError(f"image {unknown[0]!r} has no {split} maps: carvana-ens status says which stores there are")
    if as_mosaic:
        mosaic(_cells(track(ids, len(ids), "mosaic"), photos, blend), output)
    else:
        stores = _members(project, split, blend)
        truth = workspace.masks if split == "oof" and project.data.masks is not None else None
        title = f"blend at {threshold_text(blend.threshold)}" + (f", {steps_text(steps)}" if steps else "")
        rows = (
            PictureRow(
                image_id=image_id,
                photo=photos.read(image_id),
                truth=None if truth is None else truth.read(image_id, blend.size(image_id)),
                members=[(name, _probabilities(store, image_id)) for name, store in stores.items()],
                blend=blend.mask(image_id),
                blend_title=title,
            )
            for image_id in track(ids, len(ids), "show")
        )
        comparison(rows, output)
    return list(ids)


def _photos(
    workspace: Workspace, ids: Sequence[str], split: str | None, images: Path | None
) -> tuple[str, ImageFolder]:
    data = workspace.project.data
    if split is None:
        training = data.test is None or (bool(ids) and data.images is not None and ids[0] in workspace.images.ids)
        split = "oof" if training and images is None else "test"
    if images is not None:
        return split, ImageFolder(images)
    if split not in ("oof", "test"):
        raise UsageError(f"split {split!r} needs --images FOLDER, the photos that it was predicted for")
    return split, workspace.images if split == "oof" else workspace.test


def _members(project: Project, split: str, blend: Blend | PostProcessed) -> dict[str, ProbabilityStore]:
    """The stores of the blended members, and of the others as far as they are complete and of the same photos."""
    stores = {}
    for name in project.members:
        path = project.store_path(name, split)
        if name in blend.weights or place_of(path).exists():
            store = open_store(path)
            if name in blend.weights or (store.ids == blend.ids and not store.missing()):
                stores[name] = store
    return stores


def _probabilities(store: ProbabilityStore, image_id: str) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return (store.read(image_id) / np.float32(store.full_scale)).astype(np.float32)


def _cells(ids: Iterable[str], photos: ImageFolder, blend: Blend | PostProcessed) -> Iterator[tuple[str, Image, Mask]]:
    for image_id in ids:
        yield image_id, photos.read(image_id), blend.mask(image_id)
