"""How alike the errors of members are: a member that errs where another does brings a blend little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from carvana_ens.core.blend import StackedCodes, blend_bits
from carvana_ens.core.dice import counts
from carvana_ens.core.weights import cut_sum
from carvana_ens.engine import default_threads, ordered_map
from carvana_ens.ensemble.stack import MapStack
from carvana_ens.ensemble.truth import Truth
from carvana_ens.errors import DataError, UsageError
from carvana_ens.types import Size, Track, untracked

Matrix: TypeAlias = NDArray[np.float64]
"""(M, M), symmetric, one row and column a member."""
MemberBits: TypeAlias = NDArray[np.uint64]
"""(M, words) one mask a member, as bit words."""

_ONE = np.ones(1, np.uint32)


@dataclass(frozen=True)
class Agreement:
    """Pixels that members get wrong, each cut at its own threshold, over all images together.

    pixels: of all images. both: (M, M) int64, pixels that both members get wrong; on the diagonal those that one does.
    """

    pixels: int
    both: NDArray[np.int64]

    @property
    def errors(self) -> NDArray[np.int64]:
        """(M,) wrong pixels of each member."""
        return np.diagonal(self.both)

    def jaccard(self) -> Matrix:
        """Share of the pixels that one of two gets wrong which both do, in [0, 1]; 1 where neither errs.

        Jaccard, New Phytologist 11, 1912, doi:10.1111/j.1469-8137.1912.tb05611.x.
        """
        either = self.errors[:, None] + self.errors[None, :] - self.both
        return _divided(self.both, either, 1.0)

    def kappa(self) -> Matrix:
        """Agreement in being right or wrong beyond chance, up to 1: (p - e) / (1 - e).

        p: share of pixels on which both are right or both wrong. e: the same if their errors were independent. 1 where
        e is. Cohen, Educational and Psychological Measurement 20, 1960, doi:10.1177/001316446002000104.
        """
        rates = self.errors / self.pixels
        observed = 1 - (self.errors[:, None] + self.errors[None, :] - 2 * self.both) / self.pixels
        chance = np.outer(rates, rates) + np.outer(1 - rates, 1 - rates)
        return _divided(observed - chance, 1 - chance, 1.0)

    def correlation(self) -> Matrix:
        """Pearson's correlation of being wrong, 0 or 1 a pixel, in [-1, 1]; 0 with a member that never or always errs.

        Of two such variables it is (n b - x y) / sqrt(x (n - x) y (n - y)): x and y errors, b common ones, n pixels.
        """
        errors, pixels = self.errors.astype(np.float64), float(self.pixels)
        spread = np.sqrt(errors * (pixels - errors))
        scale = np.outer(spread, spread)
        shared = pixels * self.both - np.outer(errors, errors)
        return np.clip(_divided(shared, scale, 0.0), -1, 1)


def error_agreement(
    stack: MapStack,
    sizes: Mapping[str, Size],
    truth: Truth,
    thresholds: Sequence[Fraction],
    *,
    threads: int | None = None,
    track: Track = untracked,
) -> Agreement:
    """Counts wrong pixels, and those that two members share, in one pass over the maps.

    Args:
        stack: of the M members.
        sizes: true size of each image, by id: the images to count on, which all members have.
        truth: see ``disputed.Truth``.
        thresholds: M, each member's own, in (0, 1].
        threads: None for as many as there are processors.
        track: shows progress.

    Raises:
        UsageError: not one threshold a member.
        DataError: no images, or a mask of another size.
        StoreError: a map that is missing or damaged.
    """
    if not sizes:
        raise DataError("there is no image to compare members on: give at least one")
    cuts = [cut_sum(threshold, stack.full_scale, 1) for threshold in thresholds]

    def one(image_id: str) -> tuple[int, NDArray[np.int64]]:
        codes = stack.read(image_id)
        wrong = member_bits(codes, cuts)
        true = truth(image_id, sizes[image_id])
        if true.shape != wrong.shape[1:]:
            raise DataError(
                f"the mask of {image_id} has {true.size} words of bits, its maps {wrong.shape[1]}: read it anew"
            )
        wrong ^= true
        return codes.shape[1], common_pixels(wrong)

    found = ordered_map(one, sizes, threads or default_threads())
    pixels, both = 0, np.zeros((len(cuts), len(cuts)), np.int64)
    for count, common in track(found, len(sizes), "agreement of members"):
        pixels += count
        both += common
    return Agreement(pixels, both)


def member_bits(codes: StackedCodes, cuts: Sequence[int]) -> MemberBits:
    """The mask of each member alone, on where its code is at least its cut.

    codes: (M, P) as ``MapStack.read`` gives them. cuts: M codes, from 1 to the full scale.

    Raises:
        UsageError: not one cut a member, or one outside the scale.
    """
    if len(cuts) != len(codes):
        raise UsageError(f"{len(cuts)} thresholds for {len(codes)} members: give one a member")
    return np.stack([blend_bits(codes[row : row + 1], _ONE, cut) for row, cut in enumerate(cuts)])


def common_pixels(bits: MemberBits) -> NDArray[np.int64]:
    """(M, M) pixels that are on in the masks of both members; on the diagonal, in the one's."""
    common = np.zeros((len(bits), len(bits)), np.int64)
    for row in range(len(bits)):
        for column in range(row, len(bits)):
            common[row, column] = common[column, row] = counts(bits[row], bits[column])[0]
    return common


def _divided(above: NDArray[Any], below: NDArray[Any], otherwise: float) -> Matrix:
    """The quotient, and ``otherwise`` where below is 0."""
    result: Matrix = np.divide(above, below, out=np.full(below.shape, otherwise), where=below != 0)
    return result
