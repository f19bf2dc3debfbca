"""What a tuned ensemble is worth, beside equal weights and the best single member, and what each member buys.

All scores are Dice by image, each image scored by the choice that was searched without its fold (``honest``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from carvana_ens.data.folds import FoldTable
from carvana_ens.ensemble.bootstrap import Interval
from carvana_ens.ensemble.honest import (
    Choice,
    Honest,
    dealt_groups,
    honest_gain,
    honest_interval,
)
from carvana_ens.ensemble.pareto import Members, SubsetScore, dispensable, leave_one_out, restricted
from carvana_ens.ensemble.searched_space import Searched
from carvana_ens.types import Track, untracked

FOLDS = 5
"""So many folds, or as many as there are groups, where members do not share a fold table."""


@dataclass(frozen=True)
class Worth:
    """honest: of the tuned ensemble. score: its honest Dice. over_equal, over_single: gain over equal weights and over
    the best single member, each chosen, with its threshold, on the same folds.
    """

    honest: Honest
    score: Interval
    over_equal: Interval
    over_single: Interval


@dataclass(frozen=True)
class MemberWorth:
    """What a member buys beside all others: the honest score with it minus that without, by image."""

    buys: Mapping[str, Interval]
    could_go: Mapping[str, Interval]
    """Members that could all go together, in the order of going, with what is lost by then."""


def honest_folds(groups: Mapping[str, str], tables: Sequence[FoldTable], seed: int = 0) -> dict[str, int] | None:
    """The fold of each group: of the members' fold table where they share one, else dealt.

    groups: the group of each image to tune on. tables: of all members. None: there is one group only, so nothing can be
    held out.
    """
    present = set(groups.values())
    if len(present) < 2:
        return None
    digests = {table.digest for table in tables}
    if len(digests) == 1 and present <= tables[0].assignment.keys():
        folds = {group: tables[0].assignment[group] for group in present}
        if len({fold for fold in folds.values() if fold >= 0}) > 1:
            return folds
    return dealt_groups(groups, min(FOLDS, len(present)), seed)


def worth(honest: Honest, equal: Honest, single: Honest, groups: Mapping[str, str], **options: Any) -> Worth:
    """Honest scores side by side; see the module.

    Args:
        honest: of the ensemble.
        equal: of equal weights, whose threshold was chosen on the same folds.
        single: of the best single member, likewise.
        groups: the group of each image.
        options: level, resamples and seed of the intervals.
    """
    return Worth(
        honest,
        honest_interval(honest, groups, **options),
        honest_gain(honest, equal, groups, **options),
        honest_gain(honest, single, groups, **options),
    )


def member_worth(
    members: Sequence[str],
    score: SubsetScore,
    groups: Mapping[str, str],
    *,
    track: Track = untracked,
    **options: Any,
) -> MemberWorth:
    """What each of two or more members buys, and which could go. score: ``subset_score``; the rest as of ``worth``."""
    buys = leave_one_out(members, score, groups, track, **options)
    return MemberWorth(buys, dispensable(members, score, groups, track=track, **options))


def subset_score(
    searched: Searched, honest: Honest, groups: Mapping[str, str], folds: Mapping[str, int]
) -> SubsetScore:
    """Honest scores by image of some of the members, with the weights and thresholds of each fold's choice.

    Members to which a fold gave no weight count equally there where nobody else is left.
    """
    held_out: dict[int, list[str]] = {fold: [] for fold in honest.choices}
    for image_id in honest.by_image:
        held_out[folds[groups[image_id]]].append(image_id)
    known: dict[Members, Mapping[str, float]] = {}

    def score(members: Members) -> Mapping[str, float]:
        if members not in known:
            found: dict[str, float] = {}
            for fold, ids in held_out.items():
                found |= searched.score(_of_some(honest.choices[fold], members), ids)
            known[members] = found
        return known[members]

    return score


def _of_some(choice: Choice, members: Members) -> Choice:
    if any(choice.weights[member] for member in members):
        return restricted(choice, members)
    return replace(choice, weights={member: int(member in members) for member in choice.weights})
