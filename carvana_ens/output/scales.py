"""The scales of a chart: where a value stands between two ends, and which values are written beside the axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MARGIN = 0.06
"""Room above and below the values, as a part of their span."""
NINES_END = 1e-5
DECADES = 3.5
"""Above so many, powers of ten alone are written."""


@dataclass(frozen=True)
class Axis:
    """place: of a value, rising, between ``least`` and ``greatest``. ticks: values and how they are written."""

    place: Callable[[float], float]
    least: float
    greatest: float
    ticks: Sequence[tuple[float, str]]


Scale = Callable[[float, float], Axis]
"""An axis for values from the first to the second."""


def linear(least: float, greatest: float) -> Axis:
    """Equal differences, equal lengths."""
    bottom, top = _ends(least, greatest)
    return Axis(float, bottom, top, [(value, f"{value:g}") for value in round_steps(bottom, top, 6)])


def logarithmic(least: float, greatest: float) -> Axis:
    """Equal factors, equal lengths; as ``linear`` where a value is not above 0, or within a factor of 3."""
    if least <= 0 or greatest < 3 * least:
        return linear(least, greatest)
    decades = range(math.floor(math.log10(least)), math.ceil(math.log10(greatest)) + 1)
    return _axis(math.log10, least, greatest, [[step * 10.0**decade for step in (1, 2, 5)] for decade in decades])


def nines(least: float, greatest: float) -> Axis:
    """For parts of 1 that come close to it (Dice): the part that is missing, logarithmic. From 0.9 to 0.99 is as far
    as from 0.99 to 0.999; beyond 1 - 1e-5 everything is one.
    """
    return _axis(
        _nines, least, greatest, [[round(1 - step * 10.0**-decade, 6) for step in (10, 5, 2)] for decade in range(1, 7)]
    )


def _nines(value: float) -> float:
    return -math.log10(max(1 - value, NINES_END))


def _axis(place: Callable[[float], float], least: float, greatest: float, decades: Sequence[Sequence[float]]) -> Axis:
    """decades: values to write, of each decade first the one that is written even where there are many."""
    bottom, top = _ends(place(least), place(greatest))
    values = [value for decade in decades for value in (decade[:1] if top - bottom > DECADES else decade)]
    ticks = [(value, f"{value:g}") for value in values if bottom <= place(value) <= top]
    if len(ticks) < 2:  # too narrow for round steps: those of the plain scale, in their places
        ticks = [(value, f"{value:g}") for value in round_steps(least, greatest, 5)]
        ticks = [(value, text) for value, text in ticks if bottom <= place(value) <= top]
    return Axis(place, bottom, top, ticks)


def _ends(least: float, greatest: float) -> tuple[float, float]:
    room = MARGIN * (greatest - least) or abs(greatest) * MARGIN or 1.0
    return least - room, greatest + room


def round_steps(least: float, greatest: float, most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from ``least`` to ``greatest``, at most ``most`` + 1."""
    if least == greatest:
        return [least]
    rough = (greatest - least) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    digits = max(0, -math.floor(math.log10(step))) + 1
    first = math.ceil(least / step - 1e-9)
    return [round(number * step, digits) for number in range(first, math.floor(greatest / step + 1e-9) + 1)]
