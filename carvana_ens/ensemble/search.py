"""Weights and threshold with the greatest score on disputed pixels.

Two ways, each with the others' outcome to beat: greedy selection with replacement (Caruana et al., ICML 2004), where a
round adds one more of the member that helps most, and the counts are the weights; then coordinate search, which moves
one weight at a time to the best of all its values, found in one pass. "separate" searches weights at the threshold
nearest to one half and cuts the outcome at its best threshold; "joint" judges each choice at its own best threshold.

Where many pixels are disputed, both are first done on some of the images, evenly spread; all images then score what was
found, equal weights and each single member, and move every weight of the best once more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from carvana_ens.core.weights import MAX_WEIGHT_SUM
from carvana_ens.ensemble.disputed import Disputed
from carvana_ens.ensemble.objectives import OBJECTIVES, Objective, Scores
from carvana_ens.errors import UsageError
from carvana_ens.types import Track, untracked

DIGITS = 9
"""Scores are compared after rounding, so that float noise picks no member."""

PATIENCE = 5
"""Greedy rounds without a gain after which a search ends."""

FINE = 512
"""Sum of weights that a coordinate search works with: steps of 0.2 %."""

COARSE = 2**25
"""Codes (of members and disputed pixels) from which a search begins on some of the images: a pass over more takes tens
of milliseconds, and a search makes hundreds.
"""

_PASSES = 20


@dataclass(frozen=True)
class Setting:
    """A blend and its score. weights: whole numbers by member, coprime. threshold: exact."""

    weights: tuple[int, ...]
    threshold: Fraction
    score: float


@dataclass(frozen=True)
class Found:
    """The outcome of a search.

    best: the greatest score of ``settings``; of equals the one that comes first in best single, equal, separate,
    joint. how: which that is. settings: all four by name. singles: every member alone, at its best threshold. path:
    score after each round of the greedy selection, the joint one where there are several thresholds, on the images that
    the search began with. in_time: False where the time was up before the search was.
    """

    best: Setting
    how: str
    settings: Mapping[str, Setting]
    singles: tuple[Setting, ...]
    path: tuple[float, ...]
    in_time: bool


def best_place(scores: Scores, thresholds: Sequence[Fraction]) -> int:
    """Where the greatest score lies; of equals the threshold nearest to one half, then the upper.

    A flat curve over k/255 so gives 128/255, which cuts codes as 0.5 does.
    """
    rounded = np.round(scores, DIGITS)
    places = np.flatnonzero(rounded == rounded.max()).tolist()
    return min(places, key=lambda place: (abs(2 * thresholds[place] - 1), -thresholds[place]))


def search(
    pixels: Disputed,
    objective: Objective = OBJECTIVES["mean-dice"],
    *,
    rounds: int = 20,
    restarts: int = 2,
    seconds: float | None = None,
    seed: int = 0,
    track: Track = untracked,
) -> Found:
    """Searches weights and threshold; see the module.

    rounds: of a greedy selection at most. restarts: coordinate searches that begin at random weights, besides that from
    the greedy selection. seconds: no new step is begun after that many; equal weights and single members are always
    scored. seed: of the order in which weights are moved, and of the random ones; without a time limit the same seed
    gives the same outcome.

    Raises:
        UsageError: rounds, restarts or seconds that cannot be meant.
        DataError: no images.
    """
    if not 1 <= rounds < MAX_WEIGHT_SUM or restarts < 0 or (seconds is not None and not seconds > 0):
        raise UsageError(
            f"rounds {rounds}, restarts {restarts}, seconds {seconds}: give 1..{MAX_WEIGHT_SUM - 1}, 0 or more, and a "
            f"time above 0"
        )
    rng = np.random.default_rng(seed)
    every = -(-pixels.codes // COARSE)
    if every == 1 or pixels.members == 1:
        return _Search(pixels, objective, rounds, restarts, seconds, rng, track).run()
    some = pixels.only(pixels.ids[::every])
    first = None if seconds is None else seconds / 2
    coarse = _Search(some, objective, rounds, restarts, first, rng, track).run()
    rest = None if seconds is None else seconds - seconds / 2
    return _Search(pixels, objective, rounds, restarts, rest, rng, track).finished(coarse)


class _Search:
    def __init__(
        self,
        pixels: Disputed,
        objective: Objective,
        rounds: int,
        restarts: int,
        seconds: float | None,
        rng: np.random.Generator,
        track: Track,
    ) -> None:
        self._pixels, self._objective, self._rng, self._track = pixels, objective, rng, track
        self._rounds, self._restarts = rounds, restarts
        self._end = math.inf if seconds is None else time.monotonic() + seconds
        self._late = False

    def run(self) -> Found:
        singles, settings = self._given()
        single, equal = settings.values()
        path: tuple[float, ...] = ()
        if self._pixels.members > 1:
            start, path = self._greedy("weights", self._at_the_half)
            settings["separate"] = self._cut(self._moved(start).weights)
            starts = [single, equal, settings["separate"]]
            if len(self._pixels.thresholds) > 1:
                start, path = self._greedy("weights and threshold", self._at_its_best)
                starts.append(start)
            settings["joint"] = self._refined(_first_best(starts))
        else:
            settings |= {"separate": single, "joint": single}
        return self._found(settings, singles, path)

    def finished(self, coarse: Found) -> Found:
        """What a search on some of the images found, on all of them."""
        singles, settings = self._given()
        settings["separate"] = self._cut(coarse.settings["separate"].weights)
        joint = self._cut(coarse.settings["joint"].weights)
        moved = self._moved(_first_best([*settings.values(), joint]), 1)
        settings["joint"] = _first_best([moved, self._cut(moved.weights)])
        found = self._found(settings, singles, coarse.path)
        return replace(found, in_time=found.in_time and coarse.in_time)

    def _given(self) -> tuple[tuple[Setting, ...], dict[str, Setting]]:
        """(single members, the best of them and equal weights): what needs no search."""
        members = self._pixels.members
        singles = tuple(
            self._cut(tuple(int(place == member) for place in range(members)))
            for member in self._track(range(members), members, "single members")
        )
        single = max(singles, key=lambda setting: (_rounded(setting), -singles.index(setting)))
        return singles, {"best single": single, "equal": self._cut((1,) * members)}

    def _found(self, settings: dict[str, Setting], singles: tuple[Setting, ...], path: tuple[float, ...]) -> Found:
        best = _first_best(settings.values())
        how = next(name for name, setting in settings.items() if setting is best)
        return Found(best, how, settings, singles, path, not self._late)

    def _up(self) -> bool:
        """Whether the time is; remembers that something was left out."""
        self._late = self._late or time.monotonic() >= self._end
        return self._late

    def _cut(self, weights: Sequence[int]) -> Setting:
        """Weights at their best threshold."""
        scores = self._pixels.curve(self._objective, weights)
        place = best_place(scores, self._pixels.thresholds)
        return Setting(_coprime(weights), self._pixels.thresholds[place], float(scores[place]))

    def _half(self) -> Fraction:
        thresholds = self._pixels.thresholds
        return thresholds[best_place(np.zeros(len(thresholds)), thresholds)]

    def _at_the_half(self, weights: Sequence[int]) -> list[Setting]:
        threshold = self._half()
        scores = self._pixels.scores_of_each_added(self._objective, weights, threshold)
        return [
            Setting(added, threshold, float(score)) for added, score in zip(_each_added(weights), scores, strict=True)
        ]

    def _at_its_best(self, weights: Sequence[int]) -> list[Setting]:
        return [self._cut(added) for added in _each_added(weights)]

    def _greedy(self, what: str, judged: Callable[[Sequence[int]], list[Setting]]) -> tuple[Setting, tuple[float, ...]]:
        """(best prefix, scores by round); judged: gives the settings with one more of each member in turn."""
        counts = [0] * self._pixels.members
        best: Setting | None = None
        path: list[float] = []
        gained = 0
        for number in self._track(range(self._rounds), self._rounds, f"greedy, {what}"):
            if best is not None and self._up():
                break
            settings = judged(counts)
            # of equal scores a member that is in already is taken, so that no member joins for nothing
            chosen = max(
                range(len(counts)), key=lambda member: (_rounded(settings[member]), counts[member] > 0, -member)
            )
            counts[chosen] += 1
            path.append(_rounded(settings[chosen]))
            if best is None or path[-1] > _rounded(best):
                best, gained = settings[chosen], number
            elif number - gained >= PATIENCE:
                break
        assert best is not None
        return best, tuple(path)

    def _refined(self, start: Setting) -> Setting:
        """The best of coordinate searches, with the threshold moved too, from a start and from random weights."""
        best = self._moved_and_cut(start)
        for _ in self._track(range(self._restarts), self._restarts, "random starts"):
            if self._up():
                break
            shares = self._rng.dirichlet(np.ones(self._pixels.members))
            weights = [int(weight) for weight in np.rint(shares * FINE // 2)]
            if any(weights):
                best = _first_best([best, self._moved_and_cut(self._cut(weights))])
        return best

    def _moved_and_cut(self, best: Setting) -> Setting:
        for _ in range(_PASSES):
            moved = self._moved(best)
            cut = _first_best([moved, self._cut(moved.weights)])
            if _rounded(cut) <= _rounded(best):
                break
            best = cut
        return best

    def _moved(self, best: Setting, passes: int = _PASSES) -> Setting:
        """Coordinate search at a fixed threshold; at least what it began with."""
        for _ in range(passes):
            before = best
            weights = _finer(best.weights)
            order = self._rng.permutation(len(weights)).tolist()
            for member in self._track(order, len(order), "each weight") if passes == 1 else order:
                if self._up():
                    return best
                rest = sum(weights) - weights[member]
                if not rest:  # alone, its weight means nothing
                    continue
                most = max(weights[member], min(2 * rest, max(FINE, sum(weights)) - rest))
                values = range(most + 1)
                scores = self._pixels.line(self._objective, weights, member, values, best.threshold)
                place = int(np.argmax(np.round(scores, DIGITS)))
                if round(float(scores[place]), DIGITS) > _rounded(best):
                    weights[member] = values[place]
                    best = Setting(_coprime(weights), best.threshold, float(scores[place]))
            if best is before:
                break
        return best


def _rounded(setting: Setting) -> float:
    return round(setting.score, DIGITS)


def _first_best(settings: Iterable[Setting]) -> Setting:
    """The first of the greatest score."""
    return max(settings, key=_rounded)


def _each_added(weights: Sequence[int]) -> list[tuple[int, ...]]:
    return [tuple(weight + (place == member) for place, weight in enumerate(weights)) for member in range(len(weights))]


def _coprime(weights: Sequence[int]) -> tuple[int, ...]:
    divisor = math.gcd(*weights)
    return tuple(weight // divisor for weight in weights)


def _finer(weights: Sequence[int]) -> list[int]:
    """The same proportions with a sum that leaves room on both sides of each weight, where it is small."""
    factor = max(1, FINE // 2 // sum(weights))
    return [weight * factor for weight in weights]
