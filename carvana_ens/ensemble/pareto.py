"""What each member buys and costs, and which smaller ensembles are worth it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean
from typing import Any, Literal, TypeAlias, get_args

from carvana_ens.data.ids import listed
from carvana_ens.ensemble.bootstrap import Interval, gain
from carvana_ens.ensemble.honest import Choice
from carvana_ens.errors import UsageError
from carvana_ens.types import Track, untracked

EVERY = 8
"""Of up to so many members all ensembles are scored (255); of more, those on the way down from all to one."""
Members: TypeAlias = tuple[str, ...]
"""Some of the members, in the order in which all were given."""
SubsetScore: TypeAlias = Callable[[Members], Mapping[str, float]]
"""Scores by image of the ensemble of these members: with the same weights (see ``restricted``; the members to choose
from are then those that have one), or searched anew."""
Cost: TypeAlias = Literal["seconds", "bytes", "models"]
_COSTS = get_args(Cost)


@dataclass(frozen=True)
class MemberCost:
    """seconds: to predict one image. bytes: on disk, of one image's map or of the model, the same of all members."""

    seconds: float
    bytes: int


@dataclass(frozen=True)
class Ensemble:
    """Some members, their score and what they cost together. score: mean over images, the more the better."""

    members: Members
    score: float
    seconds: float
    bytes: int

    @property
    def models(self) -> int:
        """Number of members."""
        return len(self.members)


def restricted(choice: Choice, members: Iterable[str]) -> Choice:
    """The choice with the weights of these members alone, whose shares of the blend so grow; the same threshold.

    Raises:
        UsageError: none of them has a weight.
    """
    kept = set(members)
    weights = {member: weight if member in kept else 0 for member, weight in choice.weights.items()}
    if not any(weights.values()):
        raise UsageError(f"{listed(kept)} have no weight: search weights for them anew")
    return replace(choice, weights=weights)


def leave_one_out(
    members: Sequence[str], score: SubsetScore, groups: Mapping[str, str], track: Track = untracked, **options: Any
) -> dict[str, Interval]:
    """What each member buys: the score of all minus that of all others, with its interval (see ``bootstrap.gain``).

    Args:
        members: two or more.
        score: see ``SubsetScore``. Where weights are searched anew, give honest scores (``honest.nested``): others
            are too good, and more so with more members.
        groups: the group of each image id.
        track: shows progress.
        options: level, resamples and seed of the interval.

    Raises:
        UsageError: fewer than two members.
    """
    everyone = tuple(members)
    if len(everyone) < 2:
        raise UsageError(f"what a member buys beside others takes two members, got {len(everyone)}: add one")
    whole = score(everyone)
    return {
        member: gain(whole, score(_without(everyone, member)), groups, **options)
        for member in track(everyone, len(everyone), "what each member buys")
    }


def dispensable(
    members: Sequence[str],
    score: SubsetScore,
    groups: Mapping[str, str],
    margin: float = 1e-4,
    track: Track = untracked,
    **options: Any,
) -> dict[str, Interval]:
    """The members that could all go together, in the order of going, with what the ensemble has lost by then.

    One after the other that without which the rest scores best goes, as long as the loss against all members lies
    surely, by the upper end of its interval, within the margin. Of two members that are much the same each buys
    nothing beside the other (``leave_one_out``), but only one of them can go. Under five groups nobody can.

    Args:
        members: all of them.
        score: see ``SubsetScore``.
        groups: the group of each image id.
        margin: loss of score that does not matter, from 0.
        track: shows progress.
        options: level, resamples and seed of the interval.

    Raises:
        UsageError: a margin under 0.
    """
    if not margin >= 0:
        raise UsageError(f"a margin of {margin} is no loss: give a number from 0")
    here = tuple(members)
    whole = score(here)
    gone: dict[str, Interval] = {}
    for _ in track(range(len(here) - 1), len(here) - 1, "members that could go"):
        scores = {member: score(_without(here, member)) for member in here}
        least = max(here, key=lambda member: fmean(scores[member].values()))
        loss = gain(whole, scores[least], groups, **options)
        if loss.high is None or loss.high > margin:
            break
        gone[least] = loss
        here = _without(here, least)
    return gone


