"""Which post-processing steps help: tried on out-of-fold blends one after the other, and kept if they harm no group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from carvana_ens.core.dice import counts, dice_from_counts
from carvana_ens.core.rle import mask_bits
from carvana_ens.core.spaces import Space
from carvana_ens.data.ids import listed
from carvana_ens.ensemble.blending import Blend
from carvana_ens.ensemble.bootstrap import Interval, gain
from carvana_ens.ensemble.passes import Elsewhere, each_image
from carvana_ens.ensemble.steps import PostProcessed, apply_step, steps_text
from carvana_ens.ensemble.truth import Truth
from carvana_ens.errors import DataError, PluginError, UsageError
from carvana_ens.postprocess import Step
from carvana_ens.store.store import ProbabilityStore
from carvana_ens.types import Track, untracked

HARM = 1e-3
"""By how much a group's mean Dice may fall: of a car with 16 photos, 0.016 in one of them."""


@dataclass(frozen=True)
class TriedStep:
    """A setting of a step, tried on top of the steps kept until then.

    gain: of mean Dice over images, with its interval by group. changed: images whose mask it changed. fall: the most by
    which a group's mean fell, below what it was before the step or in the plain blend, whichever is more; negative
    where all rose. group: that group.
    refused: why it was not kept; None if it was.
    """

    step: Step
    gain: Interval
    changed: int
    fall: float
    group: str
    refused: str | None


@dataclass(frozen=True)
class ChosenSteps:
    """steps: those kept, in order. plain, by_image: Dice of each image without them and with them. tried: in order."""

    steps: tuple[Step, ...]
    plain: Mapping[str, float]
    by_image: Mapping[str, float]
    tried: tuple[TriedStep, ...]


def choose_steps(
    blend: Blend,
    steps: Sequence[Step],
    truth: Truth,
    groups: Mapping[str, str],
    *,
    ids: Sequence[str] | None = None,
    others: Mapping[str, ProbabilityStore] | None = None,
    margin: float = 0.0,
    harm: float = HARM,
    level: float = 0.95,
    seed: int = 0,
    threads: int | None = None,
    elsewhere: Elsewhere | None = None,
    track: Track = untracked,
) -> ChosenSteps:
    """Tries steps in their order, each with all of its candidates, on top of those kept so far.

    The candidate of the highest mean Dice by image is kept if it gains more than the margin and no group falls by more
    than ``harm``; of equal ones the first. What is gained so is gained on the very images that it was chosen on.

    Args:
        blend: of out-of-fold maps.
        steps: in the order in which they are to run.
        truth: the masks.
        groups: the group of each image.
        ids: the images to choose on; None for all of the blend.
        others: stores by member for steps that read members without a weight.
        margin: in units of Dice, from 0.
        harm: in units of Dice, from 0; by how much the mean of a group may fall below what it was before the step,
            and below that of the plain blend.
        level: of the intervals, see ``bootstrap.gain``.
        seed: likewise.
        threads: None for as many as there are processors.
        elsewhere: workers that read the maps, see ``passes``.
        track: shows progress; one pass over the images for the plain blend and each step.

    Raises:
        UsageError: a margin or harm below 0, or a step that reads a member that is not there.
        DataError: no images, or one without a group.
        StoreError, PluginError: a damaged map, or a step that fails.
    """
    if not (margin >= 0 and harm >= 0):
        raise UsageError(f"margin {margin} and harm {harm} are differences of Dice: give numbers from 0")
    ids = blend.ids if ids is None else tuple(ids)
    PostProcessed(blend, steps, others)  # whatever is wrong with a later step is refused before the first is tried
    scores = _Scores(blend, truth, others, ids, groups, threads, elsewhere, track)
    plain = now = scores.of((), [None])[0][0]
    kept: tuple[Step, ...] = ()
    tried: list[TriedStep] = []
    for step in steps:
        candidates = step.candidates()
        if not candidates:
            raise PluginError(f"step {step.name} has no candidates to try; report it to its author", name=step.name)
        found, changed = scores.of(kept, candidates)
        floor = np.maximum(scores.by_group(plain), scores.by_group(now))
        judged = []
        for candidate, dice, masks in zip(candidates, found, changed, strict=True):
            fall = floor - scores.by_group(dice)
            worst = int(fall.argmax())
            interval = gain(scores.named(dice), scores.named(now), groups, level=level, seed=seed)
            one = TriedStep(candidate, interval, int(masks), float(fall[worst]), scores.names[worst], None)
            judged.append(replace(one, refused=_reason(one, margin, harm)))
        good = [number for number, one in enumerate(judged) if one.refused is None]
        if good:
            best = max(good, key=lambda number: judged[number].gain.mean)
            kept, now = (*kept, candidates[best]), found[best]
            beaten = f"{steps_text(kept[-1:])} gains as much or more"
            for number in set(good) - {best}:
                judged[number] = replace(judged[number], refused=beaten)
        tried += judged
    return ChosenSteps(kept, scores.named(plain), scores.named(now), tuple(tried))


