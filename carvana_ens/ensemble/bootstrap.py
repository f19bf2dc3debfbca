"""How sure a mean over images is: bootstrap intervals that draw whole groups.

Photos of one group resemble each other, so that not images but groups are independent. Each resample draws as many
groups as there are, with replacement, each with all of its images, and takes the mean over these images (the cluster
bootstrap: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8; Field and Welsh, JRSS B 69,
2007, doi:10.1111/j.1467-9868.2007.00593.x). The interval lies between two percentiles of these means (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carvana_ens.data.ids import listed
from carvana_ens.errors import DataError, UsageError

RESAMPLES = 2000
LEVEL = 0.95
LEAST_GROUPS = 5
"""Of fewer groups there are too few different resamples for percentiles to mean anything."""
_DRAWN = 1 << 22
"""Groups drawn at a time: what is held does not grow with the data."""


@dataclass(frozen=True)
class Interval:
    """A mean over images and how sure it is.

    mean: over all images. low, high: between them it lies with confidence ``level``, by resampling groups; None where
    there are too few groups. images, groups: how many it is of.
    """

    mean: float
    low: float | None
    high: float | None
    level: float
    images: int
    groups: int

    @property
    def reason(self) -> str | None:
        """Why there is no interval; None where there is one."""
        if self.low is None:
            return f"no interval: it takes {LEAST_GROUPS} groups, there are {self.groups}"
        return None

    def excludes(self, value: float) -> bool:
        """Whether there is an interval and the value lies outside it."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high

    def wider(self, factor: float) -> Interval:
        """The interval with both ends ``factor`` times as far from the mean."""
        if self.low is None or self.high is None:
            return self
        low, high = (self.mean + factor * (end - self.mean) for end in (self.low, self.high))
        return dataclasses.replace(self, low=low, high=high)

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:.6f} ({self.reason})"
        return f"{self.mean:.6f} ({100 * self.level:g} %: {self.low:.6f} to {self.high:.6f})"


def mean_interval(
    by_image: Mapping[str, float],
    groups: Mapping[str, str],
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The mean of a value by image, with its interval; see the module.

    Args:
        by_image: a finite number of each image id, such as its Dice.
        groups: the group of each id.
        level: confidence, in (0, 1).
        resamples: how many are drawn.
        seed: the same seed, groups and images give the same resamples, whatever the values.

    Raises:
        UsageError: a level or a number of resamples that cannot be meant.
        DataError: no images, an image without a group, or a value that is not finite.
    """
    if not 0 < level < 1:
        raise UsageError(f"a level of {level} is no confidence: give a number between 0 and 1, such as 0.95")
    if resamples < 1:
        raise UsageError(f"an interval needs at least one resample, got {resamples}")
    ids = sorted(by_image)
    _check(ids, by_image, groups)
    names, places = np.unique([groups[image_id] for image_id in ids], return_inverse=True)
    values = np.array([by_image[image_id] for image_id in ids], np.float64)
    low = high = None
    if len(names) >= LEAST_GROUPS:
        means = _resampled(np.asarray(np.bincount(places, values), np.float64), np.bincount(places), resamples, seed)
        low, high = (float(end) for end in np.quantile(means, [(1 - level) / 2, (1 + level) / 2]))
    return Interval(float(values.mean()), low, high, level, len(ids), len(names))


def gain(
    ours: Mapping[str, float],
    theirs: Mapping[str, float],
    groups: Mapping[str, str],
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The mean of ours minus theirs, image by image, with its interval: both are resampled together.

    ours, theirs: a score of each image id, of the same images. The other arguments and errors: as ``mean_interval``.

    Raises:
        DataError: scores of different images.
    """
    if ours.keys() != theirs.keys():
        lost = ours.keys() ^ theirs.keys()
        raise DataError(
            f"a gain is of the same images, but {len(lost)} have one score only: {listed(lost)}; score both on all"
        )
    differences = {image_id: score - theirs[image_id] for image_id, score in ours.items()}
    return mean_interval(differences, groups, level=level, resamples=resamples, seed=seed)


def _check(ids: list[str], by_image: Mapping[str, float], groups: Mapping[str, str]) -> None:
    if not ids:
        raise DataError("there are no scores to take a mean of: score at least one image")
    lost = [image_id for image_id in ids if image_id not in groups]
    if lost:
        raise DataError(f"{len(lost)} of {len(ids)} scored images have no group: {listed(lost)}")
    wrong = [image_id for image_id in ids if not math.isfinite(by_image[image_id])]
    if wrong:
        raise DataError(f"{len(wrong)} of {len(ids)} scores are not finite: {listed(wrong)}")


def _resampled(sums: NDArray[np.float64], sizes: NDArray[np.intp], resamples: int, seed: int) -> NDArray[np.float64]:
    """(resamples,) means over the images of the groups drawn. sums, sizes: (G,) of each group."""
    rng = np.random.default_rng(seed)
    count = len(sums)
    at_once = max(1, _DRAWN // count)
    means = np.empty(resamples)
    for first in range(0, resamples, at_once):
        part = means[first : first + at_once]
        drawn = rng.integers(0, count, (len(part), count))
        part[:] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return means
