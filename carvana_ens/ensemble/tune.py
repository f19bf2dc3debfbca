"""Tuning from Python: stores and masks in, weights with what to believe of them out; no project is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from carvana_ens.core.rle import mask_bits
from carvana_ens.core.weights import parse_threshold
from carvana_ens.data.folds import FoldTable
from carvana_ens.data.ids import groups as groups_of
from carvana_ens.ensemble.disputed import common_ids
from carvana_ens.ensemble.objectives import objective_named
from carvana_ens.ensemble.out_of_fold import OutOfFold
from carvana_ens.ensemble.pareto import MemberCost
from carvana_ens.ensemble.steps import parse_steps
from carvana_ens.ensemble.tuner import Asked, Outcome, tune_maps
from carvana_ens.errors import DataError
from carvana_ens.store.store import ProbabilityStore
from carvana_ens.types import Bits, Mask, Size, Track, untracked


def tune(
    stores: Mapping[str, ProbabilityStore],
    masks: Callable[[str], Mask],
    groups: Mapping[str, str] | None = None,
    *,
    low: str | float | Fraction = "0.25",
    high: str | float | Fraction = "0.75",
    objective: str = "mean-dice",
    spaces: Sequence[str] = ("probability",),
    cut: str = "threshold",
    postprocess: str = "",
    seed: int = 0,
    tables: Mapping[str, FoldTable] | None = None,
    threads: int | None = None,
    track: Track = untracked,
) -> Outcome:
    """Weights and threshold on out-of-fold maps without a project; see ``ensemble.tuner`` and ``Asked`` there.

    Args:
        stores: out-of-fold maps by member.
        masks: gives the true mask of an image id, (H, W) bool; called from threads, once an image.
        groups: the group of each image, the others are left out; None: the part of an id before its last ``_``.
        low: least threshold to search.
        high: greatest; the same: that one.
        objective: mean-dice, pooled-dice or mean-iou.
        spaces: see ``Asked``.
        cut: see ``Asked``.
        postprocess: steps to try, such as "largest,fill-holes".
        seed: of the search's random starts, and of folds where the members share no table.
        tables: the fold tables by name that the stores were made with, see ``data.folds.read_folds``.
        threads: None for as many as there are processors.
        track: shows progress.

    Raises:
        UsageError: options that cannot be meant.
        DataError: a mask of another size than the maps, or no image that all members have.
        StoreError: maps that are missing or damaged, or by a model that saw their images.
    """
    for store in stores.values():
        store.require_complete()
    known = groups_of(common_ids(list(stores.values()))) if groups is None else groups
    bits: dict[str, Bits] = {}

    def truth(image_id: str, size: Size) -> Bits:
        if image_id not in bits:
            mask = masks(image_id)
            if mask.shape != tuple(size):
                raise DataError(f"the mask of {image_id} is {mask.shape}, its maps are {size}: give one of that size")
            bits[image_id] = mask_bits(mask)
        return bits[image_id]

    maps = OutOfFold(stores, truth, "", known, tables or {}, None, threads, track)
    steps = parse_steps(postprocess)
    asked = Asked(
        parse_threshold(low),
        parse_threshold(high),
        objective_named(objective),
        seed=seed,
        spaces=tuple(spaces),
        cut=cut,
        steps=steps,
    )
    return tune_maps(maps, asked, dict.fromkeys(stores, MemberCost(0.0, 0)))
