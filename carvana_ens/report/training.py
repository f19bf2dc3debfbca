"""The picture of how members were trained: loss, Dice and learning rate by epoch, a column for each member."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carvana_ens.errors import UsageError
from carvana_ens.files import replacing
from carvana_ens.report.figures import COLOURS, INK, QUIET, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NINES_END = 1e-5
"""Beyond 1 less this everything is one on the scale of Dice."""
WIDTH, HEIGHT, SHARPNESS = 7.2, 7.8, 100
"""Inches of a column, and pixels an inch."""

Floats = NDArray[np.float64]
Points = Sequence[tuple[float, float]]
"""(epoch, value), in order of epochs."""


@dataclass(frozen=True)
class Course:
    """One fold. best: the epoch of the highest Dice, with it."""

    fold: int
    loss: Points
    held_out_loss: Points
    dice: Points
    rate: Points
    best: tuple[float, float] | None = None


@dataclass(frozen=True)
class Trained:
    """One member. stages: epochs before which something changed, with what stands there from then on."""

    member: str
    folds: Sequence[Course]
    stages: Sequence[tuple[int, str]] = ()


def draw_training(members: Sequence[Trained], path: Path) -> None:
    """Draws the members beside one another and writes them, as PNG or, where the name ends in ``.jpg``, as JPEG.

    Raises:
        UsageError: a member has not trained for an epoch.
        CarvanaEnsError: the file cannot be written.
    """
    if not members or not all(any(fold.loss or fold.held_out_loss for fold in one.folds) for one in members):
        raise UsageError("there is nothing to draw of a member: train it for an epoch first")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE), replacing(path) as temporary:
        figure = Figure(figsize=(WIDTH * len(members), HEIGHT), layout="constrained")
        for part, one in zip(figure.subfigures(1, len(members), squeeze=False)[0], members, strict=True):
            _column(part, one)
        figure.savefig(temporary, format="png" if path.suffix.lower() == ".png" else "jpg", dpi=SHARPNESS)


def _column(figure: Any, one: Trained) -> None:
    losses, dice, rate = figure.subplots(3, 1, sharex=True)
    for number, fold in enumerate(one.folds):
        colour = COLOURS[number % len(COLOURS)]
        _line(losses, fold.loss, color=colour, linestyle="--")
        _line(losses, fold.held_out_loss, color=colour)
        _line(dice, fold.dice, color=colour)
        _line(rate, fold.rate, color=colour)
        if fold.best is not None:
            dice.plot(*fold.best, "o", color=colour, markeredgecolor="white", markersize=8)
    _logarithmic(losses, [y for fold in one.folds for _, y in (*fold.loss, *fold.held_out_loss)])
    _logarithmic(rate, [y for fold in one.folds for _, y in fold.rate])
    _nines(dice, [y for fold in one.folds for _, y in fold.dice])
    for axes, title in ((losses, "loss"), (dice, "Dice on held-out photos, at network size"), (rate, "learning rate")):
        axes.set_title(title, loc="left", fontsize=10)
        axes.tick_params(labelbottom=True)
        if not any(len(line.get_xdata()) for line in axes.lines):
            axes.set_yticks([])
            axes.text(0.5, 0.5, "nothing measured", transform=axes.transAxes, ha="center")
        for epoch, _ in one.stages:
            axes.axvline(epoch - 0.5, color=QUIET, linestyle="--", linewidth=1)
    for epoch, name in one.stages:
        place = {"xycoords": losses.get_xaxis_transform(), "textcoords": "offset points"}
        losses.annotate(name, (epoch - 0.5, 1), (4, -10), **place)
    rate.set_xlabel("epoch")
    rate.xaxis.get_major_locator().set_params(integer=True)
    _legend(figure, one)


def _line(axes: Axes, points: Points, **look: Any) -> None:
    """A line, or where there is one epoch a dot."""
    axes.plot([x for x, _ in points], [y for _, y in points], marker="." if len(points) == 1 else "", **look)


def _legend(figure: Any, one: Trained) -> None:
    from matplotlib.lines import Line2D

    looks: list[tuple[str, dict[str, Any]]] = [
        (f"fold {fold.fold}", {"color": COLOURS[number % len(COLOURS)]}) for number, fold in enumerate(one.folds)
    ]
    looks += [
        ("training", {"color": INK, "linestyle": "--"}),
        ("held-out", {"color": INK}),
        ("highest Dice", {"color": INK, "linestyle": "", "marker": "o"}),
    ]
    handles = [Line2D([], [], label=label, **look) for label, look in looks]
    figure.legend(handles=handles, loc="outside upper left", ncols=5, frameon=False, title=one.member, alignment="left")


def _logarithmic(axes: Axes, values: Sequence[float]) -> None:
    """Equal factors, equal lengths; not where a value is not above 0, or all lie within a factor of 3."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    if values and min(values) > 0 and max(values) >= 3 * min(values):
        axes.set_yscale("log")
        few = max(values) > 3000 * min(values)
        axes.yaxis.set_major_locator(LogLocator(subs=(1,) if few else (1, 2, 5), numticks=12))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _nines(axes: Axes, values: Sequence[float]) -> None:
    """For parts of 1 that come close to it: the part that is missing, logarithmic. From 0.9 to 0.99 is as far as from
    0.99 to 0.999; where that would have no two ticks, as any other.
    """
    if not values or min(values) == max(values):
        return
    low, high = _missing(np.array([min(values), max(values)]))
    room = 0.06 * (high - low)
    steps = (10, 5, 2) if high - low < 3.5 else (10,)
    ticks = [round(1 - step * 10.0**-decade, 6) for decade in range(1, 7) for step in steps]
    shown = [tick for tick in ticks if low - room <= -np.log10(1 - tick) <= high + room]
    if len(shown) > 1:
        axes.set_yscale("function", functions=(_missing, _present))
        axes.set_ylim(float(_present(low - room)), float(_present(high + room)))
        axes.set_yticks(shown, [f"{tick:g}" for tick in shown])


def _missing(part: Floats) -> Floats:
    nines: Floats = -np.log10(np.maximum(1 - part, NINES_END))
    return nines


def _present(nines: Floats) -> Floats:
    return 1 - 10.0**-nines