def score_steps(
    blend: Blend,
    steps: Sequence[Step],
    truth: Truth,
    *,
    ids: Sequence[str] | None = None,
    others: Mapping[str, ProbabilityStore] | None = None,
    threads: int | None = None,
    elsewhere: Elsewhere | None = None,
    track: Track = untracked,
) -> dict[str, float]:
    """Dice of each image after these steps; the arguments and errors are those of ``choose_steps``."""
    ids = blend.ids if ids is None else tuple(ids)
    scores = _Scores(blend, truth, others, ids, dict.fromkeys(ids, ""), threads, elsewhere, track)
    return scores.named(scores.of(steps, [None])[0][0])


def _reason(one: TriedStep, margin: float, harm: float) -> str | None:
    if one.fall > harm:
        return f"the mean Dice of group {one.group} falls by {one.fall:.6f}, more than {harm:g}"
    if not one.gain.mean > margin:
        return f"it gains {one.gain.mean:.6f}, not more than {margin:g}"
    return None


@dataclass(frozen=True)
class _Look:
    """Scores an image with each candidate after the steps kept; (Dice, whether the mask was changed).

    weights, threshold, space, cut: of the blend. members: the names of the stores.
    """

    weights: Mapping[str, int]
    threshold: Fraction
    space: Space
    cut: str
    members: tuple[str, ...]
    kept: tuple[Step, ...]
    candidates: tuple[Step | None, ...]

    def begun(self, stores: Sequence[ProbabilityStore], truth: Truth) -> Callable[[str], list[tuple[float, bool]]]:
        """See ``passes.Look``."""
        named = dict(zip(self.members, stores, strict=True))
        blend = Blend(named, self.weights, self.threshold, space=self.space, cut=self.cut)
        base = PostProcessed(blend, self.kept, named)

        def one(image_id: str) -> list[tuple[float, bool]]:
            mask, image, size = base.mask(image_id), base.image(image_id), base.size(image_id)
            true = truth(image_id, size)
            masks = (mask if step is None else apply_step(step, mask, image) for step in self.candidates)
            return [(dice_from_counts(*counts(mask_bits(m), true)), not np.array_equal(m, mask)) for m in masks]

        return one


class _Scores:
    """Dice by image of settings, a pass over the images for those that start alike; holds a number an image."""

    def __init__(
        self,
        blend: Blend,
        truth: Truth,
        others: Mapping[str, ProbabilityStore] | None,
        ids: Sequence[str],
        groups: Mapping[str, str],
        threads: int | None,
        elsewhere: Elsewhere | None,
        track: Track,
    ) -> None:
        if not ids:
            raise DataError("there are no images to choose post-processing steps on: give some with masks")
        lost = [image_id for image_id in ids if image_id not in groups]
        if lost:
            raise DataError(f"{len(lost)} of {len(ids)} images to choose steps on have no group: {listed(lost)}")
        self.blend, self.truth, self.ids = blend, truth, ids
        self.stores = {**(others or {}), **blend.stores}
        self.threads, self.elsewhere, self.track = threads, elsewhere, track
        names, places = np.unique([groups[image_id] for image_id in ids], return_inverse=True)
        self.names = [str(name) for name in names]
        self._places = places

    def of(
        self, kept: Sequence[Step], candidates: Sequence[Step | None]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(K, N) Dice of the images with each of K candidates after the steps kept, and (K,) images that it changed.

        A candidate of None is nothing more.
        """
        blend, stores = self.blend, list(self.stores.values())
        how = (blend.weights, blend.threshold, blend.space, blend.cut)
        look = _Look(*how, tuple(self.stores), tuple(kept), tuple(candidates))
        rows = each_image(look, stores, self.truth, self.ids, self.threads, self.elsewhere)
        what = candidates[0].name if candidates[0] is not None else "blend"
        found = np.empty((len(candidates), len(self.ids)))
        changed = np.zeros(len(candidates), np.int64)
        for number, row in enumerate(self.track(rows, len(self.ids), what)):
            found[:, number] = [dice for dice, _ in row]
            changed += [differs for _, differs in row]
        return found, changed

    def by_group(self, dice: NDArray[np.float64]) -> NDArray[np.float64]:
        """(G,) means of the groups, in the order of ``names``."""
        return np.bincount(self._places, dice) / np.bincount(self._places)

    def named(self, dice: NDArray[np.float64]) -> dict[str, float]:
        """The Dice by image id."""
        return dict(zip(self.ids, dice.tolist(), strict=True))
