"""Training photos of several sets: of some, each photo once an epoch; of others, a chosen share of every mini-batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from carvana_ens.errors import DataError
from carvana_ens.model import Samples, SoftSamples
from carvana_ens.types import Image, Mask, ProbabilityMap


@dataclass(frozen=True)
class Part:
    """One set of photos. ids: which of them. prefix: put before their ids, so that they meet no others. share: of each
    mini-batch that is drawn from it, in (0, 1); None: each of its photos once an epoch.
    """

    samples: Samples
    ids: Sequence[str]
    prefix: str = ""
    share: Fraction | None = None


class MixedImages:
    """The photos of all parts as one set (:class:`carvana_ens.model.SoftSamples`).

    ids: all of them, each with the prefix of its part, in the order of the parts.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        """parts: at least one of them without a share; the shares come to less than 1.

        Raises:
            DataError: a part without photos, or an id that two parts have.
        """
        self.parts = tuple(parts)
        self._of: dict[str, tuple[Samples, str]] = {}
        for part in self.parts:
            if not len(part.ids):
                raise DataError(f"no photos to train on are left of {part.prefix or 'the project'}: look at views")
            for image_id in part.ids:
                if part.prefix + image_id in self._of:
                    raise DataError(f"image {part.prefix + image_id!r} is in two sets of photos: rename one of them")
                self._of[part.prefix + image_id] = part.samples, image_id
        self.ids = tuple(self._of)

    def image(self, image_id: str) -> Image:
        """The photo, (H, W, 3) uint8 RGB."""
        samples, own = self._of[image_id]
        return samples.image(own)

    def mask(self, image_id: str) -> Mask:
        """The photo's mask, (H, W) bool; a soft one is cut at 0.5."""
        samples, own = self._of[image_id]
        return samples.mask(own)

    def target(self, image_id: str) -> ProbabilityMap:
        """The photo's mask, (H, W) float32 in [0, 1], soft where it is."""
        samples, own = self._of[image_id]
        return samples.target(own) if isinstance(samples, SoftSamples) else samples.mask(own).astype(np.float32)

    def order(self, seed: int, epoch: int) -> list[int]:
        """The photos of an epoch in order, as places in ``ids``: a function of its arguments alone.

        Every photo without a share comes once. Those of a part with a share come evenly between them, as many as the
        share asks, whole passes through the part after another and each in an order of its own: the next epoch goes on
        where this one ends. A photo that comes again in one epoch is given as its place + n ``len(ids)``, so that it
        can be changed in another way.
        """
        places = np.split(np.arange(len(self._of)), np.cumsum([len(part.ids) for part in self.parts])[:-1])
        drawn = [(own, part.share) for own, part in zip(places, self.parts, strict=True) if part.share is not None]
        once = np.concatenate([own for own, part in zip(places, self.parts, strict=True) if part.share is None])
        turns = spread([share for _, share in drawn], len(once))
        streams = [iter(once[np.random.default_rng((abs(seed), epoch)).permutation(len(once))].tolist())]
        for number, (own, _) in enumerate(drawn, 1):
            count = turns.count(number)
            streams.append(iter(own[_pass_through(len(own), (epoch - 1) * count, count, seed, number)].tolist()))
        seen: dict[int, int] = {}
        result = []
        for place in (next(streams[turn]) for turn in turns):
            seen[place] = seen.get(place, -1) + 1
            result.append(place + seen[place] * len(self._of))
        return result


def spread(shares: Sequence[Fraction], count: int) -> list[int]:
    """Which stream each photo of an epoch is of: 1, 2, ... those with a share, 0 the rest, which ends with the epoch.

    Always the stream that is furthest behind its share, so that of any run of photos each has its share, give or take
    a photo.

    Args:
        shares: of the streams from 1, each in (0, 1), together less than 1.
        count: photos of stream 0.
    """
    whole = math.lcm(*(share.denominator for share in shares))
    parts = [whole - sum(int(share * whole) for share in shares), *(int(share * whole) for share in shares)]
    behind, turns, left = [0] * len(parts), [], count
    while left:
        behind = [lag + part for lag, part in zip(behind, parts, strict=True)]
        turn = behind.index(max(behind))
        behind[turn] -= whole
        turns.append(turn)
        left -= turn == 0
    return turns


def _pass_through(size: int, first: int, count: int, seed: int, number: int) -> list[int]:
    """Items ``first`` to ``first + count`` of an endless row of shuffled passes through ``size`` items."""
    passes = range(first // size, -(-(first + count) // size))
    # a fourth number other than 0, for numpy takes missing ones for 0 and others draw from three
    row = [np.random.default_rng((abs(seed), turn, number, 1)).permutation(size) for turn in passes]
    start = first - first // size * size
    flat: list[int] = np.concatenate(row)[start : start + count].tolist() if row else []
    return flat
