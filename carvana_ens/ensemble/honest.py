"""What a tuned ensemble is worth on images that it was not tuned on: nested cross-validation by group.

Weights and threshold are searched on all folds but one and scored on that one, in turn, so that every image gets a
score by a choice that knew nothing of its group (Stone, JRSS B 36, 1974; Varma and Simon, BMC Bioinformatics 7, 2006,
doi:10.1186/1471-2105-7-91). What the search gained by fitting the very images it is scored on, the optimism, is then
out. The maps stay as they are: fold models that made the maps of the images tuned on have seen the others.

Two folds' choices were searched on nearly the same images, each on the very ones that the other is scored on: where
chance favours a member in one, the other chooses it. Scores of different folds so rise and fall together, and an
interval that takes groups for independent is too narrow: choosing among six equal members by 40 groups in 5 folds, it
leaves out the true gain, 0, in 17 of 100 cases instead of 5. So it is widened by the correction for overlapping
training sets, variance x (1 + K n2 / n1) with K folds that hold out n2 groups and tune on n1 (Nadeau and Bengio,
Machine Learning 52, 2003, doi:10.1023/A:1024068626366; for folds: Bouckaert and Frank, PAKDD 2004,
doi:10.1007/978-3-540-24775-3_3), which brings it to 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from carvana_ens.core.spaces import Space
from carvana_ens.data.ids import listed
from carvana_ens.data.stratify import shuffled
from carvana_ens.ensemble.bootstrap import Interval, gain, mean_interval
from carvana_ens.errors import DataError, UsageError
from carvana_ens.types import Track, untracked


@dataclass(frozen=True)
class Choice:
    """What a search answers. weights: whole numbers from 0 by member, not all 0. threshold: exact, such as 128/255.
    space: the blending space that both are of; None: probabilities.
    """

    weights: Mapping[str, int]
    threshold: str
    space: Space | None = None


Search: TypeAlias = Callable[[Sequence[str]], Choice]
"""Finds a choice on the images of these ids alone."""
Score: TypeAlias = Callable[[Choice, Sequence[str]], Mapping[str, float]]
"""The score of a choice on each of these images; the more the better."""


@dataclass(frozen=True)
class Honest:
    """A tuned choice with the scores to believe, and those not to.

    choice: searched on all images. tuned_by_image: its scores, on the images it was searched on. by_image: of each
    image, the score of the choice that was searched without its fold. choices: these, by fold.
    """

    choice: Choice
    tuned_by_image: Mapping[str, float]
    by_image: Mapping[str, float]
    choices: Mapping[int, Choice]

    @property
    def tuned(self) -> float:
        """Mean score on the images that were tuned on."""
        return float(np.mean(list(self.tuned_by_image.values())))

    @property
    def honest(self) -> float:
        """Mean score on images that were not."""
        return float(np.mean(list(self.by_image.values())))

    @property
    def optimism(self) -> float:
        """Tuned minus honest."""
        return self.tuned - self.honest


def honest_interval(honest: Honest, groups: Mapping[str, str], **options: Any) -> Interval:
    """The honest score with its interval, as ``bootstrap.mean_interval``, widened; see the module.

    groups: the group of each image that was tuned on. options: level, resamples and seed.
    """
    return mean_interval(honest.by_image, groups, **options).wider(_correction(honest, groups))


def honest_gain(
    ours: Honest, theirs: Honest | Mapping[str, float], groups: Mapping[str, str], **options: Any
) -> Interval:
    """The honest score of ours minus that of theirs with its interval, as ``bootstrap.gain``, widened; see the module.

    theirs: of the same folds, or the scores by image of a choice that was not searched (weights and threshold fixed
    beforehand). groups: the group of each image that was tuned on. options: level, resamples and seed.

    Raises:
        DataError: scores of different images.
    """
    other = theirs.by_image if isinstance(theirs, Honest) else theirs
    return gain(ours.by_image, other, groups, **options).wider(_correction(ours, groups))


def _correction(honest: Honest, groups: Mapping[str, str]) -> float:
    folds = len(honest.choices)
    held_out = len({groups[image_id] for image_id in honest.by_image}) / folds
    tuned_on = len(set(groups.values())) - held_out
    return math.sqrt(1 + folds * held_out / tuned_on)


def dealt_groups(groups: Mapping[str, str], folds: int = 5, seed: int = 0) -> dict[str, int]:
    """A fold 0..K-1 of each group, drawn by the seed; folds differ by one group at most.

    groups: the group of each image id. folds: K, from 2 to the number of groups.

    Raises:
        UsageError: folds that cannot be meant for so few groups.
    """
    names = list(set(groups.values()))
    if not 2 <= folds <= len(names):
        raise UsageError(f"{folds} folds cannot be made of {len(names)} groups: ask for 2..{len(names)}")
    return {group: number % folds for number, group in enumerate(shuffled(names, seed))}


def nested(
    search: Search,
    score: Score,
    groups: Mapping[str, str],
    folds: Mapping[str, int],
    track: Track = untracked,
) -> Honest:
    """Searches on all images, and once for each fold on the images outside it; see the module.

    Args:
        search: see ``Search``; called with ids in the order of ``groups``.
        score: see ``Score``.
        groups: the group of each image to tune on.
        folds: the fold of each group: the assignment of a fold table, or ``dealt_groups``. Images of a group in a
            fold under 0 are tuned on and never scored honestly.
        track: shows progress, a search at a time.

    Raises:
        DataError: a group without a fold.
        UsageError: fewer than two folds hold images, or ``score`` answered with other images than it was asked for.
    """
    lost = {group for group in groups.values() if group not in folds}
    if lost:
        raise DataError(f"{len(lost)} groups have no fold: {listed(lost)}; give a fold table that has them")
    fold_of = {image_id: folds[group] for image_id, group in groups.items()}
    numbers = sorted({fold for fold in fold_of.values() if fold >= 0})
    if len(numbers) < 2:
        raise UsageError(
            f"an honest score takes two folds with images, got {len(numbers)}: deal the groups into more folds"
        )
    choices: dict[int, Choice] = {}
    found: dict[str, float] = {}
    for fold in track(numbers, len(numbers), "honest score"):
        choices[fold] = search([image_id for image_id, number in fold_of.items() if number != fold])
        found |= _scored(score, choices[fold], [image_id for image_id, number in fold_of.items() if number == fold])
    choice = search(list(groups))
    by_image = {image_id: found[image_id] for image_id in groups if image_id in found}
    return Honest(choice, _scored(score, choice, list(by_image)), by_image, choices)


def _scored(score: Score, choice: Choice, ids: Sequence[str]) -> dict[str, float]:
    scores = dict(score(choice, ids))
    if scores.keys() != set(ids):
        raise UsageError(
            f"{len(ids)} images were to be scored, first {ids[0]!r}, and {len(scores)} were: score all of them"
        )
    return scores
