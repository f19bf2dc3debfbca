"""Images without truth that are worth a look: members disagree on them, or they are unlike those with truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from carvana_ens.core.blend import blend_bits
from carvana_ens.core.rle import bits_mask
from carvana_ens.core.weights import MAX_WEIGHT_SUM, cut_sum
from carvana_ens.engine import default_threads, ordered_map
from carvana_ens.ensemble.agreement import common_pixels, member_bits
from carvana_ens.ensemble.stack import MapStack
from carvana_ens.errors import DataError, UsageError
from carvana_ens.types import Mask, Size, Track, untracked

FAR = 3.5
"""Robust z-scores from here on are called outliers: Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993."""
LEAST_IMAGES = 5
"""Of fewer images there is no distribution to be far from."""
_FARTHEST = 1e6
"""Stands for any distance from images that are all the same."""
_MAD, _MEAN = 1.4826, 1.2533
"""The standard deviation of normal numbers over their median, and their mean, absolute deviation."""


@dataclass(frozen=True)
class Features:
    """What is seen of one image without its truth, in pixels.

    pixels: of the picture. area: of the blend's mask. border: object pixels with background above, below, left or
    right of them. disputed: sum over pixels of the weighted variance of the members' votes, each cut at the blend's
    threshold: v (1 - v) where members of the share v of the weights say object, so 1/4 at most.
    """

    pixels: int
    area: int
    border: int
    disputed: float

    @property
    def disagreement(self) -> float:
        """Disputed pixels by border pixel: a seam of so many pixels is in dispute, however large the object is."""
        return self.disputed / max(self.border, 1)

    def logarithms(self) -> NDArray[np.float64]:
        """(3,) of area and border in a picture of unit area, and disagreement: there, few and many are as far.

        A pixel is added to area and border, and a hundredth of one to the seam, so that none is infinitely far.
        """
        area, border = (self.area + 1) / self.pixels, (self.border + 1) / math.sqrt(self.pixels)
        return np.log([area, border, self.disagreement + 0.01])


@dataclass(frozen=True)
class Odd:
    """An image worth a look. distance: its greatest robust z-score. reasons: what is odd, the oddest first."""

    image_id: str
    distance: float
    reasons: tuple[str, ...]


def image_features(
    stack: MapStack,
    sizes: Mapping[str, Size],
    weights: Sequence[int],
    threshold: Fraction,
    *,
    threads: int | None = None,
    track: Track = untracked,
) -> dict[str, Features]:
    """The features of each image, in one pass over the maps.

    Args:
        stack: of the M members.
        sizes: true size of each image, by id: the images to look at.
        weights: M whole numbers, of sum 1..2**16.
        threshold: in (0, 1].
        threads: None for as many as there are processors.
        track: shows progress.

    Raises:
        UsageError: not one weight a member, or weights that no blend takes.
        StoreError: a map that is missing or damaged.
    """
    if any(weight < 0 for weight in weights) or not 1 <= sum(weights) <= MAX_WEIGHT_SUM:
        raise UsageError(f"weights {list(weights)} are no whole numbers from 0 of sum 1..{MAX_WEIGHT_SUM}")
    factors = np.array(weights, np.uint32)
    shares = factors / sum(weights)
    cut, own_cut = (cut_sum(threshold, stack.full_scale, total) for total in (sum(weights), 1))

    def one(image_id: str) -> tuple[str, Features]:
        codes = stack.read(image_id)
        common = common_pixels(member_bits(codes, [own_cut] * len(factors)))
        areas = np.diagonal(common)
        # v (1 - v) is the sum over pairs of members that differ of the product of their shares
        differing = areas[:, None] + areas[None, :] - 2 * common
        mask = bits_mask(blend_bits(codes, factors, cut), sizes[image_id])
        area, disputed = int(np.count_nonzero(mask)), float(shares @ differing @ shares) / 2
        return image_id, Features(mask.size, area, border_length(mask), disputed)

    return dict(track(ordered_map(one, sizes, threads or default_threads()), len(sizes), "look at images"))


def border_length(mask: Mask) -> int:
    """Object pixels that have background above, below, left or right of them, within the picture. mask: (H, W)."""
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return int(np.count_nonzero(mask) - np.count_nonzero(inner))


def most_disputed(features: Mapping[str, Features], count: int) -> list[str]:
    """The ids of greatest disagreement, greatest first, equals by id."""
    return sorted(features, key=lambda image_id: (-features[image_id].disagreement, image_id))[:count]


def oddest(features: Mapping[str, Features], known: Mapping[str, Features], count: int) -> list[Odd]:
    """The images that are farthest from known ones, farthest first, equals by id; each with what is odd about it.

    An image's distance is the greatest of three robust z-scores, (x - median) / (1.4826 median absolute deviation) of
    the known images (with 1.2533 mean absolute deviations where more than half of them are equal; Iglewicz and
    Hoaglin, How to Detect and Handle Outliers, 1993): of area and border, too little or too much, and of disagreement,
    too much. All are taken of logarithms. Test maps that are the mean of several fold models agree more than
    out-of-fold maps do, so that disagreement must be the greater there to stand out.

    Args:
        features: of images without truth.
        known: of the same ensemble's out-of-fold maps.
        count: how many to name.

    Raises:
        DataError: fewer than ``LEAST_IMAGES`` known images.
        UsageError: a count under 0.
    """
    if len(known) < LEAST_IMAGES:
        raise DataError(f"{len(known)} images say too little of what is usual: give the features of {LEAST_IMAGES}")
    if count < 0:
        raise UsageError(f"{count} images cannot be named: ask for 0 or more")
    usual = np.array([one.logarithms() for one in known.values()])
    middle = np.median(usual, axis=0)
    apart = np.abs(usual - middle)
    spread = _MAD * np.median(apart, axis=0)
    spread = np.where(spread > 0, spread, _MEAN * apart.mean(axis=0))
    found = []
    for image_id, one in features.items():
        away = one.logarithms() - middle
        scores = np.clip(
            np.divide(away, spread, out=np.sign(away) * _FARTHEST, where=spread > 0), -_FARTHEST, _FARTHEST
        )
        distances = [abs(scores[0]), abs(scores[1]), scores[2]]
        order = sorted(range(3), key=lambda number: -distances[number])
        named = [number for number in order if distances[number] >= FAR] or order[:1]
        reasons = tuple(_reason(number, one, float(np.exp(away[number])), float(scores[number])) for number in named)
        found.append(Odd(image_id, float(distances[order[0]]), reasons))
    return sorted(found, key=lambda odd: (-odd.distance, odd.image_id))[:count]


def _reason(number: int, one: Features, ratio: float, score: float) -> str:
    what = (
        f"area {100 * one.area / one.pixels:.3g} % of the picture",
        f"border of {one.border} pixels",
        f"disagreement on a seam of {one.disagreement:.3g} pixels",
    )[number]
    return f"{what}, {ratio:.3g} times the usual (z {score:.1f})"
