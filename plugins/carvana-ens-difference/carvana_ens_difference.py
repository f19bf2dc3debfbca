"""Model ``difference``: the object is what does not stay where it was between the views of one turntable.

No network and no training: the camera stands still, so the views of a car vote on what the empty room looks like,
and the car is what differs from it and has fine detail of its own (a shadow differs too, but it is smooth).
The idea of comparing views is from eugenbobrov's Carvana solution (``rois.py``, which compares neighbours by SSIM).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, distance_transform_edt
from skimage.filters import apply_hysteresis_threshold, gaussian
from skimage.measure import label

from carvana_ens import Batch, Model, Size, option

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

SAME = 8.0
"""Two views agree on a pixel when no channel differs by more levels than this: the noise of a good JPEG."""
VOTE = 25.0
"""One more agreeing view outweighs this many levels of distance from the guessed background."""


@dataclass(frozen=True)
class DifferenceOptions:
    """What ``carvana-ens add-model difference --set NAME=VALUE`` can change; lengths are parts of the width."""

    difference: float = option(25.0, "levels (of 255) by which the object differs from the background")
    detail: float = option(5.0, "levels of fine detail that the object has and a shadow has not")
    reach: float = option(0.04, "gaps in the detail up to twice this wide are closed, as a part of the width")
    softness: float = option(0.003, "blur of the map's edge, as a part of the width")

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"option {name} is {value}: it must be greater than 0")


class Difference(Model):
    """Sees all views of one car at once; fewer than three are each compared with the colours of their own frame."""

    Options = DifferenceOptions
    context = "group"
    size = Size(320, 480)

    def predict(self, batch: Batch) -> Floats:
        """(N, H, W) probabilities; the order of the views in the batch does not matter."""
        order = np.argsort(batch.ids)
        views = batch.images[order].astype(np.float32)
        empty, known = background(views)
        scale = max(1.0, 2 * views.shape[2] / self.size.width)  # the smallest length that counts, in pixels
        standing = np.where(known, texture(empty, scale), 0)  # detail of the room itself
        maps = np.empty(views.shape[:3], np.float32)
        for index, view in zip(order, views, strict=True):
            change = np.where(known, distance(view, empty), 255)
            detail = texture(view, scale) - standing
            detail[change <= 1.5 * SAME] = 0  # what was there before is not the object's
            maps[index] = gaussian(
                silhouette(change, detail, scale, self.options).astype(np.float32),
                self.options.softness * view.shape[1],
            )
        return maps


def background(views: Floats) -> tuple[Floats, Bools]:
    """(H, W, 3) the room without the car, and (H, W) where it is known, from (N, H, W, 3) views.

    A first guess carries the colours of pixels that never change into the part that does. Then each view votes for
    its own colour at a pixel with the number of views that agree (4 at most), and loses a vote per VOTE levels of
    distance from the guess: otherwise a car that is black in most views would pass for a black wall. Fewer than
    three views cannot vote: the guess from their frame stands.
    """
    still = np.ptp(views, axis=0).max(axis=-1) <= 2 * SAME if len(views) > 2 else np.zeros(views.shape[1:3], bool)
    still[[0, -1]] = still[:, [0, -1]] = True  # a car seldom leaves the picture
    regions = label(still)
    still = regions == regions[0, 0]  # only what hangs together with the frame: a black car's middle never changes
    nearest = tuple(distance_transform_edt(~still, return_distances=False, return_indices=True))
    middle = np.median(views, axis=0)
    guess = np.where(still[..., None], middle, gaussian(middle[nearest], views.shape[2] / 60, channel_axis=-1))
    if len(views) < 3:
        return guess, np.ones_like(still)
    votes = np.stack([(distance(views, view) <= SAME).sum(axis=0) for view in views])
    score = np.minimum(votes, 4) - distance(views, guess) / VOTE
    winner = np.take_along_axis(views, score.argmax(axis=0)[None, ..., None], axis=0)
    agree = (distance(views, winner) <= SAME)[..., None]
    return (views * agree).sum(axis=0) / agree.sum(axis=0, dtype=np.float32), score.max(axis=0) > 0


def texture(image: Floats, scale: float) -> Floats:
    """(H, W) how far the finest detail of an (H, W, 3) image stands out of its blur, in levels."""
    return distance(gaussian(image, scale / 4, channel_axis=-1), gaussian(image, scale, channel_axis=-1))


def distance(one: Floats, other: Floats) -> Floats:
    """(..., H, W) levels by which the channel that differs most does, of two (..., H, W, 3)."""
    return np.maximum.reduce([np.abs(one[..., channel] - other[..., channel]) for channel in range(3)])


def silhouette(change: Floats, detail: Floats, scale: float, options: DifferenceOptions) -> Bools:
    """(H, W) the object: the largest changed region, as far as there is detail on both sides in row and column."""
    detailed = apply_hysteresis_threshold(detail, options.detail, 2 * options.detail)
    changed = closed((gaussian(change, scale / 3) > options.difference) | detailed, 1.5 * scale)
    changed = largest(opened(binary_fill_holes(changed), scale))
    inside = between(detailed & changed, 0) & between(detailed & changed, 1)
    inside = closed(inside & changed, options.reach * change.shape[1]) & changed
    return largest(opened(inside, scale))


def between(mask: Bools, axis: int) -> Bools:
    """(H, W) from the first to the last True along an axis: shadows lie outside, beyond the last sharp edge."""
    after = np.maximum.accumulate(mask, axis=axis)
    return after & np.flip(np.maximum.accumulate(np.flip(mask, axis), axis=axis), axis)


def largest(mask: Bools) -> Bools:
    """The largest connected region; an empty mask stays empty."""
    regions: Any = label(mask)
    return regions == np.bincount(regions.ravel())[1:].argmax() + 1 if mask.any() else mask


def dilated(mask: Bools, radius: float) -> Bools:
    """Everything within a radius; scikit-image's isotropic_dilation does not keep an empty mask empty."""
    return distance_transform_edt(~mask) <= radius if mask.any() else mask


def closed(mask: Bools, radius: float) -> Bools:
    """Gaps up to twice the radius wide are filled."""
    return ~dilated(~dilated(mask, radius), radius)


def opened(mask: Bools, radius: float) -> Bools:
    """What is not twice the radius wide is removed."""
    return ~closed(~mask, radius)
