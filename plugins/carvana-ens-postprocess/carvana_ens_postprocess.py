"""Post-processing steps: ``largest``, ``fill-holes``, ``remove-islands``, ``closing`` and ``roof-repair``.

All lengths and areas are in pixels of the image at full size. What lies outside the image is background. OpenCV does
the work (Apache-2.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from carvana_ens import BlendedImage, Step, option

Mask = NDArray[np.bool_]
Codes = NDArray[np.uint8]


@dataclass(frozen=True)
class Largest(Step):
    """Keeps the largest component; of several equally large ones the first, row by row."""

    name = "largest"
    connectivity: Literal[4, 8] = option(8, "pixels hang together by their sides (4), or by their corners too (8)")

    def apply(self, mask: Mask, image: BlendedImage) -> Mask:  # noqa: ARG002  (the contract's)
        """(H, W) the component; an empty mask stays empty."""
        labels, areas = components(mask, self.connectivity)
        if len(areas) < 2:
            return mask
        most = np.flatnonzero(areas[1:] == areas[1:].max()) + 1
        flat = labels.ravel()
        first = most[0] if len(most) == 1 else flat[np.isin(flat, most).argmax()]  # labels come in no promised order
        kept: Mask = labels == first
        return kept


@dataclass(frozen=True)
class FillHoles(Step):
    """Fills holes: background that no path, by the sides of pixels, joins to the border of the image."""

    name = "fill-holes"
    tried: ClassVar = {"area": (0, 100, 1000, 10000)}
    area: int = option(0, "fill holes of at most this many pixels; 0: all")

    def __post_init__(self) -> None:
        at_least("area", self.area, 0)

    def apply(self, mask: Mask, image: BlendedImage) -> Mask:  # noqa: ARG002
        """(H, W) the mask with its holes filled."""
        labels, areas = components(~mask, 4)
        filled = areas > 0 if self.area == 0 else areas <= self.area
        filled[0] = False  # the object
        for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
            filled[edge] = False
        return mask | filled[labels]


@dataclass(frozen=True)
class RemoveIslands(Step):
    """Removes components that are smaller than an area; pixels hang together by sides and corners."""

    name = "remove-islands"
    tried: ClassVar = {"area": (100, 1000, 10000)}
    area: int = option(100, "remove components of fewer pixels than this")

    def __post_init__(self) -> None:
        at_least("area", self.area, 1)

    def apply(self, mask: Mask, image: BlendedImage) -> Mask:  # noqa: ARG002
        """(H, W) the mask without its small components."""
        labels, areas = components(mask, 8)
        kept = areas >= self.area
        kept[0] = False  # the background
        return kept[labels]


@dataclass(frozen=True)
class Closing(Step):
    """Closes gaps and notches that a disc of this radius does not fit into; radius 1 is the 3x3 cross.

    eugenbobrov's Carvana solution closes with the cross, at a quarter of the size.
    """

    name = "closing"
    tried: ClassVar = {"radius": (1, 2, 4, 8)}
    radius: int = option(4, "of the disc, all pixels within this distance of its centre")

    def __post_init__(self) -> None:
        at_least("radius", self.radius, 1)

    def apply(self, mask: Mask, image: BlendedImage) -> Mask:  # noqa: ARG002
        """(H, W) the closed mask, of which the mask is a part."""
        y, x = np.ogrid[-self.radius : self.radius + 1, -self.radius : self.radius + 1]
        disc = (x * x + y * y <= self.radius**2).astype(np.uint8)
        # with room around it, because beyond the border OpenCV takes whatever changes least
        wide = np.pad(mask.view(np.uint8), self.radius)
        closed: Any = cv2.morphologyEx(wide, cv2.MORPH_CLOSE, disc)[
            self.radius : -self.radius, self.radius : -self.radius
        ]
        return np.ascontiguousarray(closed).view(np.bool_)


class Box(NamedTuple):
    """Rows and columns of an image, the last ones not in it."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True)
