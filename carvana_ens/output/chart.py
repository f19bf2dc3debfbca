"""Line charts of numbers by epoch, drawn with Pillow: panels one below another, beside them those of other members."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as Pictures
from PIL import ImageDraw

from carvana_ens.errors import UsageError
from carvana_ens.output.drawing import INK, PAPER, caption_font, fitted, save
from carvana_ens.output.scales import Scale, linear, round_steps

PANEL_WIDTH, PANEL_HEIGHT = 620, 210
LEFT, RIGHT, TOP, BETWEEN, BOTTOM = 76, 24, 38, 34, 52
FONT, SMALL, LEGEND_LINE = 16, 13, 22
KEY = 26
"""Length of the piece of line before its name."""
GRID = (226, 226, 226)
FRAME = (150, 150, 150)
MARK = (120, 120, 120)
SHARP = 2
"""Everything is drawn so many times as large, and reduced: smooth lines."""
COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0), (90, 90, 90))
"""Okabe and Ito's palette (jfly.uni-koeln.de/color), which colour-blind readers can tell apart; gray for black."""

Colour = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """points: (epoch, value), in order of epochs. best: the point that gets a dot."""

    colour: Colour
    points: Sequence[Point]
    dashed: bool = False
    best: Point | None = None


@dataclass(frozen=True)
class Panel:
    """title: what is measured, above it. scale: of the values."""

    title: str
    lines: Sequence[Line]
    scale: Scale = linear


@dataclass(frozen=True)
class Legend:
    """What lines of a look are, below their title."""

    text: str
    colour: Colour
    dashed: bool = False
    dot: bool = False


@dataclass(frozen=True)
class Column:
    """panels: of one member, top to bottom, over the same epochs. marks: epochs before which something changed, with
    what stands there from then on.
    """

    title: str
    panels: Sequence[Panel]
    legend: Sequence[Legend]
    marks: Sequence[tuple[int, str]] = ()


