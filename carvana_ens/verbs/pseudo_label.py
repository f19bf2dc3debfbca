"""pseudo-label: the blend of the test photos as soft masks for training, of those that the ensemble is sure about."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carvana_ens.core.weights import cut_sum, threshold_text
from carvana_ens.data.ids import listed
from carvana_ens.data.images import ImageFolder
from carvana_ens.data.pseudo import LISTING, PseudoImage, write_listing, write_map
from carvana_ens.engine import default_threads, ordered_map
from carvana_ens.ensemble.blending import Blend
from carvana_ens.ensemble.stack import MapStack
from carvana_ens.ensemble.unlabelled import border_length
from carvana_ens.errors import DataError, ProjectError, UsageError
from carvana_ens.project import Project, check_pseudo_name
from carvana_ens.store.store import ProbabilityStore, open_store
from carvana_ens.types import Json, Mask, Say, Track, unsaid, untracked
from carvana_ens.verbs.blend import open_blend
from carvana_ens.verbs.runs import recorded
from carvana_ens.verbs.workspace import Workspace, check_apart

LOW, HIGH = Fraction(1, 10), Fraction(9, 10)
"""Between these probabilities a pixel is in doubt."""


@dataclass(frozen=True)
class Labelled:
    """What was chosen, and written unless it was a dry run. images: of the test split. doubt: pixels, the greatest
    of those that are kept. borderless: images whose mask has no border, which are never kept.
    """

    folder: Path
    images: int
    kept: int
    doubt: float
    borderless: int


def pseudo_label(
    project: Project,
    name: str = "pseudo",
    *,
    weights: str = "equal",
    threshold: str | None = None,
    keep: float = 0.5,
    max_doubt: float | None = None,
    fresh: bool = False,
    dry_run: bool = False,
    threads: int | None = None,
    say: Say = unsaid,
    track: Track = untracked,
) -> Labelled:
    """Writes pseudo-labels of the test photos into ``pseudo/<name>``: photos by their path, maps as 8-bit PNG.

    An image's doubt is the number of its pixels with a blended probability between 0.1 and 0.9, divided by the length
    of the object's border, see ``doubt_of``: how many pixels wide the doubtful seam is, which does not grow with the
    object. The images of least doubt are kept, ties by id; those without any border never.

    Only test photos are labelled, and none whose group has training photos. That the fold models behind the blend
    have, between them, seen every training photo remains: out-of-fold scores of members trained with pseudo-labels
    are a little too good.

    Args:
        project: members with complete test maps.
        name: of the pseudo-labels.
        weights: as ``blend`` has it.
        threshold: where the border lies, as ``blend`` has it.
        keep: greatest share of all images to keep, in (0, 1].
        max_doubt: pixels; images with more are not kept.
        fresh: makes them anew where they are there.
        dry_run: writes nothing.
        threads: None for as many as there are processors.
        say: told of weights that vanish.
        track: shows progress.

    Raises:
        UsageError: arguments that cannot be meant, or what ``open_blend`` refuses.
        ProjectError: the pseudo-labels are there, or the project names no test photos.
        DataError: maps of other images than the test photos, photos of groups that have training photos, or no image
            is sure enough.
        StoreError: what ``open_blend`` refuses, or a damaged map.
    """
    check_pseudo_name(name)
    if not 0 < keep <= 1:
        raise UsageError(f"--keep takes a share of the images above 0 and up to 1, got {keep}")
    if max_doubt is not None and not max_doubt >= 0:
        raise UsageError(f"--max-doubt takes a number of pixels from 0, got {max_doubt}")
    folder = project.pseudo_folder(name)
    if (folder / LISTING).exists() and not (fresh or dry_run):
        raise ProjectError(f"{folder} is there already: choose another name, or make it anew with --fresh")
    workspace = Workspace(project, say, track)
    blend = open_blend(project, weights, threshold, "test", say)
    if blend.space.kind != "probability" or blend.cut != "threshold":
        raise UsageError(
            f"pseudo-labels are mean probabilities, but what was tuned is of the blending space {blend.space.kind} and "
            f"cut by {blend.cut}: name weights and a threshold, such as --weights equal --threshold 0.5"
        )
    _check_images(workspace, blend)
    stores = {member: open_store(project.store_path(member, "test")) for member in blend.weights}
    mean = _Mean(stores, blend)
    threads = threads or default_threads()

    doubts = dict(track(ordered_map(mean.doubt, blend.ids, threads), len(blend.ids), "doubt"))
    chosen = _surest(doubts, keep, max_doubt)
    borderless = sum(doubt is None for doubt in doubts.values())
    done = Labelled(folder, len(doubts), len(chosen), chosen[max(chosen, key=lambda i: chosen[i])], borderless)
    if dry_run:
        return done

    source: dict[str, Json] = {
        "split": "test",
        "weights": blend.weights,
        "threshold": threshold_text(blend.threshold),
        "stores": {member: store.fingerprint() for member, store in stores.items()},
        "doubtful": [float(LOW), float(HIGH)],
        "keep": keep,
        "max_doubt": max_doubt,
        "images": len(doubts),
    }
    with recorded(project, "pseudo-label", name=name, **source) as run:
        (folder / LISTING).unlink(missing_ok=True)  # first, so that a stop cannot leave a listing of other maps
        shutil.rmtree(folder, ignore_errors=True)

        def one(image_id: str) -> PseudoImage:
            photo = _photo(workspace.test, image_id, blend)
            checksum = write_map(folder, image_id, mean.codes(image_id))
            return PseudoImage(image_id, _relative(photo, project.root), round(chosen[image_id], 4), checksum)

        images = list(track(ordered_map(one, sorted(chosen), threads), len(chosen), "pseudo-labels"))
        write_listing(folder, source, images)
        run |= {"kept": len(images)}
    return done


def doubt_of(doubtful: Mask, mask: Mask) -> float | None:
    """How wide the seam of doubtful pixels is along the object's border, in pixels; None where there is no border.

    Args:
        doubtful: (H, W), the pixels that may be either.
        mask: (H, W), the object.
    """
    border = border_length(mask)
    return np.count_nonzero(doubtful) / border if border else None


class _Mean:
    """The weighted mean of the members' maps, image by image, in whole numbers; to be used from several threads."""

    def __init__(self, stores: Mapping[str, ProbabilityStore], blend: Blend) -> None:
        self._blend = blend
        self._weights = [blend.weights[member] for member in stores]
        self._stack = MapStack(list(stores.values()))
        self._whole = self._stack.full_scale * sum(self._weights)
        self._cut = cut_sum(blend.threshold, self._stack.full_scale, sum(self._weights))

    def _sums(self, image_id: str) -> NDArray[np.uint32]:
        """(H, W) sums of weight x code: weights come to 2**16 at most, so they fit."""
        rows = self._stack.read(image_id)
        sums = np.zeros(rows.shape[1], np.uint32)
        for row, weight in zip(rows, self._weights, strict=True):
            sums += row * np.uint32(weight)
        return sums.reshape(self._blend.size(image_id))

    def doubt(self, image_id: str) -> tuple[str, float | None]:
        """The image and its doubt."""
        sums = self._sums(image_id)
        doubtful = (sums > floor(LOW * self._whole)) & (sums < ceil(HIGH * self._whole))
        return image_id, doubt_of(doubtful, sums >= self._cut)

    def codes(self, image_id: str) -> NDArray[np.uint8]:
        """(H, W) rint(255 x mean probability), half to even: in float64 without an error, for so few digits."""
        codes: NDArray[np.uint8] = np.rint(self._sums(image_id) * 255.0 / self._whole).astype(np.uint8)
        return codes


