"""The picture of training: lines where their values say, dots, scales, and what is not there."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from carvana_ens.errors import UsageError
from carvana_ens.report.figures import COLOURS
from carvana_ens.report.training import Course, Trained, draw_training

EPOCHS = range(1, 11)


def course(fold=0, **more):
    points = {
        "loss": [(epoch, 0.5**epoch) for epoch in EPOCHS],
        "held_out_loss": [(epoch, 0.6**epoch) for epoch in EPOCHS],
        "dice": [(epoch, 1 - 0.7**epoch) for epoch in EPOCHS],
        "rate": [(epoch, 0.001) for epoch in EPOCHS],
        "best": (10, 1 - 0.7**10),
    }
    return Course(fold, **{**points, **more})


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The figure that matplotlib was told to write, its panels by title, and the picture."""
    kept = []
    plain = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *given, **more: [kept.append(figure), plain(figure, *given, **more)]
    )

    def draw(*members, name="history.png"):
        draw_training(members, tmp_path / name)
        with PIL.Image.open(tmp_path / name) as picture:
            return kept[-1], np.asarray(picture.convert("RGB"))

    return draw


def panels(figure, column=0):
    return {axes.get_title(loc="left").partition(" ")[0]: axes for axes in figure.subfigs[column].axes}


def ends(line, picture):
    """Pixels (x, y from the top) of the first and the last point of a line."""
    places = line.axes.transData.transform(np.column_stack(line.get_data()))
    return [(round(x), round(picture.shape[0] - y)) for x, y in places[[0, -1]]]


def near(picture, place, colour):
    x, y = place
    around = picture[y - 3 : y + 4, x - 3 : x + 4].astype(int)
    return (np.abs(around - 255 * np.array(to_rgb(colour))).max(axis=-1) < 40).any()


def test_lines_are_where_their_values_say(drawn):
    other = {name: [(1, 0.9), (2, 0.8)] for name in ("loss", "held_out_loss", "dice", "rate")}
    figure, picture = drawn(Trained("net", [course(0), course(3, **other, best=None)]))
    for axes in panels(figure).values():
        for line in axes.lines[:2]:
            drawn_ends = 2 if line.get_linestyle() == "-" else 1  # a dashed one may end in a gap
            assert all(near(picture, place, line.get_color()) for place in ends(line, picture)[:drawn_ends])
    loss = panels(figure)["loss"]
    assert [line.get_linestyle() for line in loss.lines] == ["--", "-", "--", "-"]
    assert [line.get_color() for line in loss.lines] == [COLOURS[0]] * 2 + [COLOURS[1]] * 2
    assert list(loss.lines[2].get_ydata()) == [0.9, 0.8]
    words = [text.get_text() for text in figure.subfigs[0].legends[0].get_texts()]
    assert words == ["fold 0", "fold 3", "training", "held-out", "highest Dice"]
    assert figure.subfigs[0].legends[0].get_title().get_text() == "net"


def straight(line):
    x, y = line.axes.transData.transform(np.column_stack(line.get_data())).T
    return np.abs(np.polyval(np.polyfit(x, y, 1), x) - y).max() < 1


def test_equal_factors_are_equal_lengths(drawn):
    figure, _ = drawn(Trained("net", [course()]))
    loss, dice, rate = panels(figure).values()
    assert straight(loss.lines[0])
    assert straight(dice.lines[0])  # what is missing to 1
    assert (loss.get_yscale(), rate.get_yscale()) == ("log", "linear")
    shown = [text.get_text() for text in dice.get_yticklabels()]
    assert shown == ["0.5", "0.8", "0.9", "0.95"]
    figure, _ = drawn(Trained("net", [course(loss=[(1, 1.0), (2, -1.0), (3, -3.0)])]))
    assert panels(figure)["loss"].get_yscale() == "linear"


@pytest.mark.parametrize("values", [(0.0, 0.0), (0.0, 1.0), (0.98, 0.9801), (1.0, 1.0), (0.1, 0.99999)])
def test_any_dice_has_ticks_and_lies_inside(drawn, values):
    figure, picture = drawn(Trained("net", [course(dice=list(enumerate(values, 1)), best=None)]))
    axes = panels(figure)["Dice"]
    low, high = axes.get_ylim()
    assert low <= min(values)
    assert high >= min(max(values), 1 - 1e-5)
    assert sum(low <= tick <= high for tick in axes.get_yticks()) >= 2
    assert near(picture, ends(axes.lines[0], picture)[0], COLOURS[0])


def test_best_single_and_missing_epochs(drawn):
    figure, picture = drawn(Trained("net", [course(dice=[(1, 0.9)], rate=[], best=(1, 0.9))]))
    dice, rate = (panels(figure)[name] for name in ("Dice", "learning"))
    assert dice.lines[0].get_marker() == "."
    assert near(picture, ends(dice.lines[1], picture)[0], COLOURS[0])
    assert [text.get_text() for text in rate.texts] == ["nothing measured"]


def test_stages_are_marked_before_their_first_epoch(drawn):
    figure, _ = drawn(Trained("net", [course()], [(6, "1280x1920")]), Trained("other", [course()]))
    for axes in panels(figure).values():
        assert set(axes.lines[-1].get_xdata()) == {5.5}
    assert [text.get_text() for text in panels(figure)["loss"].texts] == ["1280x1920"]
    assert len(panels(figure, 1)["loss"].texts) == 0


@pytest.mark.parametrize(("name", "format"), [("a.png", "PNG"), ("a.JPG", "JPEG")])
def test_forms(tmp_path, name, format):
    draw_training([Trained("net", [course()])], tmp_path / name)
    with PIL.Image.open(tmp_path / name) as picture:
        assert picture.format == format
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("members", [[], [Trained("net", [])], [Trained("net", [course(loss=[], held_out_loss=[])])]])
def test_nothing_to_draw(tmp_path, members):
    with pytest.raises(UsageError, match="train it for an epoch first"):
        draw_training(members, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
