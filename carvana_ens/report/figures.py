"""The figures of a report, as SVG text that stands in the page itself."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from carvana_ens.report.content import Candidate, Curve, Estimate, MemberRow, Report, TrainingFold

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#5a5a5a")
"""Okabe and Ito's palette (jfly.uni-koeln.de/color), which colour-blind readers can tell apart; gray for black."""
INK, QUIET, WIDTH, HALF = "#3c4048", "#8a8f98", 9.6, 4.9
STYLE: Any = {
    "axes.edgecolor": "#c4c8ce",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "grid.color": "#e6e8eb",
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
    "svg.hashsalt": "carvana-ens",
    "xtick.color": "#5a5f68",
    "ytick.color": "#5a5f68",
}


def threshold_curves(report: Report) -> str:
    """Dice by threshold, one line a blend; the chosen threshold is marked."""
    with _drawn(3.4) as (figure, svg):
        axes = figure.subplots()
        for number, (name, curve) in enumerate(report.curves.items()):
            axes.plot(*_columns(curve), label=name, color=COLOURS[number % len(COLOURS)], zorder=9 - number)
        best = max((y for curve in report.curves.values() for _, y in curve), default=1.0)
        axes.set(xlabel="threshold", ylabel="mean Dice, out-of-fold", xlim=(0, 1))
        axes.set_ylim(max(0.0, best - 4 * max(1 - best, 0.005)), min(1.0, best + 0.4 * max(1 - best, 0.005)))
        axes.axvline(report.threshold, color=QUIET, linestyle=":", linewidth=1)
        axes.legend(frameon=False, loc="lower center", ncols=2)
    return svg.getvalue()


def shares(members: Sequence[MemberRow]) -> str:
    """Each member's share of the blend; lines reach from the least to the greatest that a fold's search gave it."""
    with _drawn(0.8 + 0.26 * len(members), HALF) as (figure, svg):
        axes = _rows(figure, [member.name for member in members])
        axes.barh(range(len(members)), [100 * member.share for member in members], color=COLOURS[0], height=0.6)
        for row, member in enumerate(members):
            if member.fold_shares:
                ends = [100 * end for end in (min(member.fold_shares), max(member.fold_shares))]
                axes.plot(ends, [row, row], color=COLOURS[1], marker="|", linewidth=2)
        axes.set_xlabel("share of the weights, %")
        axes.set_xlim(left=0)
    return svg.getvalue()


def gains(rows: Sequence[tuple[str, Estimate]], label: str) -> str:
    """Gains beside 0, with their intervals."""
    with _drawn(0.8 + 0.26 * len(rows), HALF) as (figure, svg):
        axes = _rows(figure, [name for name, _ in rows])
        for row, (_, gain) in enumerate(rows):
            if gain.low is not None and gain.high is not None:
                axes.plot([gain.low, gain.high], [row, row], color=COLOURS[0], linewidth=2, marker="|")
            axes.plot([gain.mean], [row], "o", color=COLOURS[0], markersize=5)
        axes.axvline(0, color=QUIET, linewidth=1)
        axes.set_xlabel(label)
    return svg.getvalue()


def costs(ensembles: Sequence[Candidate]) -> str:
    """Honest Dice against seconds a photo; the front, which nothing beats in both, is joined."""
    with _drawn(3.6, HALF) as (figure, svg):
        axes = figure.subplots()
        front = sorted((one for one in ensembles if one.on_front), key=lambda one: one.seconds)
        rest = [one for one in ensembles if not one.on_front]
        axes.plot([one.seconds for one in rest], [one.dice for one in rest], "o", color="#c4c8ce", markersize=4)
        axes.plot([one.seconds for one in front], [one.dice for one in front], "o-", color=COLOURS[0], markersize=6)
        for one in front:
            words = " + ".join(one.members) if len(one.members) < 4 else f"{len(one.members)} members"
            axes.annotate(words, (one.seconds, one.dice), (5, -11), textcoords="offset points", fontsize=8)
        axes.set(xlabel="seconds a photo", ylabel="honest Dice")
        axes.set_xlim(left=0)
        axes.margins(x=0.2)
        # the front in the upper half: single members far below it would press it into a line
        least, best = min(one.dice for one in front), max(one.dice for one in ensembles)
        room = max(best - least, 1e-4)
        axes.set_ylim(least - room, best + room / 4)
    return svg.getvalue()


def agreement(names: Sequence[str], matrix: Sequence[Sequence[float]]) -> str:
    """Share of errors that two members have in common, as a table of colours."""
    side = min(HALF, 1.6 + 0.42 * len(names))
    with _drawn(side, side) as (figure, svg):
        axes = figure.subplots()
        axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
        axes.grid(visible=False)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), names)
        for spine in axes.spines.values():
            spine.set_visible(False)
        for row, values in enumerate(matrix):
            for column, value in enumerate(values):
                if row != column:
                    colour = "white" if value > 0.6 else INK
                    axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
    return svg.getvalue()


def history(folds: Sequence[TrainingFold]) -> str:
    """Loss and Dice by epoch of one member; dashed: on the photos that were trained on."""
    with _drawn(2.6) as (figure, svg):
        left, right = figure.subplots(1, 2)
        for number, fold in enumerate(folds):
            colour = COLOURS[number % len(COLOURS)]
            left.plot(*_columns(fold.loss), color=colour, linestyle="--", linewidth=1)
            left.plot(*_columns(fold.valid_loss), color=colour)
            right.plot(*_columns(fold.dice), color=colour, label=f"fold {fold.fold}", marker=".", markersize=4)
        left.set(xlabel="epoch", title="loss (dashed: training photos)")
        right.set(xlabel="epoch", title="Dice on held-out photos, at network size")
        for axes in (left, right):
            axes.title.set_fontsize(9)
        if any(fold.dice for fold in folds):
            right.legend(frameon=False)
    return svg.getvalue()


@contextmanager
def _drawn(height: float, width: float = WIDTH) -> Iterator[tuple[Figure, io.StringIO]]:
    """A figure of that many inches to draw into, and the text that holds it afterwards."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    text = io.StringIO()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, text
        # without a date, so that the same numbers give the same page
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    drawn = text.getvalue()
    text.seek(0)
    text.truncate()
    text.write(drawn[drawn.index("<svg") :])  # without the XML head, which HTML does not take


def _rows(figure: Figure, names: Sequence[str]) -> Axes:
    """Axes with a line for each name, the first at the top."""
    axes = figure.subplots()
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    return axes


def _columns(curve: Curve) -> tuple[list[float], list[float]]:
    return [x for x, _ in curve], [y for _, y in curve]