def _check_images(workspace: Workspace, blend: Blend) -> None:
    photos = set(workspace.test.ids)
    unknown = [image_id for image_id in blend.ids if image_id not in photos]
    if unknown:
        raise DataError(
            f"{len(unknown)} of {len(blend.ids)} test maps have no photo in {workspace.test.folder}: "
            f"{listed(unknown)}; pseudo-labels need the photos that the maps were made of"
        )
    if workspace.project.data.images is not None:
        known = set(workspace.groups_of(workspace.images.ids).values())
        check_apart(workspace.groups_of(blend.ids), known, "the test photos")


def _surest(doubts: Mapping[str, float | None], keep: float, most: float | None) -> dict[str, float]:
    """The doubt of each image that is kept."""
    known = sorted((doubt, image_id) for image_id, doubt in doubts.items() if doubt is not None)
    count = floor(Fraction(str(keep)) * len(doubts))
    chosen = {image_id: doubt for doubt, image_id in known[:count] if most is None or doubt <= most}
    if not chosen:
        least = f"the least doubt is {known[0][0]:.3g} pixels" if known else "no mask has a border"
        raise DataError(
            f"none of {len(doubts)} images is kept with --keep {keep}"
            f"{'' if most is None else f' and --max-doubt {most}'}: {least}; allow more"
        )
    return chosen


def _photo(test: ImageFolder, image_id: str, blend: Blend) -> Path:
    if test.size(image_id) != blend.size(image_id):
        raise DataError(
            f"{test.path(image_id)} is {test.size(image_id)}, its test maps {blend.size(image_id)}: was it replaced? "
            f"predict it again"
        )
    return test.path(image_id)


def _relative(photo: Path, root: Path) -> str:
    try:
        return Path(os.path.relpath(photo.absolute(), root.absolute())).as_posix()
    except ValueError:  # on another drive
        return photo.absolute().as_posix()
