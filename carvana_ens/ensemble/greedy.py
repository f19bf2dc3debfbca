"""Caruana's greedy ensemble selection with replacement (Caruana et al., ICML 2004), on exact threshold curves.

A round adds the member whose extra vote gives the best score; a member may be chosen again, and the counts of its
choices are its weight. The best prefix of the path is kept. The score of a candidate is the greatest mean Dice over
all thresholds k / S, from one histogram pass an image, so every candidate is judged at its own best cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carvana_ens.core.blend import stack_codes
from carvana_ens.core.curve import dice_curve, histograms
from carvana_ens.core.rle import mask_bits
from carvana_ens.errors import DataError, StoreError
from carvana_ens.store.store import ProbabilityStore
from carvana_ens.types import Mask, Size

Curve = NDArray[np.float64]
"""(S,) mean Dice at the thresholds 1/S .. S/S."""
TruthReader = Callable[[str, Size], Mask]
"""Reads the mask of an image id at the image's size."""
DIGITS = 9
"""Scores are compared after rounding, so that float noise picks no member."""


PATIENCE = 5
"""Rounds without a gain after which a search ends."""


def mean_curves(
    stores: Sequence[ProbabilityStore], ids: Iterable[str], truth: TruthReader, candidates: Sequence[Sequence[int]]
) -> list[Curve]:
    """Mean Dice over ``ids`` at every threshold, for each candidate; one pass over the maps.

    candidates: integer weights by store, sums from 1 to 2**16.
    """
    totals: list[Curve] = []
    factors = [np.array(candidate, dtype=np.uint32) for candidate in candidates]
    images = 0
    for image_id in ids:
        codes, full_scale = stack_codes([store.read(image_id) for store in stores])
        bits = mask_bits(truth(image_id, stores[0].sizes[stores[0].index[image_id]]))
        if not totals:
            totals = [np.zeros(full_scale) for _ in factors]
        for number, weights in enumerate(factors):
            totals[number] += dice_curve(*histograms(codes, weights, bits))
        images += 1
    return [total / images for total in totals]


def common_ids(stores: Sequence[ProbabilityStore]) -> list[str]:
    """Ids that every store has, in the order of the first.

    Raises:
        StoreError: two stores have an image at different sizes.
    """
    ids = [image_id for image_id in stores[0].ids if all(image_id in store.index for store in stores)]
    for image_id in ids:
        sizes = [store.sizes[store.index[image_id]] for store in stores]
        for store, size in zip(stores, sizes, strict=True):
            if size != sizes[0]:
                raise StoreError(f"{store.path} has image {image_id} as {size}, {stores[0].path} as {sizes[0]}")
    return ids


def best_level(curve: Curve) -> int:
    """The level k (threshold k/S) of the greatest score; of equals the one nearest to S/2, then the upper.

    A flat curve so gives 128/255, which cuts codes as 0.5 does.
    """
    rounded = np.round(curve, DIGITS)
    levels = np.flatnonzero(rounded == rounded.max()) + 1
    levels = levels[::-1]
    return int(levels[np.argmin(np.abs(2 * levels - len(curve)))])


def best_score(curve: Curve) -> float:
    """The greatest score of a curve."""
    return float(curve[best_level(curve) - 1])


@dataclass(frozen=True)
class Selection:
    """The outcome of a search.

    weights: chosen count by store. curve: of that blend. path: score after each round. singles: curve of every store
    alone, which is what the first round tries.
    """

    weights: tuple[int, ...]
    curve: Curve
    path: tuple[float, ...]
    singles: tuple[Curve, ...]


def greedy_selection(
    stores: Sequence[ProbabilityStore],
    ids: Sequence[str],
    truth: TruthReader,
    rounds: int = 20,
    track: Callable[[Sequence[str], int], Iterable[str]] = lambda ids, _: ids,
) -> Selection:
    """Searches weights by greedy selection with replacement; see the module.

    stores: out-of-fold maps. ids: the images to score on, in every store (see common_ids). rounds: members to choose
    at most; the search ends early after PATIENCE rounds without a gain.

    Raises:
        DataError: no images to score on.
        StoreError: a map is missing or damaged.
    """
    if not ids:
        raise DataError(
            "no image is out-of-fold for every member: nothing can be tuned; give the members one fold table"
        )
    counts = [0] * len(stores)
    best: Selection | None = None
    path: list[float] = []
    singles: tuple[Curve, ...] = ()
    for number in range(rounds):
        candidates = [
            tuple(count + (place == index) for place, count in enumerate(counts)) for index in range(len(stores))
        ]
        curves = mean_curves(stores, track(ids, number), truth, candidates)
        singles = singles or tuple(curves)
        scores = [round(best_score(curve), DIGITS) for curve in curves]
        # of equal scores a member that is in already is taken, so that no member joins for nothing
        chosen = max(range(len(stores)), key=lambda index: (scores[index], counts[index] > 0, -index))
        counts[chosen] += 1
        path.append(scores[chosen])
        if best is None or scores[chosen] > round(best_score(best.curve), DIGITS):
            best = Selection(tuple(counts), curves[chosen], tuple(path), singles)
        elif number + 1 - sum(best.weights) >= PATIENCE:
            break
    if best is None:
        raise DataError(f"a search needs at least one round, got {rounds}")
    return Selection(best.weights, best.curve, tuple(path), singles)
