"""Charts: lines where their values say, dashes, dots, and what cannot be drawn."""

from __future__ import annotations

import math

import numpy as np
import PIL.Image
import pytest

from carvana_ens.errors import UsageError
from carvana_ens.output import chart as module
from carvana_ens.output.chart import COLOURS, Column, Legend, Line, Panel, chart
from carvana_ens.output.scales import linear, logarithmic

BLUE, ORANGE = COLOURS[:2]


def drawn(path, *columns):
    chart(columns, path)
    with PIL.Image.open(path) as picture:
        return np.asarray(picture).astype(int)


def pixels(picture, colour):
    """Rows and columns of the pixels of nearly this colour."""
    return np.nonzero((np.abs(picture - np.array(colour)) < 12).all(axis=-1))


def column(*lines, legend=(), marks=(), scale=linear):
    return Column("net", [Panel("loss", lines, scale)], legend, marks)


TOP = module.TOP + module.BETWEEN
"""First row of a panel below no legend."""
BOTTOM = TOP + module.PANEL_HEIGHT


def test_a_line_runs_from_its_first_to_its_last_value(tmp_path):
    picture = drawn(tmp_path / "c.png", column(Line(BLUE, [(1, 0.0), (11, 1.0)])))
    y, x = pixels(picture, BLUE)
    pad = 0.15 / 10.3 * module.PANEL_WIDTH
    assert x.min() == pytest.approx(module.LEFT + pad, abs=2)
    assert x.max() == pytest.approx(module.LEFT + module.PANEL_WIDTH - pad, abs=2)
    room = 0.06 / 1.12 * module.PANEL_HEIGHT
    assert y.min() == pytest.approx(TOP + room, abs=3)
    assert y.max() == pytest.approx(BOTTOM - room, abs=3)
    assert y[x.argmin()] > y[x.argmax()]  # upward
    fitted = np.polyfit(x, y, 1)
    assert np.abs(np.polyval(fitted, x) - y).max() < 3  # straight


def test_a_logarithmic_line_of_equal_factors_is_straight(tmp_path):
    points = [(epoch, 0.5**epoch) for epoch in range(10)]
    for scale, straight in ((logarithmic, True), (linear, False)):
        y, x = pixels(drawn(tmp_path / "c.png", column(Line(BLUE, points), scale=scale)), BLUE)
        assert (np.abs(np.polyval(np.polyfit(x, y, 1), x) - y).max() < 3) == straight


def test_a_dashed_line_leaves_two_fifths_out(tmp_path):
    whole, dashed = (
        len(pixels(drawn(tmp_path / "c.png", column(Line(BLUE, [(1, 1.0), (2, 1.0)], dash), scale=linear)), BLUE)[0])
        for dash in (False, True)
    )
    assert dashed / whole == pytest.approx(0.6, abs=0.05)


def test_dashes_go_around_corners():
    points = [(0.0, 0.0), (3.0, 0.0), (3.0, 4.0), (3.0, 4.0), (10.0, 4.0)]
    dashes = module._dashes(points, 2.0, 1.5)
    lengths = [math.dist(a, b) for a, b in dashes]
    assert sum(lengths) == pytest.approx(8.0)  # on 0-2, 3.5-5.5, 7-9, 10.5-12.5 of 14, and 14
    assert dashes[0] == [(0.0, 0.0), (2.0, 0.0)]
    assert dashes[1] == [(3.0, 0.5), (3.0, 2.5)]
    assert dashes[2] == [(3.0, 4.0), (5.0, 4.0)]


def test_a_single_epoch_is_a_dot(tmp_path):
    picture = drawn(tmp_path / "c.png", column(Line(BLUE, [(1, 0.3)]), Line(ORANGE, [])))
    y, x = pixels(picture, BLUE)
    assert x.mean() == pytest.approx(module.LEFT + module.PANEL_WIDTH / 2, abs=1)
    assert y.mean() == pytest.approx((TOP + BOTTOM) / 2, abs=1)
    assert np.ptp(x) <= 6
    assert not len(pixels(picture, ORANGE)[0])


def test_the_best_point_is_a_larger_dot(tmp_path):
    points = [(1, 0.0), (2, 1.0), (3, 0.0)]
    without = pixels(drawn(tmp_path / "a.png", column(Line(BLUE, points))), BLUE)
    marked = pixels(drawn(tmp_path / "b.png", column(Line(BLUE, points, best=points[1]))), BLUE)
    middle = module.LEFT + module.PANEL_WIDTH / 2
    assert (np.abs(marked[1] - middle) < 6).sum() > (np.abs(without[1] - middle) < 6).sum() + 20


def test_columns_and_panels_have_places_of_their_own(tmp_path):
    lines = [Line(BLUE, [(1, 1.0), (2, 2.0)])]
    one = drawn(tmp_path / "one.png", Column("a", [Panel("loss", lines)], []))
    two = drawn(tmp_path / "two.png", Column("a", [Panel("loss", lines)] * 2, []), Column("b", [Panel("x", [])] * 1 + [
        Panel("loss", lines)], []))  # fmt: skip
    assert two.shape[1] == 2 * one.shape[1]
    assert two.shape[0] == one.shape[0] + module.PANEL_HEIGHT + module.BETWEEN
    left = pixels(two[:, : one.shape[1]], BLUE)[0]
    right = pixels(two[:, one.shape[1] :], BLUE)[0]
    assert len(left) == 2 * len(right) == 2 * len(pixels(one, BLUE)[0])


def test_a_mark_stands_before_its_epoch(tmp_path):
    lines = [Line(BLUE, [(epoch, 1.0) for epoch in range(1, 12)])]
    picture = drawn(tmp_path / "c.png", column(*lines, marks=[(5, "512x768")]))
    dark = (picture[TOP + 4 : BOTTOM - 4].mean(axis=-1) < 215).sum(axis=0)
    place = module.LEFT + (4.5 - 0.85) / 10.3 * module.PANEL_WIDTH
    inner = dark[module.LEFT + 4 : module.LEFT + module.PANEL_WIDTH - 4]
    assert inner.argmax() + module.LEFT + 4 == pytest.approx(place, abs=1.5)
    assert inner.max() == pytest.approx(0.6 * module.PANEL_HEIGHT, rel=0.1)  # dashed


def test_a_long_legend_is_wrapped(tmp_path):
    lines = [Line(BLUE, [(1, 1.0), (2, 2.0)])]
    short = [Legend("fold 0", BLUE)]
    long = [Legend(f"fold {number}", COLOURS[number % 7]) for number in range(20)]
    places = module._legend_lines(long)
    assert [entry for line in places for _, entry in line] == long
    assert all(x + module.KEY < module.PANEL_WIDTH for line in places for x, _ in line)
    few, many = (drawn(tmp_path / "c.png", column(*lines, legend=legend)) for legend in (short, long))
    assert many.shape[0] == few.shape[0] + (len(places) - 1) * module.LEGEND_LINE
    np.testing.assert_array_equal(
        many[-module.BOTTOM - module.PANEL_HEIGHT :], few[-module.BOTTOM - module.PANEL_HEIGHT :]
    )


def test_refused(tmp_path):
    fine = column(Line(BLUE, [(1, 1.0)]))
    for columns in ([], [column()], [fine, column(Line(BLUE, []))]):
        with pytest.raises(UsageError, match="train for an epoch first"):
            chart(columns, tmp_path / "c.png")
    with pytest.raises(UsageError, match=r"neither \.png nor \.jpg"):
        chart([fine], tmp_path / "c.gif")
    assert not list(tmp_path.iterdir())
