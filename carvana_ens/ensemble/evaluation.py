"""Scores of masks against the truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from carvana_ens.core.dice import counts, dice_from_counts
from carvana_ens.core.rle import mask_bits
from carvana_ens.errors import DataError
from carvana_ens.types import Mask


@dataclass(frozen=True)
class Evaluation:
    """Dice of a set of masks.

    dice: mean over images of 2 TP / (2 TP + FP + FN), 1 where both masks are empty. pooled: the same formula on the
    counts of all images together. by_image, by_group: means; groups in their order by name.
    """

    images: int
    dice: float
    pooled: float
    by_image: Mapping[str, float]
    by_group: Mapping[str, float]

    def worst(self, count: int) -> list[tuple[str, float]]:
        """The images with the least Dice, worst first."""
        return sorted(self.by_image.items(), key=lambda item: (item[1], item[0]))[:count]


def evaluate_masks(pairs: Iterable[tuple[str, Mask, Mask]], groups: Mapping[str, str]) -> Evaluation:
    """Scores (image id, mask, truth), both (H, W) of one size.

    groups: the group of each id.

    Raises:
        DataError: there are no images.
    """
    by_image: dict[str, float] = {}
    totals = np.zeros(3, dtype=np.int64)
    for image_id, mask, truth in pairs:
        found = counts(mask_bits(mask), mask_bits(truth))
        totals += found
        by_image[image_id] = float(dice_from_counts(*found))
    if not by_image:
        raise DataError("there is no image to score: submission and masks have no id in common")
    by_group: dict[str, list[float]] = {}
    for image_id in sorted(by_image):
        by_group.setdefault(groups[image_id], []).append(by_image[image_id])
    return Evaluation(
        images=len(by_image),
        dice=float(np.mean(list(by_image.values()))),
        pooled=float(dice_from_counts(*(int(total) for total in totals))),
        by_image=by_image,
        by_group={group: float(np.mean(values)) for group, values in sorted(by_group.items())},
    )
