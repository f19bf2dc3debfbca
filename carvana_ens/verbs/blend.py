"""blend: finished stores into one submission, and mask files if asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from carvana_ens.core.rle import bits_mask, rle_encode_bits_bytes
from carvana_ens.engine import default_threads, ordered_map
from carvana_ens.ensemble.blending import Blend
from carvana_ens.ensemble.tuning import check_fresh, read_tuning
from carvana_ens.errors import StoreError, UsageError
from carvana_ens.output.masks import write_mask
from carvana_ens.output.submission import check_names, check_suffix, sample_names, write_submission
from carvana_ens.project import Project
from carvana_ens.store.store import ProbabilityStore, open_store
from carvana_ens.types import Track, untracked
from carvana_ens.verbs.runs import recorded

TUNED = "tuned"


@dataclass(frozen=True)
class Blended:
    """What was written. weights: exact integers, members of weight zero left out. threshold: exact."""

    path: Path | None
    images: int
    weights: dict[str, int]
    threshold: str


def open_blend(project: Project, weights: str = "equal", threshold: str | None = None, split: str = "test") -> Blend:
    """The blend of a project's stores.

    weights: "equal" (every member), "tuned", or "name=w,...". threshold: "tuned" or a number; None: tuned with tuned
    weights, else 0.5.

    Raises:
        UsageError: weights or a threshold that cannot be meant.
        StaleError: tuned values whose sources changed.
        StoreError: a store is missing or incomplete, or they have other images.
    """
    project.select(())
    if threshold is None:
        threshold = TUNED if weights == TUNED else "0.5"
    names = list(project.members)
    if weights not in ("equal", TUNED):
        named = [part.partition("=")[0].strip() for part in weights.split(",")]
        names = [name for name in names if name in named]
    if TUNED in (weights, threshold):
        tuning = read_tuning(project.tuning_file)
        lost = [name for name in tuning.weights if name not in project.members]
        if lost:
            raise UsageError(
                f"{project.tuning_file} was made with member {lost[0]}, which is gone: run carvana-ens tune"
            )
        if weights == TUNED:
            names = [name for name, weight in tuning.weights.items() if weight > 0]
            weights = ",".join(f"{name}={tuning.weights[name]}" for name in names)
        oof = {name: open_store(project.store_path(name, "oof")) for name in tuning.weights}
        stores = _open(project, names, split)
        check_fresh(project.tuning_file, tuning, oof, {name: stores[name] for name in names if name in oof})
        threshold = tuning.threshold if threshold == TUNED else threshold
    else:
        stores = _open(project, names, split)
    if not stores:  # no named member exists: let the blend say so, with the names there are
        stores = _open(project, list(project.members), split)
    return Blend(stores, weights, threshold)


def _open(project: Project, names: list[str], split: str) -> dict[str, ProbabilityStore]:
    stores = {}
    for name in names:
        path = project.store_path(name, split)
        if not path.exists():
            raise StoreError(f"member {name} has no {split} maps ({path} is not there): run predict or import first")
        stores[name] = open_store(path)
    return stores


def blend(
    project: Project,
    output: Path | None,
    *,
    weights: str = "equal",
    threshold: str | None = None,
    split: str = "test",
    masks: Path | None = None,
    sample_submission: Path | None = None,
    threads: int | None = None,
    track: Track = untracked,
) -> Blended:
    """Writes the blend as a submission (``.csv`` or ``.csv.gz``), and as PNG masks into the folder ``masks``.

    The CSV text depends on the maps, weights and threshold alone: not on threads, nor on the order of the members.

    Raises:
        UsageError: nothing to write, or what ``open_blend`` refuses.
        DataError: the images are not those of the sample submission.
        StoreError: what ``open_blend`` refuses, or a damaged map.
    """
    if output is None and masks is None:
        raise UsageError("blend has nothing to write: name a submission with -o FILE, or a folder with --masks DIR")
    if output is not None:
        check_suffix(output)
    combined = open_blend(project, weights, threshold, split)
    if sample_submission is not None:
        check_names(combined.ids, sample_names(sample_submission))

    def one(image_id: str) -> tuple[str, bytes]:
        bits = combined.bits(image_id)
        size = combined.size(image_id)
        if masks is not None:
            write_mask(masks, image_id, bits_mask(bits, size))
        return image_id, rle_encode_bits_bytes(bits, size.height * size.width)

    rows: Iterator[tuple[str, bytes]] = ordered_map(one, combined.ids, threads or default_threads())
    facts = {"weights": combined.weights, "threshold": str(combined.threshold), "split": split}
    with recorded(project, "blend", **facts) as run:
        tracked = track(rows, len(combined.ids), "blend")
        images = write_submission(output, tracked) if output is not None else sum(1 for _ in tracked)
        run |= {"images": images}
    return Blended(output, images, combined.weights, str(combined.threshold))
