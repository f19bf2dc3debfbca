"""The parts of the pictures, against slow or independent answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pictures
from PIL import ImageFont

from carvana_ens.errors import CarvanaEnsError, UsageError
from carvana_ens.output import drawing
from carvana_ens.output.drawing import Cell
from carvana_ens.types import Mask, Size


def disc(height: int, width: int, radius: float) -> Mask:
    rows, columns = np.mgrid[:height, :width]
    return (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < radius**2


def slow_outline(mask: Mask) -> Mask:
    """Object pixels with a neighbour that is background or outside the picture, one by one."""
    line = np.zeros_like(mask)
    for row, column in zip(*np.nonzero(mask), strict=True):
        for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            y, x = row + down, column + right
            inside = 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1]
            line[row, column] |= not inside or not mask[y, x]
    return line


@pytest.mark.parametrize(
    "mask",
    [
        disc(30, 41, 11),
        np.zeros((5, 6), dtype=np.bool_),
        np.ones((5, 6), dtype=np.bool_),
        np.ones((1, 9), dtype=np.bool_),
        np.ones((9, 1), dtype=np.bool_),
        np.random.default_rng(0).random((20, 30)) < 0.6,
    ],
)
def test_the_outline_at_the_same_size(mask: Mask) -> None:
    assert np.array_equal(drawing.outline(mask, Size(*mask.shape)), slow_outline(mask))


def test_a_reduced_outline_marks_exactly_the_cells_that_hold_one() -> None:
    mask = disc(96, 144, 37)
    held = slow_outline(mask).reshape(24, 4, 36, 4).any(axis=(1, 3))
    assert np.array_equal(drawing.outline(mask, Size(24, 36)), held)


def test_one_pixel_survives_any_reduction() -> None:
    mask = np.zeros((1280, 1918), dtype=np.bool_)
    mask[1279, 1917] = True
    line = drawing.outline(mask, Size(32, 48))
    assert line.sum() == 1
    assert line[31, 47]


def test_an_enlarged_outline_follows_the_enlarged_mask() -> None:
    mask = disc(8, 9, 3)
    enlarged = mask.repeat(5, axis=0).repeat(5, axis=1)
    assert np.array_equal(drawing.outline(mask, Size(40, 45)), slow_outline(enlarged))


def test_grown_adds_the_four_neighbours() -> None:
    mask = np.zeros((5, 5), dtype=np.bool_)
    mask[2, 2] = mask[0, 0] = True
    expected = [[1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]
    assert drawing.grown(mask).astype(int).tolist() == expected


@pytest.mark.parametrize("colour", [(255, 255, 255), (200, 0, 0), (0, 0, 0), (0, 200, 60)])
def test_the_drawn_outline_lies_on_the_boundary_and_shows_on_any_colour(colour: tuple[int, int, int]) -> None:
    mask = disc(120, 160, 41)
    photo = np.zeros((120, 160, 3), dtype=np.uint8)
    photo[:] = colour
    drawn = drawing.with_outline(photo, mask)
    boundary = slow_outline(mask)
    near = boundary
    for _ in range(3):
        near = drawing.grown(near)
    changed = (drawn != photo).any(axis=-1)
    assert not (changed & ~near).any()
    assert changed[boundary].all()
    # On the boundary itself the line has its own colour: as far from the photo as a viewer needs.
    distance = np.abs(drawn[boundary].astype(int) - drawing.OUTLINE).sum(axis=-1)
    assert distance.mean() < 40
    contrast = np.abs(drawn.astype(int) - photo.astype(int)).sum(axis=-1)[near].max()
    assert contrast > 200


def test_no_mask_draws_nothing() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    mask = np.zeros((80, 100), dtype=np.bool_)
    assert np.array_equal(drawing.with_outline(photo, mask), photo)
    assert np.array_equal(drawing.edged(photo, mask), photo)


def test_jet_at_its_corners() -> None:
    values = np.array([[0, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8, 1]], dtype=np.float32)
    expected = [
        (0, 0, 128),
        (0, 0, 255),
        (0, 128, 255),
        (0, 255, 255),
        (128, 255, 128),
        (255, 255, 0),
        (255, 128, 0),
        (255, 0, 0),
        (128, 0, 0),
    ]
    assert [tuple(colour) for colour in drawing.jet(values)[0].tolist()] == expected


def test_mixed_is_a_weighted_mean() -> None:
    photo = np.full((1, 1, 3), 200, dtype=np.uint8)
    colours = np.array([[[0, 100, 255]]], dtype=np.uint8)
    assert drawing.mixed(photo, colours, 0.6).tolist() == [[[80, 140, 233]]]


def test_a_reduced_map_is_the_mean_of_what_it_covers() -> None:
    values = np.random.default_rng(3).random((32, 48), dtype=np.float32)
    means = values.reshape(8, 4, 12, 4).mean(axis=(1, 3))
    assert np.allclose(drawing.scaled_map(values, Size(8, 12)), means, atol=1e-6)


def test_captions_fit_and_keep_both_ends() -> None:
    font = ImageFont.load_default(14)
    long = "refinenet-v4-1280x1280-with-flips Dice 0.9970"
    for width in (40, 80, 150, 250):
        short = drawing.fitted(long, width, 14)
        assert font.getlength(short) <= width
        assert "…" in short
    assert drawing.fitted(long, 150, 14).startswith("refine")
    assert drawing.fitted(long, 150, 14).endswith("0.9970")
    assert drawing.fitted("short", 300, 14) == "short"
    assert drawing.fitted("short", 1, 14) == ""


def test_the_caption_font_scales_and_has_the_ellipsis() -> None:
    assert isinstance(ImageFont.load_default(14), ImageFont.FreeTypeFont)
    assert drawing.fitted("a" * 40, 100, 10).count("a") > drawing.fitted("a" * 40, 100, 20).count("a")
    font = ImageFont.load_default(20)
    assert bytes(font.getmask("…")) != bytes(font.getmask("\ue000"))


def test_cells_stand_in_columns_and_lines() -> None:
    def cell(height: int, width: int, shade: int, caption: str = "") -> Cell:
        return Cell(caption, np.full((height, width, 3), shade, dtype=np.uint8))

    sheet = np.asarray(drawing.laid_out([[cell(10, 20, 1), None, cell(5, 8, 2)], [None, cell(4, 30, 3)]], 12))
    gap = drawing.GAP
    assert sheet.shape == (3 * gap + 10 + 4, 4 * gap + 20 + 30 + 8, 3)
    expected = np.full(sheet.shape, 255, dtype=np.uint8)
    expected[gap : gap + 10, gap : gap + 20] = 1
    expected[gap : gap + 5, 3 * gap + 50 : 3 * gap + 58] = 2
    expected[2 * gap + 10 : 2 * gap + 14, 2 * gap + 20 : 2 * gap + 50] = 3
    assert np.array_equal(sheet, expected)


def test_a_caption_stands_above_its_cell_and_not_in_it() -> None:
    cell = Cell("caption", np.full((10, 90, 3), 77, dtype=np.uint8))
    sheet = np.asarray(drawing.laid_out([[cell]], 12))
    below = sheet[-drawing.GAP - 10 : -drawing.GAP, drawing.GAP : -drawing.GAP]
    assert (below == 77).all()
    assert (sheet[: -drawing.GAP - 10] < 100).any()


def test_files_are_what_their_suffix_says(tmp_path: Path) -> None:
    picture = Pictures.new("RGB", (30, 20), (10, 200, 30))
    for name, kind in (("a.png", "PNG"), ("a.jpg", "JPEG")):
        drawing.save(picture, tmp_path / name)
        with Pictures.open(tmp_path / name) as opened:
            assert opened.format == kind
            assert opened.size == (30, 20)
    with pytest.raises(UsageError, match=r"neither \.png nor \.jpg"):
        drawing.save(picture, tmp_path / "a.gif")
    with pytest.raises(UsageError, match=r"65501x1, too large for a \.jpg"):
        drawing.save(Pictures.new("RGB", (1, 65_501)), tmp_path / "b.jpg")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.jpg", "a.png"]


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(CarvanaEnsError, match="cannot be written"):
        drawing.save(Pictures.new("RGB", (3, 2)), tmp_path / "a.png")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]
