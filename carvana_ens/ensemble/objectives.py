"""What a search makes as large as it can: a score of many images from their counts, one or many settings at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carvana_ens.core.dice import dice_from_counts
from carvana_ens.core.disputed import Counts
from carvana_ens.errors import DataError, UsageError

Scores = NDArray[np.float64]
"""(K,) scores in [0, 1] of K settings, the more the better."""


@dataclass(frozen=True)
class Objective:
    """A score of a set of images.

    name: what it is called beside a number. by_image: (counts (n, K, 2) of pixels that are on: object, all; object
    pixels (n, 1)) to n rows, which are added up one after the other, so that neither threads nor parts can change the
    last bit. total: (the sum of the rows, the number of images) to ``Scores``.
    """

    name: str
    by_image: Callable[[Counts, NDArray[np.int64]], Any]
    total: Callable[[Any, int], Scores]

    def score(self, parts: Iterable[tuple[Counts, NDArray[np.int64]]]) -> Scores:
        """(K,) scores of all images of the parts.

        Raises:
            DataError: no images.
        """
        total: Any = None
        images = 0
        for counts, objects in parts:
            rows = self.by_image(counts, objects)
            if total is not None:
                rows = np.concatenate((total[None], rows))
            total = np.add.accumulate(rows, axis=0)[-1]
            images += len(counts)
        if total is None:
            raise DataError("there is no image to score: nothing can be tuned or scored")
        return self.total(total, images)


def _dice(counts: Counts, objects: NDArray[np.int64]) -> Scores:
    return dice_from_counts(counts[..., 0], counts[..., 1], objects)


def _iou(counts: Counts, objects: NDArray[np.int64]) -> Scores:
    """TP / (TP + FP + FN) (Jaccard 1912, doi:10.1111/j.1469-8137.1912.tb05611.x); both masks empty: 1."""
    union = counts[..., 1] + objects - counts[..., 0]
    scores: Scores = np.divide(counts[..., 0], union, out=np.ones(union.shape), where=union != 0)
    return scores


def _pooled(counts: Counts, objects: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.stack((counts[..., 0], counts[..., 1] + objects), axis=1)


OBJECTIVES: Mapping[str, Objective] = {
    objective.name.lower().replace(" ", "-"): objective
    for objective in (
        Objective("mean Dice", _dice, lambda total, images: total / images),
        Objective("pooled Dice", _pooled, lambda total, _: np.atleast_1d(dice_from_counts(total[0], total[1], 0))),
        Objective("mean IoU", _iou, lambda total, images: total / images),
    )
}
"""By name: the mean of the images' Dice, the Dice of their summed counts, and the mean of their IoU."""


def objective_named(name: str) -> Objective:
    """One of ``OBJECTIVES``.

    Raises:
        UsageError: an unknown name.
    """
    if name not in OBJECTIVES:
        raise UsageError(f"objective {name!r} is unknown: there are {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]