def chart(columns: Sequence[Column], path: Path) -> None:
    """Draws the columns beside one another and writes them, ``.png`` or ``.jpg``.

    Raises:
        UsageError: no column, a column without a point, or a name of another suffix.
        CarvanaEnsError: the file cannot be written.
    """
    if not columns or not all(any(line.points for panel in c.panels for line in panel.lines) for c in columns):
        raise UsageError("a chart needs a point in every column: train for an epoch first")
    rows = max(len(column.panels) for column in columns)
    top = TOP + LEGEND_LINE * max(len(_legend_lines(column.legend)) for column in columns)
    width = len(columns) * (LEFT + PANEL_WIDTH + RIGHT)
    height = top + rows * (PANEL_HEIGHT + BETWEEN) + BOTTOM
    sheet = Pictures.new("RGB", (SHARP * width, SHARP * height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, column in enumerate(columns):
        _Painter(draw, number * (LEFT + PANEL_WIDTH + RIGHT)).column(column, top)
    save(sheet.resize((width, height), Pictures.Resampling.BOX), path)


class _Painter:
    """Draws one column; places are those of the finished picture."""

    def __init__(self, draw: ImageDraw.ImageDraw, left: int) -> None:
        self.draw, self.left = draw, left + LEFT

    def column(self, column: Column, top: float) -> None:
        epochs = [x for panel in column.panels for line in panel.lines for x, _ in line.points]
        first, last = min(epochs), max(epochs)
        if first == last:
            first, last = first - 1, last + 1
        pad = (last - first) * 0.015
        self.range = (first - pad, last + pad)
        self.ticks = [x for x in round_steps(first, last, 10) if x == int(x) and x >= min(epochs)]
        self.text((self.left, 10), fitted(column.title, SHARP * PANEL_WIDTH, SHARP * FONT), FONT)
        self.legend(column.legend)
        top += BETWEEN
        for number, panel in enumerate(column.panels):
            self.panel(panel, top, column.marks, named=number == 0)
            top += PANEL_HEIGHT + BETWEEN
        for x in self.ticks:
            self.text((self.x(x), top - BETWEEN + 6), f"{x:.0f}", SMALL, "ma")
        self.text((self.left + PANEL_WIDTH / 2, top - BETWEEN + 24), "epoch", SMALL, "ma")

    def legend(self, entries: Sequence[Legend]) -> None:
        for number, line in enumerate(_legend_lines(entries)):
            y = TOP + LEGEND_LINE * number + LEGEND_LINE / 3
            for x, entry in line:
                if entry.dot:
                    self.dot((self.left + x + KEY / 2, y), entry.colour)
                else:
                    self.polyline([(self.left + x, y), (self.left + x + KEY, y)], entry.colour, entry.dashed)
                self.text((self.left + x + KEY + 6, y), entry.text, SMALL, "lm")

    def panel(self, panel: Panel, top: float, marks: Sequence[tuple[int, str]], named: bool) -> None:
        values = [y for line in panel.lines for _, y in line.points]
        bottom = top + PANEL_HEIGHT
        self.text((self.left, top - 5), panel.title, FONT, "ld")
        if not values:
            self.text((self.left + PANEL_WIDTH / 2, top + PANEL_HEIGHT / 2), "nothing measured", SMALL, "mm")
        else:
            axis = panel.scale(min(values), max(values))
            span = axis.greatest - axis.least

            def y(value: float) -> float:
                return bottom - (axis.place(value) - axis.least) / span * PANEL_HEIGHT

            for value, label in axis.ticks:
                self.polyline([(self.left, y(value)), (self.left + PANEL_WIDTH, y(value))], GRID, False, 1)
                self.text((self.left - 8, y(value)), label, SMALL, "rm")
        for x in self.ticks:
            self.polyline([(self.x(x), top), (self.x(x), bottom)], GRID, False, 1)
        for epoch, name in marks:
            self.polyline([(self.x(epoch - 0.5), top), (self.x(epoch - 0.5), bottom)], MARK, True, 1)
            if named:
                self.text((self.x(epoch - 0.5) + 4, top - 5), name, SMALL, "ld")
        for line in panel.lines:
            self.polyline([(self.x(x), y(value)) for x, value in line.points], line.colour, line.dashed)
            if len(line.points) == 1:
                self.dot((self.x(line.points[0][0]), y(line.points[0][1])), line.colour, 3)
        for line in panel.lines:
            if line.best is not None:
                self.dot((self.x(line.best[0]), y(line.best[1])), line.colour)
        corners = (SHARP * self.left, SHARP * top, SHARP * (self.left + PANEL_WIDTH), SHARP * bottom)
        self.draw.rectangle(corners, outline=FRAME, width=SHARP)

    def x(self, epoch: float) -> float:
        least, greatest = self.range
        return self.left + (epoch - least) / (greatest - least) * PANEL_WIDTH

    def text(self, place: Point, text: str, size: int, anchor: str = "la") -> None:
        self.draw.text(
            (SHARP * place[0], SHARP * place[1]), text, fill=INK, font=caption_font(SHARP * size), anchor=anchor
        )

    def dot(self, place: Point, colour: Colour, radius: float = 5) -> None:
        box = [SHARP * (place[i % 2] + radius * sign) for i, sign in enumerate((-1, -1, 1, 1))]
        self.draw.ellipse(box, fill=colour, outline=PAPER, width=SHARP)

    def polyline(self, points: Sequence[Point], colour: Colour, dashed: bool, width: float = 1.8) -> None:
        scaled = [(SHARP * x, SHARP * y) for x, y in points]
        if not dashed:
            self.draw.line(scaled, fill=colour, width=round(SHARP * width), joint="curve")
            return
        for dash in _dashes(scaled, SHARP * 6.0, SHARP * 4.0):
            self.draw.line(dash, fill=colour, width=round(SHARP * width))


def _legend_lines(entries: Sequence[Legend]) -> list[list[tuple[float, Legend]]]:
    """Entries with how far right they begin, in lines as wide as a panel."""
    lines: list[list[tuple[float, Legend]]] = []
    x = math.inf
    for entry in entries:
        width = KEY + 6 + caption_font(SHARP * SMALL).getlength(entry.text) / SHARP
        if x + width > PANEL_WIDTH:
            lines.append([])
            x = 0.0
        lines[-1].append((x, entry))
        x += width + 20
    return lines


def _dashes(points: Sequence[Point], on: float, off: float) -> list[list[Point]]:
    """The parts of a line that are drawn: ``on`` pixels of its length, and none of the next ``off``."""
    parts: list[list[Point]] = []
    walked = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        length = math.hypot(x1 - x0, y1 - y0)
        number = math.floor(walked / (on + off))
        while length and number * (on + off) < walked + length:
            start, end = number * (on + off) - walked, number * (on + off) + on - walked
            shares = [min(max(s / length, 0.0), 1.0) for s in (start, end)]
            if shares[0] < shares[1]:
                parts.append([(x0 + s * (x1 - x0), y0 + s * (y1 - y0)) for s in shares])
            number += 1
        walked += length
    return parts
