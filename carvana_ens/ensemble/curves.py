"""Mean Dice of blends at every threshold, and Dice by image at one, in a single pass over the maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from carvana_ens.core.blend import blend_bits
from carvana_ens.core.curve import dice_curve, histograms
from carvana_ens.core.dice import counts, dice_from_counts
from carvana_ens.core.weights import cut_sum
from carvana_ens.engine import default_threads, ordered_map
from carvana_ens.ensemble.stack import MapStack
from carvana_ens.ensemble.truth import Truth
from carvana_ens.errors import DataError
from carvana_ens.types import Size, Track, untracked


@dataclass(frozen=True)
class Curves:
    """By blend. mean: (S,) mean Dice over images at threshold k / S, k = 1..S. by_image: the Dice of each image at the
    blend's own threshold.
    """

    mean: Mapping[str, NDArray[np.float64]]
    by_image: Mapping[str, Mapping[str, float]]


def threshold_curves(
    stack: MapStack,
    sizes: Mapping[str, Size],
    truth: Truth,
    blends: Mapping[str, tuple[Sequence[int], Fraction]],
    *,
    threads: int | None = None,
    track: Track = untracked,
) -> Curves:
    """Reads each map once.

    Args:
        stack: of the M members.
        sizes: true size of each image, by id.
        truth: see ``disputed.Truth``.
        blends: by name M whole numbers from 0, of sum 1..2**16, and a threshold in (0, 1] for the Dice by image.
        threads: None for as many as there are processors.
        track: shows progress.

    Raises:
        DataError: no images.
        StoreError: a map that is missing or damaged.
    """
    if not sizes:
        raise DataError("there is no image to draw a curve of: give at least one")
    settings = [
        (np.array(weights, np.uint32), cut_sum(threshold, stack.full_scale, sum(weights)))
        for weights, threshold in blends.values()
    ]

    def one(image_id: str) -> tuple[str, list[NDArray[np.float64]], list[float]]:
        codes, true = stack.read(image_id), truth(image_id, sizes[image_id])
        curves = [dice_curve(*histograms(codes, weights, true)) for weights, _ in settings]
        # cut on their own: a threshold that is no k / S lies between two points of the curve
        found = [counts(blend_bits(codes, weights, cut), true) for weights, cut in settings]
        return image_id, curves, [float(dice_from_counts(*three)) for three in found]

    totals = np.zeros((len(settings), stack.full_scale))
    by_image: dict[str, dict[str, float]] = {name: {} for name in blends}
    found = ordered_map(one, sizes, threads or default_threads())
    for image_id, curves, dices in track(found, len(sizes), "threshold curves"):
        totals += curves
        for own, dice in zip(by_image.values(), dices, strict=True):
            own[image_id] = dice
    return Curves(dict(zip(blends, totals / len(sizes), strict=True)), by_image)
