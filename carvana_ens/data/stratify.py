"""Groups dealt to folds class by class, the classes being stretches of a histogram of mask area."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

BINS = 35


def area_classes(areas: Mapping[str, float], least: int) -> dict[str, int]:
    """The class of each group, from 0 for the smallest areas.

    As asanakoy (first place of the Carvana challenge, ``get_stratified_by_area_folds``): ``BINS`` bins of equal width
    from the least area to the greatest, merged from the left until each class has ``least`` groups; what is left over
    at the right end joins the last class. An area on the edge of two classes belongs to the lower one, as there.

    Args:
        areas: mask area of each group, in any one unit; at least one.
        least: groups of a class, where there are as many at all.
    """
    values = np.array(list(areas.values()))
    edges = np.linspace(values.min(), values.max(), BINS + 1)
    if not np.all(edges[:-1] < edges[1:]):  # all the same, up to rounding: no histogram, one class
        return dict.fromkeys(areas, 0)
    counts, _ = np.histogram(values, edges)
    tops: list[float] = []  # the upper edge of each class
    held = 0
    for count, top in zip(counts.tolist(), edges[1:].tolist(), strict=True):
        held += count
        if held >= least:
            tops.append(top)
            held = 0
    inner = tops[:-1]  # above the last but one lies the last class, with whatever is left over
    return {group: int(np.searchsorted(inner, area, side="left")) for group, area in areas.items()}


def dealt(areas: Mapping[str, float], folds: int, seed: int) -> dict[str, int]:
    """The fold of each group: class after class, in each in an order that the seed draws, they go to the folds in turn.

    So every fold gets as many groups of a class as any other, or one less, and the same holds of all groups: what
    scikit-learn's ``StratifiedKFold(folds, shuffle=True)`` promises, with which asanakoy made seven folds.
    """
    classes = area_classes(areas, folds)
    order = sorted(areas, key=lambda group: (classes[group], *drawn_key(group, seed)))
    return {group: rank % folds for rank, group in enumerate(order)}


def shuffled(groups: Sequence[str], seed: int) -> list[str]:
    """The groups in an order that depends on the seed alone, whatever the version of Python."""
    return sorted(groups, key=lambda group: drawn_key(group, seed))


def drawn_key(group: str, seed: int) -> tuple[bytes, str]:
    """What puts groups into a drawn order."""
    return hashlib.sha256(f"{seed}:{group}".encode()).digest(), group