def ensembles(costs: Mapping[str, MemberCost], score: SubsetScore, track: Track = untracked) -> list[Ensemble]:
    """Ensembles of some of the members, scored; each set of members once.

    Of up to ``EVERY`` members all there are. Of more: each alone, and two ways down from all of them, on which one
    member after the other is left out, the one without which the score is best, or which costs the least score for
    each second saved: M + M (M + 1) scores at most.

    Args:
        costs: of the members to choose from.
        score: see ``SubsetScore``.
        track: shows progress.

    Raises:
        UsageError: no members, or a cost that is negative or not finite.
    """
    if not costs:
        raise UsageError("there are no members to make ensembles of: give at least one")
    for member, cost in costs.items():
        if not (math.isfinite(cost.seconds) and cost.seconds >= 0 and cost.bytes >= 0):
            raise UsageError(f"member {member!r} costs {cost.seconds} s and {cost.bytes} bytes: give numbers from 0")
    ways = _Ways(costs, score)
    everyone = tuple(costs)
    if len(everyone) <= EVERY:
        sets = [some for count in range(1, len(everyone) + 1) for some in combinations(everyone, count)]
        for some in track(sets, len(sets), "ensembles"):
            ways.ensemble(some)
    else:
        for member in everyone:
            ways.ensemble((member,))
        for _ in track(ways.down(everyone), 2 * len(everyone) - 2, "ensembles"):
            pass
    return list(ways.known.values())


def front(found: Iterable[Ensemble], cost: Cost = "seconds") -> list[Ensemble]:
    """The ensembles that none of the others beats: as good or better for as little or less, and not equal in both.

    Pareto front of score against one cost, by growing cost; of equals the one of fewer members, then by name.

    Raises:
        UsageError: no such cost.
    """
    if cost not in _COSTS:
        raise UsageError(f"{cost!r} is no cost: take one of {', '.join(_COSTS)}")
    best: list[Ensemble] = []
    for ensemble in sorted(found, key=lambda one: (getattr(one, cost), -one.score, one.models, one.members)):
        if not best or ensemble.score > best[-1].score:
            best.append(ensemble)
    return best


def pick(
    found: Iterable[Ensemble],
    *,
    max_models: int | None = None,
    max_seconds: float | None = None,
    max_bytes: int | None = None,
) -> Ensemble:
    """The best ensemble that keeps within the limits; of equal scores the quicker, then the one of fewer members.

    With one limit it is the last one on the front of that cost that keeps within it, up to such ties.

    Raises:
        UsageError: none does.
    """
    everyone = list(found)
    limits = {"models": max_models, "seconds": max_seconds, "bytes": max_bytes}
    within = [
        one for one in everyone if all(limit is None or getattr(one, cost) <= limit for cost, limit in limits.items())
    ]
    if not within:
        asked = ", ".join(f"at most {limit:g} {cost}" for cost, limit in limits.items() if limit is not None)
        least = ", ".join(f"{min(getattr(one, cost) for one in everyone):g} {cost}" for cost in _COSTS if everyone)
        raise UsageError(f"none of {len(everyone)} ensembles keeps within {asked}: the least are {least}; allow more")
    return min(within, key=lambda one: (-one.score, one.seconds, one.models, one.members))


class _Ways:
    """Scores each set of members once."""

    def __init__(self, costs: Mapping[str, MemberCost], score: SubsetScore) -> None:
        self._costs, self._score = costs, score
        self.known: dict[Members, Ensemble] = {}

    def ensemble(self, members: Members) -> Ensemble:
        if members not in self.known:
            costs = [self._costs[member] for member in members]
            seconds, size = math.fsum(cost.seconds for cost in costs), sum(cost.bytes for cost in costs)
            self.known[members] = Ensemble(members, fmean(self._score(members).values()), seconds, size)
        return self.known[members]

    def down(self, everyone: Members) -> Iterator[Ensemble]:
        """Both ways down, step by step."""
        for loss in (self._loss, self._loss_a_second):
            here = self.ensemble(everyone)
            while here.models > 1:
                below = [self.ensemble(_without(here.members, member)) for member in here.members]
                here = min(below, key=lambda one: (loss(here, one), one.members))
                yield here

    @staticmethod
    def _loss(here: Ensemble, below: Ensemble) -> float:
        return here.score - below.score

    @staticmethod
    def _loss_a_second(here: Ensemble, below: Ensemble) -> float:
        loss, saved = here.score - below.score, here.seconds - below.seconds
        # what gains by going goes first, whatever it saves
        return loss / saved if saved > 0 and loss > 0 else (loss if loss <= 0 else math.inf)


def _without(members: Members, member: str) -> Members:
    return tuple(one for one in members if one != member)