class RoofRepair(Step):
    """Replaces an unreliable roof by the convex hull of what one member is nearly sure of.

    The "top fix" of the 1st-place Carvana solution (generate_sub_final_ensemble.py); its member was the mean of
    albu's. A roof that reflects the studio leaves a wide area of doubt in the upper half of that member's map: where it
    is large enough, its bounding box is cut out of the mask and filled anew.
    """

    name = "roof-repair"
    member: str = option("", "member whose map decides; left out: the one with the most weight, by name if several")
    low: int = option(30, "codes in doubt are greater than this (of 255)")
    high: int = option(210, "codes in doubt are less than this (of 255)")
    erode: int = option(10, "rows that the area in doubt loses at its upper edges before it is measured")
    area: int = option(40000, "repair only if the largest area in doubt, within its outline, has more pixels than this")
    grow: int = option(50, "widen its bounding box by this at each side")
    inner: int = option(55, "in the box, the object is the hull of codes greater than this (of 255)")
    outside: Literal["blend", "over-127"] = option(
        "blend", "of repaired images outside the box: the mask as it was, or as theirs the mean code over 127"
    )

    def __post_init__(self) -> None:
        for name in ("low", "high", "erode", "area", "grow", "inner"):
            at_least(name, getattr(self, name), 0)

    def reads(self) -> tuple[str, ...]:
        """The member, if it is named."""
        return (self.member,) if self.member else ()

    def apply(self, mask: Mask, image: BlendedImage) -> Mask:
        """(H, W) the mask, or with the box replaced where the roof is unreliable.

        With ``outside`` over-127 a repaired image forgets what earlier steps did.
        """
        member = self.member or min(image.weights, key=lambda name: (-image.weights[name], name))
        codes = image.codes(member)
        box = self.unreliable(codes)
        if box is None:
            return mask
        result = mask.copy() if self.outside == "blend" else mean_over(image, 127)
        rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
        hull = hull_of(codes[rows, columns] > self.inner)
        if hull is not None:
            result[rows, columns] = hull
        return result

    def unreliable(self, codes: Codes) -> Box | None:
        """The box to replace in an image with this (H, W) map of the member; None where its roof can be relied on.

        A box that would begin above the image has no rows, as in theirs: such an image is not repaired. One that
        would begin left of it begins at its edge and is as wide as it would have been.
        """
        doubt: Any = ((codes > self.low) & (codes < self.high)).view(np.uint8)
        # theirs is cv2.erode(doubt, (55, 55), iterations=10), in which the pair is a kernel of 2 rows and 1 column
        tall = np.ones((self.erode + 1, 1), np.uint8)
        doubt = cv2.erode(doubt, tall, anchor=(0, self.erode))[: len(codes) // 2]
        outline = largest_outline(doubt)
        if outline is None or cv2.contourArea(outline) <= self.area:
            return None
        x, y, width, height = cv2.boundingRect(outline)
        left, top = max(x - self.grow, 0), y - self.grow
        bottom = min(top + height + 2 * self.grow, len(codes)) if top >= 0 else 0
        return Box(max(top, 0), bottom, left, min(left + width + 2 * self.grow, codes.shape[1]))


def components(mask: Mask, connectivity: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(H, W) labels of the components, 0 outside the mask, and the pixels of each label."""
    labels: Any
    stats: Any
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=connectivity)
    return labels, stats[:, cv2.CC_STAT_AREA]


def hull_of(mask: Mask) -> Mask | None:
    """(H, W) the filled convex hull of the part of a mask that has the largest outline; None where there is none."""
    outline = largest_outline(mask.astype(np.uint8))
    if outline is None:
        return None
    canvas = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(canvas, [cv2.convexHull(outline)], -1, 1, cv2.FILLED)
    return canvas.view(np.bool_)


def largest_outline(mask: NDArray[np.uint8]) -> Any:
    """The outer contour that encloses most, as OpenCV has contours; None where none encloses anything.

    A contour runs through the middle of pixels: one around a single row of pixels encloses nothing.
    """
    if not mask.size:  # a box without rows
        return None
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outline = max(contours, key=cv2.contourArea, default=None)
    return None if outline is None or cv2.contourArea(outline) == 0 else outline


def mean_over(image: BlendedImage, level: int) -> Mask:
    """(H, W) where the weighted mean of the members' codes is greater than a level."""
    total = np.zeros(image.size, np.int64)
    for member, weight in image.weights.items():
        total += weight * image.codes(member).astype(np.int64)
    over: Mask = total > level * sum(image.weights.values())
    return over


def at_least(name: str, value: int, least: int) -> None:
    """Raises ValueError where the value of an option is less than it can be."""
    if value < least:
        raise ValueError(f"option {name} is {value}: it must be at least {least}")
