"""Blends that cut each image where its own expected Dice is greatest, scored on out-of-fold maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from carvana_ens.core.dice import counts, dice_from_counts
from carvana_ens.core.expected_dice import expected_dice_bits
from carvana_ens.core.spaces import Space, Table
from carvana_ens.ensemble.blending import check_cut, exact_weights
from carvana_ens.ensemble.passes import Elsewhere, each_image
from carvana_ens.ensemble.stack import MapStack
from carvana_ens.ensemble.truth import Truth
from carvana_ens.store.store import ProbabilityStore
from carvana_ens.types import Track, untracked


def expected_dice_scores(
    stores: Mapping[str, ProbabilityStore],
    weights: str | Mapping[str, Fraction | int | str],
    ids: Sequence[str],
    truth: Truth,
    *,
    space: Space | None = None,
    threads: int | None = None,
    elsewhere: Elsewhere | None = None,
    track: Track = untracked,
) -> dict[str, float]:
    """Dice by image of the blend cut as ``Blend(stores, weights, space=space, cut="expected-dice")`` does.

    stores: out-of-fold maps by member. ids: in every store that has a weight, at one size. The cut looks at no truth,
    so beside weights (and a space) found without an image's fold its score is an honest one; ``honest.honest_gain``
    compares it with a fixed threshold's. elsewhere: workers that read the maps, see ``passes``.

    Raises:
        UsageError: weights that cannot be meant, or a space that is none of probabilities or lacks a member.
        StoreError: a map is missing or damaged.
    """
    space = space or Space()
    check_cut("expected-dice", space)
    whole = exact_weights(list(stores), weights)
    names = sorted(whole)
    look = _Look(tuple(whole[name] for name in names), space.tables(names))
    scores = each_image(look, [stores[name] for name in names], truth, ids, threads, elsewhere)
    return dict(zip(ids, track(scores, len(ids), "expected Dice"), strict=True))


@dataclass(frozen=True)
class _Look:
    """Scores an image. weights, tables (() for none): by store."""

    weights: tuple[int, ...]
    tables: tuple[Table, ...]

    def begun(self, stores: Sequence[ProbabilityStore], truth: Truth) -> Callable[[str], float]:
        """See ``passes.Look``."""
        factors = np.array(self.weights, np.uint32)
        stack, first = MapStack(stores, self.tables), stores[0]

        def one(image_id: str) -> float:
            bits = expected_dice_bits(stack.read(image_id), factors)
            return dice_from_counts(*counts(bits, truth(image_id, first.sizes[first.index[image_id]])))

        return one
