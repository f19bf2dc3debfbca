"""Weights and threshold on out-of-fold maps, and what else may help: blending spaces, an expected-Dice cut, steps.

What stands first (a space, a cut at a threshold, masks as they are cut) is left for something else only where that
scores surely more on photos that were held out: where the interval of its honest gain lies above 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path

from carvana_ens.core.spaces import PROBABILISTIC, Space, check_kind
from carvana_ens.core.weights import threshold_text
from carvana_ens.ensemble.blending import Blend, check_cut
from carvana_ens.ensemble.bootstrap import Interval
from carvana_ens.ensemble.disputed import MEMORY, Disputed, keep_disputed
from carvana_ens.ensemble.expected_dice import expected_dice_scores
from carvana_ens.ensemble.honest import Choice, Honest, honest_gain, nested
from carvana_ens.ensemble.kept_searches import KeptSearches
from carvana_ens.ensemble.objectives import Objective
from carvana_ens.ensemble.out_of_fold import OutOfFold
from carvana_ens.ensemble.pareto import Ensemble, MemberCost, ensembles
from carvana_ens.ensemble.search import Found
from carvana_ens.ensemble.searched_space import SearchedSpace
from carvana_ens.ensemble.spaces import UNFITTED, CodeCounts, count_codes, fit_space, space_of
from carvana_ens.ensemble.step_choice import ChosenSteps, choose_steps, score_steps
from carvana_ens.ensemble.steps import steps_text
from carvana_ens.ensemble.worth import MemberWorth, Worth, honest_folds, member_worth, subset_score, worth
from carvana_ens.errors import UsageError
from carvana_ens.files import digest
from carvana_ens.postprocess import Step

CUTS = ("threshold", "expected-dice", "best")
"""How the blend is cut; "best": by an expected Dice where that scores surely more."""


@dataclass(frozen=True)
class Asked:
    """What to search.

    low, high: thresholds between which to search, as of probabilities; both the same: that one. rounds, seconds, seed:
    see ``search.search``; seconds are shared among all searches. spaces: kinds of blending spaces, the first to be left
    for another one only where that is surely better. cut: one of ``CUTS``. steps: post-processing to try, in order.
    honest: score on images held out, too.
    """

    low: Fraction
    high: Fraction
    objective: Objective
    rounds: int = 20
    seconds: float | None = None
    seed: int = 0
    spaces: tuple[str, ...] = ("probability",)
    cut: str = "threshold"
    steps: tuple[Step, ...] = ()
    honest: bool = True

    def __post_init__(self) -> None:
        """Refuses what cannot be meant.

        Raises:
            UsageError: unknown spaces or cut, or a choice that honest scores would have to make.
        """
        for kind in self.spaces:
            check_kind(kind)
        if not self.spaces or len(set(self.spaces)) < len(self.spaces):
            raise UsageError(f"blending spaces {', '.join(self.spaces) or 'none'}: name each once, one at least")
        if self.cut not in CUTS:
            raise UsageError(f"cut {self.cut!r} is unknown: there are {', '.join(CUTS)}")
        if not self.honest and (len(self.spaces) > 1 or self.cut == "best"):
            raise UsageError("which space or cut is better is decided by honest scores: name one, or leave these in")


@dataclass(frozen=True)
class Tried:
    """Something tried beside what stood then. gain: of honest Dice. reason: why it was refused; None where kept."""

    name: str
    gain: Interval
    reason: str | None


@dataclass(frozen=True)
class Judged:
    """Honest scores. folds: of each group. members: None where there is one only. subsets: see ``pareto.ensembles``."""

    folds: Mapping[str, int]
    worth: Worth
    members: MemberWorth | None
    subsets: Sequence[Ensemble]


@dataclass(frozen=True)
class Outcome:
    """names: of the members. found: of the search on all images. thresholds: that were tried. space: chosen. cut:
    "threshold" or "expected-dice". steps: those kept. final: mean Dice on the images tuned on, by cut and steps.
    judged: None where there are no honest scores; ``reason`` says why. tried: in order.
    """

    names: tuple[str, ...]
    found: Found
    thresholds: Sequence[Fraction]
    space: Space
    cut: str
    steps: tuple[Step, ...]
    final: float | None
    judged: Judged | None
    reason: str | None
    tried: tuple[Tried, ...]

    @property
    def weights(self) -> dict[str, int]:
        """By member, as they were found."""
        return dict(zip(self.names, self.found.best.weights, strict=True))

    @property
    def threshold(self) -> Fraction:
        """Of the space; unused by a cut by expected Dice."""
        return self.found.best.threshold


def tune_maps(maps: OutOfFold, asked: Asked, costs: Mapping[str, MemberCost], kept: Path | None = None) -> Outcome:
    """Searches; see the module.

    costs: of each member, to score smaller ensembles with. kept: folder in which finished searches are kept; None: they
    are not.

    Raises:
        UsageError: steps or a cut that do not fit.
        DataError, StoreError: what ``keep_disputed`` refuses.
    """
    return _Tuner(maps, asked, costs, kept).run()


@dataclass(frozen=True)
class _Candidate:
    searched: SearchedSpace
    honest: Honest | None


class _Tuner:
    def __init__(self, maps: OutOfFold, asked: Asked, costs: Mapping[str, MemberCost], kept: Path | None) -> None:
        self._maps, self._asked, self._costs, self._kept = maps, asked, costs, kept
        self._ids, self._groups = maps.ids, maps.own_groups
        self._folds = honest_folds(self._groups, list(maps.tables.values()), asked.seed) if asked.honest else None
        self._tried: list[Tried] = []

    def run(self) -> Outcome:
        candidate = self._space()
        searched, honest = candidate.searched, candidate.honest
        at_threshold = honest
        found, space = searched.found(self._ids), searched.space(self._ids)
        cut, honest = self._cut(space, honest)
        steps, final, honest = self._steps(found, space, cut, honest)
        reason = None
        if honest is None:
            reason = "there is one group only" if self._asked.honest else "it was not asked for"
        if final is None and honest is not None and cut != "threshold":
            final = honest.tuned
        judged = None
        if honest is not None and at_threshold is not None:
            judged = self._judged(searched, honest, at_threshold)
        return Outcome(
            searched.names,
            found,
            searched.thresholds(self._ids),
            space,
            cut,
            steps,
            final,
            judged,
            reason,
            tuple(self._tried),
        )

    def _space(self) -> _Candidate:
        """The first space, or one that is surely better."""
        candidates = [self._candidate(kind) for kind in self._asked.spaces]
        first, better = candidates[0], []
        for kind, other in zip(self._asked.spaces[1:], candidates[1:], strict=True):
            if first.honest is None or other.honest is None:
                break  # there is one group only
            if self._surely(f"space {kind}", other.honest, first.honest):
                better.append((other.honest.honest, other))
        return max(better, key=lambda one: one[0], default=(0.0, first))[1]

    def _candidate(self, kind: str) -> _Candidate:
        searched = self._searched(kind)
        if self._folds is None:
            return _Candidate(searched, None)
        honest = nested(searched.search(), searched.score, self._groups, self._folds, self._maps.track)
        return _Candidate(searched, honest)

    def _surely(self, name: str, ours: Honest, theirs: Honest, *, wanted: bool = False) -> bool:
        """Whether ours scores surely more, or is wanted whatever it scores; remembers what was found."""
        gain = honest_gain(ours, theirs, self._groups, seed=self._asked.seed)
        reason = None
        if not wanted and not (gain.low is not None and gain.low > 0):
            reason = gain.reason or "its interval does not lie above 0"
        self._tried.append(Tried(name, gain, reason))
        return reason is None

    def _cut(self, space: Space, honest: Honest | None) -> tuple[str, Honest | None]:
        asked, maps = self._asked, self._maps
        if asked.cut == "threshold" or (asked.cut == "best" and space.kind not in PROBABILISTIC):
            return "threshold", honest
        check_cut("expected-dice", space)
        if honest is None:  # there is one group only, so that nothing says which is better
            return ("expected-dice" if asked.cut == "expected-dice" else "threshold"), None

        def scores(choice: Choice, ids: Sequence[str]) -> dict[str, float]:
            weights = {name: weight for name, weight in choice.weights.items() if weight}
            return expected_dice_scores(
                maps.stores,
                weights,
                ids,
                maps.truth,
                space=choice.space,
                threads=maps.threads,
                elsewhere=maps.elsewhere,
                track=maps.track,
            )

        by_image: dict[str, float] = {}
        for fold, choice in honest.choices.items():
            by_image |= scores(choice, self._held_out(fold))
        expected = replace(honest, tuned_by_image=scores(honest.choice, list(honest.by_image)), by_image=by_image)
        if self._surely("cut by expected Dice", expected, honest, wanted=asked.cut == "expected-dice"):
            return "expected-dice", expected
        return "threshold", honest

    def _steps(
        self, found: Found, space: Space, cut: str, honest: Honest | None
    ) -> tuple[tuple[Step, ...], float | None, Honest | None]:
        """The steps that help all images; honest scores are of those that help the images outside each fold."""
        if not self._asked.steps:
            return (), None, honest
        weights = dict(zip(self._maps.stores, found.best.weights, strict=True))
        choice = Choice(weights, str(found.best.threshold), space)
        chosen = self._chosen(choice, cut, self._ids)
        self._tried += [Tried(f"step {steps_text([one.step])}", one.gain, one.refused) for one in chosen.tried]
        final = sum(chosen.by_image.values()) / len(chosen.by_image)
        if honest is None:
            return chosen.steps, final, None
        by_image: dict[str, float] = {}
        for fold, own in honest.choices.items():
            held_out = self._held_out(fold)
            out = set(held_out)
            rest = [image_id for image_id in self._ids if image_id not in out]
            steps = self._chosen(own, cut, rest).steps
            by_image |= score_steps(
                self._blend(own, cut),
                steps,
                self._maps.truth,
                ids=held_out,
                others=self._maps.stores,
                threads=self._maps.threads,
                elsewhere=self._maps.elsewhere,
                track=self._maps.track,
            )
        tuned = {image_id: chosen.by_image[image_id] for image_id in honest.by_image}
        return chosen.steps, final, replace(honest, tuned_by_image=tuned, by_image=by_image)

    def _chosen(self, choice: Choice, cut: str, ids: Sequence[str]) -> ChosenSteps:
        maps = self._maps
        return choose_steps(
            self._blend(choice, cut),
            self._asked.steps,
            maps.truth,
            self._groups,
            ids=ids,
            others=maps.stores,
            seed=self._asked.seed,
            threads=maps.threads,
            elsewhere=maps.elsewhere,
            track=maps.track,
        )

    def _blend(self, choice: Choice, cut: str) -> Blend:
        weights = {name: weight for name, weight in choice.weights.items() if weight}
        return Blend(self._maps.stores, weights, choice.threshold, space=choice.space, cut=cut)

    def _held_out(self, fold: int) -> list[str]:
        folds = self._folds or {}
        return [image_id for image_id, group in self._groups.items() if folds[group] == fold]

    def _judged(self, searched: SearchedSpace, honest: Honest, at_threshold: Honest) -> Judged:
        """at_threshold: before another cut and steps, as smaller ensembles are scored."""
        folds, track, seed = self._folds or {}, self._maps.track, self._asked.seed
        equal, single = (
            nested(searched.search(how), searched.score, self._groups, folds) for how in ("equal", "best single")
        )
        value = worth(honest, equal, single, self._groups, seed=seed)
        score = subset_score(searched, at_threshold, self._groups, folds)
        members = None
        if len(searched.names) > 1:
            members = member_worth(searched.names, score, self._groups, track=track, seed=seed)
        return Judged(folds, value, members, ensembles(self._costs, score, track))

    @cached_property
    def _counts(self) -> CodeCounts:
        """Of each member's codes, by fold."""
        maps = self._maps
        parts = None
        if self._folds is not None:
            parts = {image_id: self._folds[group] for image_id, group in self._groups.items()}
        return count_codes(
            maps.stores, self._ids, maps.truth, parts, threads=maps.threads, elsewhere=maps.elsewhere, track=maps.track
        )

    def _searched(self, kind: str) -> SearchedSpace:
        maps, asked = self._maps, self._asked
        sets = 1 + len(set((self._folds or {}).values()))
        options = {
            "rounds": asked.rounds,
            "seconds": None if asked.seconds is None else asked.seconds / (sets * len(asked.spaces)),
            "seed": asked.seed,
        }
        memory = MEMORY if kind in UNFITTED else MEMORY // sets

        def fit(ids: Sequence[str]) -> Space:
            if kind in UNFITTED:
                return fit_space(kind, maps.stores, ids, maps.truth)
            return space_of(kind, self._counts.only(ids))

        def pixels(space: Space) -> Disputed:
            low, high = (asked.low, asked.high)
            if space.kind != "probability":
                low, high = space.thresholds(low, high, list(maps.stores))
            return keep_disputed(
                list(maps.stores.values()),
                self._ids,
                maps.truth,
                low,
                high,
                tables=space.tables(list(maps.stores)),
                threads=maps.threads,
                memory=memory,
                folder=maps.folder,
                elsewhere=maps.elsewhere,
                track=maps.track,
            )

        fingerprints = {name: store.fingerprint() for name, store in maps.stores.items()}
        thresholds = [threshold_text(asked.low), threshold_text(asked.high)]
        source = digest([fingerprints, maps.source, asked.objective.name, thresholds, options])
        kept = None if self._kept is None else KeptSearches(self._kept / f"searches-{kind}.json", source)
        return SearchedSpace(kind, list(maps.stores), fit, pixels, asked.objective, kept, **options, track=maps.track)
