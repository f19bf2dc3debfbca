"""Pixels that a blend can still decide: what is left of the maps for searching weights and thresholds, exactly.

A convex blend lies between its members' least and greatest code. For thresholds t with low <= ceil(t S) <= high a
pixel whose greatest code is under low is off, and one whose least code is at least high is on, whatever the weights:
those are counted once. All others are kept with their codes, and every count made of them equals that of the full maps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carvana_ens.core import disputed_kernels as kernels
from carvana_ens.core.blend import FULL_SCALE, StackedCodes
from carvana_ens.core.dice import counts
from carvana_ens.core.jit import run
from carvana_ens.core.rle import check_bits
from carvana_ens.core.scratch import Scratch
from carvana_ens.core.spaces import SCALE, Tables, bound_values, look_up
from carvana_ens.core.weights import MAX_WEIGHT_SUM
from carvana_ens.errors import UsageError
from carvana_ens.types import Bits

Counts = NDArray[np.int64]
"""Pixels: (..., 2), object pixels that are on and all pixels that are on."""

Images = NDArray[np.int64]
"""(n,) numbers of the images to count, 0..N - 1."""

MAX_DENOMINATOR = 2**14
"""Of threshold times S in a line search: its products stay far inside 64 bits."""

_scratch = Scratch()


@dataclass(frozen=True)
class DisputedImage:
    """What one image leaves.

    codes: (M, n) uint8 or uint16, n a multiple of 64, filled up with zeros. truth: (n / 64,) uint64, bit k % 64 of word
    k / 64 that of pixel k. kept: disputed pixels. constants: pixels (surely on and object, surely on, object).
    """

    codes: StackedCodes
    truth: Bits
    kept: int
    constants: tuple[int, int, int]


def disputed_pixels(
    codes: StackedCodes, truth_bits: Bits, low: int, high: int, tables: Tables | None = None
) -> DisputedImage:
    """The pixels of one image that some weights and some threshold t with low <= ceil(t S) <= high tell apart.

    codes: (M, P), C-contiguous. truth_bits: the true mask as ``mask_bits`` gives it. tables: of a blending space, as
    ``scaled_tables`` gives them: S is then 65535, and the pixels are left with their values.

    Raises:
        UsageError: a shape, dtype or range that is not as above.
        DataError: truth_bits of another number of pixels.
    """
    if codes.dtype not in FULL_SCALE or codes.ndim != 2 or not codes.size or not codes.flags.c_contiguous:
        raise UsageError(
            f"codes are {codes.dtype} {codes.shape}: they must be uint8 or uint16 (members, pixels), C-contiguous"
        )
    check_bits(truth_bits, codes.shape[1])
    if tables is None:
        check_levels(low, high, FULL_SCALE[codes.dtype])
        words = _scratch.array("disputed", truth_bits.size, np.uint64)
        kept, *constants = run(kernels.find_disputed, codes, truth_bits, low, high, words)
    else:
        check_levels(low, high, SCALE)
        possible, certain = bound_values(codes, tables, low, high)
        words = possible ^ certain
        kept, constants = int(np.bitwise_count(words).sum()), [*counts(certain, truth_bits)]
    blocks = -(-kept // 64)
    found: Any = np.zeros((codes.shape[0], blocks * 64), codes.dtype)
    labels = np.zeros(blocks, np.uint64)
    if kept:
        run(kernels.take_disputed, codes, truth_bits, words, found, labels)
    if tables is not None:
        found = _values(found, tables, kept)
    return DisputedImage(found, labels, kept, (constants[0], constants[1], constants[2]))


def _values(codes: StackedCodes, tables: Tables, kept: int) -> StackedCodes:
    """What the codes of pixels count as; those that only fill up stay 0."""
    values = np.zeros(codes.shape, np.uint16)
    for table, row, out in zip(tables, codes, values, strict=True):
        look_up(table, row[:kept], out[:kept])
    return values


def check_levels(low: int, high: int, full_scale: int) -> None:
    """Refuses levels that are not 1 <= low <= high <= S.

    Raises:
        UsageError: they are not.
    """
    if not 1 <= low <= high <= full_scale:
        raise UsageError(f"levels {low}..{high} are not within 1..{full_scale}: give low <= high")


@dataclass(frozen=True)
class DisputedPixels:
    """The disputed pixels of many images.

    codes: flat, image after image, each (M, n) as in ``DisputedImage``. truth: their words. starts: (N + 1,) int64
    first block of 64 pixels of each image. constants: (N, 3) int64. members: M. low, high: the levels ceil(t S) that
    the counts hold for. step: between the levels of ``level_counts``; low and high are multiples of it. All arrays are
    C-contiguous and writable (a memory-mapped file as a plain array will do).
    """

    codes: NDArray[np.uint8] | NDArray[np.uint16]
    truth: Bits
    starts: NDArray[np.int64]
    constants: NDArray[np.int64]
    members: int
    low: int
    high: int
    step: int = 1

    @property
    def images(self) -> int:
        """N."""
        return len(self.constants)

    @property
    def full_scale(self) -> int:
        """S."""
        return FULL_SCALE[self.codes.dtype]

    def counts(self, weights: NDArray[np.uint32], cut_sum: int, images: Images | None = None) -> Counts:
        """(n, 2) pixels of n images that are on, sure ones included.

        weights: (M,) uint32, sum in 1..2**16. cut_sum: as ``weights.cut_sum`` gives it. images: None for all, 0..N - 1.

        Raises:
            UsageError: weights that are not as above, or a cut outside low..high.
        """
        chosen = self._chosen(images)
        total = self._check(weights)
        self._check_cut(cut_sum, total)
        found = np.empty((chosen.size, 2), np.int64)
        run(kernels.count_reached, self.codes, self.truth, self.starts, chosen, weights, np.uint32(cut_sum), found)
        return found + self.constants[chosen, :2]

    def counts_of_each_added(self, weights: NDArray[np.uint32], cut_sum: int, images: Images | None = None) -> Counts:
        """(M, n, 2): entry m is ``counts`` of these weights with one more for member m.

        weights: as in ``counts``, but they may be all 0, and sum to 2**16 - 1 at most. cut_sum: of the sum of weights
        plus one.

        Raises:
            UsageError: as ``counts`` says.
        """
        chosen = self._chosen(images)
        total = self._check(weights, spare=1) + 1
        self._check_cut(cut_sum, total)
        found = np.empty((self.members, chosen.size, 2), np.int64)
        run(kernels.count_each_added, self.codes, self.truth, self.starts, chosen, weights, np.uint32(cut_sum), found)
        return found + self.constants[chosen, :2]

    def level_counts(self, weights: NDArray[np.uint32], images: Images | None = None) -> Counts:
        """(n, (high - low) / step + 1, 2): entry k is ``counts`` at threshold (low + k step) / S.

        Raises:
            UsageError: weights that are not as in ``counts``.
        """
        chosen = self._chosen(images)
        total = self._check(weights)
        low, high = self.low // self.step, self.high // self.step
        inverse = (1 + 2.0**-48) / (total * self.step)  # just above 1 / (W step): see kernels.count_levels
        places = np.zeros((chosen.size, 2, high - low + 2), np.int64)
        run(kernels.count_levels, self.codes, self.truth, self.starts, chosen, weights, low, inverse, places)
        reached = places[:, :, :0:-1].cumsum(2)[:, :, ::-1]
        both = reached[:, 1] + self.constants[chosen, :1]
        found = reached.sum(1) + self.constants[chosen, 1:2]
        return np.stack((both, found), axis=2)

    def line_counts(
        self,
        weights: NDArray[np.uint32],
        member: int,
        values: range,
        threshold: Fraction,
        images: Images | None = None,
    ) -> Counts:
        """(n, len(values), 2): entry k is ``counts`` with the weight of one member set to values[k].

        values: whole numbers in steps of one, from 0; from 1 where all other weights are 0. threshold: t with
        low <= ceil(t S) <= high.

        Raises:
            UsageError: weights, values or a threshold that are not as above.
        """
        chosen = self._chosen(images)
        others = weights.copy()
        others[member] = 0
        rest = self._check(others, spare=1)
        if values.step != 1 or not len(values) or values[0] < (rest == 0) or rest + values[-1] > MAX_WEIGHT_SUM:
            raise UsageError(
                f"{values} are no weights beside others of sum {rest}: give steps of one, no sum of 0, none over "
                f"{MAX_WEIGHT_SUM}"
            )
        level = threshold * self.full_scale
        if level.denominator > MAX_DENOMINATOR:
            raise UsageError(f"threshold {threshold} has too many digits for a line search: give it as k/S or 0.123")
        self._check_cut(math.ceil(level), 1)
        changes = np.zeros((chosen.size, 2, len(values)), np.int64)
        run(
            kernels.count_flips,
            self.codes,
            self.truth,
            self.starts,
            chosen,
            others,
            member,
            values[0],
            level.numerator,
            level.denominator,
            changes,
        )
        on = changes.cumsum(2)
        both = on[:, 1] + self.constants[chosen, :1]
        found = on.sum(1) + self.constants[chosen, 1:2]
        return np.stack((both, found), axis=2)

    def _chosen(self, images: Images | None) -> Images:
        if images is None:
            return np.arange(self.images)
        if (
            images.dtype != np.int64
            or images.ndim != 1
            or (images.size and not 0 <= images.min() <= images.max() < self.images)
        ):
            raise UsageError(
                f"images are {images.dtype} {images.shape}: give int64 numbers within 0..{self.images - 1}"
            )
        return np.ascontiguousarray(images)

    def _check(self, weights: NDArray[np.uint32], spare: int = 0) -> int:
        total = int(weights.sum(dtype=np.uint64))
        if weights.dtype != np.uint32 or weights.shape != (self.members,) or not weights.flags.c_contiguous:
            raise UsageError(f"weights are {weights.dtype} {weights.shape}: they must be uint32 ({self.members},)")
        if not 1 - spare <= total <= MAX_WEIGHT_SUM - spare:
            raise UsageError(f"weights sum to {total}, which is not in {1 - spare}..{MAX_WEIGHT_SUM - spare}")
        return total

    def _check_cut(self, cut_sum: int, total: int) -> None:
        cut = -(-cut_sum // total)
        if not self.low <= cut <= self.high:
            raise UsageError(
                f"a cut at code {cut} is outside the levels {self.low}..{self.high} that these pixels were kept for"
            )
