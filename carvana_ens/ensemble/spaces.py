"""Blending spaces fitted on out-of-fold maps: one pass over the stores counts codes, tables are made of the counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from carvana_ens.core.curve import Histogram, dice_curve, histograms
from carvana_ens.core.scratch import Scratch
from carvana_ens.core.space_tables import logit_table, rank_table, temperature_table, vote_table
from carvana_ens.core.spaces import MemberTable, Space, check_kind
from carvana_ens.ensemble.passes import Elsewhere, each_image
from carvana_ens.ensemble.search import best_place
from carvana_ens.ensemble.truth import Truth
from carvana_ens.errors import DataError
from carvana_ens.store.store import ProbabilityStore
from carvana_ens.types import Track, untracked

UNFITTED = ("probability", "logit")
"""Spaces that no map needs to be read for."""

_ALONE = np.ones(1, np.uint32)


@dataclass(frozen=True)
class MemberCounts:
    """What images have of one member.

    images: their number. object_hist, other_hist: (S + 1,) pixels at each code, of object pixels and of others. dice:
    (S,) sum over images of the Dice at k / S, k = 1..S.
    """

    images: int
    object_hist: Histogram
    other_hist: Histogram
    dice: NDArray[np.float64]

    def __add__(self, other: MemberCounts) -> MemberCounts:
        return MemberCounts(
            self.images + other.images,
            self.object_hist + other.object_hist,
            self.other_hist + other.other_hist,
            self.dice + other.dice,
        )


@dataclass(frozen=True)
class CodeCounts:
    """Counts of the codes of members, kept apart by part of the images, such as folds.

    names: of the members. parts: the image ids of each part. counts: of each part, by member.
    """

    names: tuple[str, ...]
    parts: Mapping[int, tuple[str, ...]]
    counts: Mapping[int, tuple[MemberCounts, ...]]

    def only(self, ids: Iterable[str]) -> CodeCounts:
        """The same of some of its images, which must be whole parts.

        Raises:
            DataError: an image that is not among them, or a part that is not there as a whole.
        """
        wanted = set(ids)
        lost = wanted.difference(*self.parts.values())
        if lost:
            raise DataError(f"image {min(lost)!r} is not among those whose codes were counted")
        chosen = {part: mine for part, mine in self.parts.items() if not wanted.isdisjoint(mine)}
        for part, mine in chosen.items():
            if not wanted.issuperset(mine):
                missing = min(set(mine) - wanted)
                raise DataError(
                    f"codes were counted of part {part} as a whole: image {missing!r} of it is not asked for"
                )
        return replace(self, parts=chosen, counts={part: self.counts[part] for part in chosen})

    def member(self, name: str) -> MemberCounts:
        """Of one member, over all parts.

        Raises:
            DataError: no images.
        """
        place = self.names.index(name)
        counts = [part[place] for part in self.counts.values()]
        if not counts:
            raise DataError("there is no image to fit a blending space on: give ids of out-of-fold maps")
        return sum(counts[1:], counts[0])


def count_codes(
    stores: Mapping[str, ProbabilityStore],
    ids: Sequence[str],
    truth: Truth,
    parts: Mapping[str, int] | None = None,
    *,
    threads: int | None = None,
    elsewhere: Elsewhere | None = None,
    track: Track = untracked,
) -> CodeCounts:
    """Reads the maps of these images once and counts each member's codes inside and outside the truth.

    stores: out-of-fold maps by member. ids: in every store, at one size (see ``disputed.common_ids``). parts: the part
    of each image, such as its fold, so that spaces can be fitted without one of them; None: all are one. A part takes
    memory of 6 KiB a member, 1.5 MiB where the store is uint16, however many images it has. elsewhere: workers that
    read the maps, see ``passes``.

    Raises:
        StoreError: a map is missing or damaged.
    """
    part_of = dict.fromkeys(ids, 0) if parts is None else {image_id: parts[image_id] for image_id in ids}
    sums: dict[int, tuple[MemberCounts, ...]] = {}
    counted = each_image(_Look(), list(stores.values()), truth, ids, threads, elsewhere)
    for image_id, found in zip(ids, track(counted, len(ids), "codes"), strict=True):
        part = part_of[image_id]
        before = sums.get(part)
        sums[part] = found if before is None else tuple(a + b for a, b in zip(before, found, strict=True))
    return CodeCounts(tuple(stores), {part: tuple(i for i in ids if part_of[i] == part) for part in sums}, sums)


@dataclass(frozen=True)
class _Look:
    """Counts the codes of an image, by member."""

    def begun(self, stores: Sequence[ProbabilityStore], truth: Truth) -> Callable[[str], tuple[MemberCounts, ...]]:
        """See ``passes.Look``."""
        scratch, first = Scratch(), stores[0]

        def one(image_id: str) -> tuple[MemberCounts, ...]:
            size = first.sizes[first.index[image_id]]
            bits = truth(image_id, size)
            found = []
            for store in stores:
                codes = scratch.array(store.dtype, size.height * size.width, store.dtype)
                store.read_into(image_id, codes.reshape(size))
                hists = histograms(codes[None], _ALONE, bits)
                found.append(MemberCounts(1, *hists, dice_curve(*hists)))
            return tuple(found)

        return one


def space_of(kind: str, counts: CodeCounts) -> Space:
    """The blending space of a kind, fitted on counted codes.

    Raises:
        UsageError: an unknown kind.
        DataError: no images.
    """
    check_kind(kind)
    if kind == "probability":
        return Space()
    return Space(kind, {name: _table(kind, counts.member(name)) for name in counts.names})


def fit_space(
    kind: str,
    stores: Mapping[str, ProbabilityStore],
    ids: Sequence[str],
    truth: Truth,
    *,
    threads: int | None = None,
    track: Track = untracked,
) -> Space:
    """The blending space of a kind, fitted on the out-of-fold maps of these images; see ``count_codes``.

    No map is read for ``UNFITTED`` ones. To fit several kinds, or folds in turn: ``count_codes`` once, then
    ``space_of(kind, counts.only(ids))``.

    Raises:
        UsageError: an unknown kind.
        DataError: no images.
        StoreError: a map is missing or damaged.
    """
    check_kind(kind)
    if kind == "probability":
        return Space()
    if kind == "logit":
        return Space(kind, {name: logit_table(store.full_scale) for name, store in stores.items()})
    return space_of(kind, count_codes(stores, ids, truth, threads=threads, track=track))


def _table(kind: str, counts: MemberCounts) -> MemberTable:
    full_scale = counts.dice.size
    if kind == "logit":
        return logit_table(full_scale)
    if kind == "rank":
        return rank_table(counts.object_hist + counts.other_hist)
    if kind == "temperature":
        return temperature_table(counts.object_hist, counts.other_hist)
    thresholds = [Fraction(code, full_scale) for code in range(1, full_scale + 1)]
    return vote_table(1 + best_place(counts.dice / counts.images, thresholds), full_scale)
