"""Whole pictures: where the cells stand, what they hold, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pictures

from carvana_ens.errors import DataError, UsageError
from carvana_ens.output import drawing, pictures
from carvana_ens.output.pictures import PictureRow, comparison, mosaic
from carvana_ens.types import Image, Mask, ProbabilityMap, Size

GAP = drawing.GAP


def photo_of(height: int, width: int, seed: int = 0) -> Image:
    """A smooth photo: colours that differ from place to place, and from seed to seed."""
    noise = np.random.default_rng(seed).integers(40, 216, (4, 6, 3), dtype=np.uint8)
    return np.asarray(Pictures.fromarray(noise).resize((width, height), Pictures.Resampling.BICUBIC))


def box(height: int, width: int) -> Mask:
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[height // 4 : 3 * height // 4, width // 3 : 2 * width // 3] = True
    return mask


def row_of(
    height: int, width: int, *, truth: bool = True, members: int = 2, blend: bool = True, name: str = "a_01"
) -> PictureRow:
    mask = box(height, width)
    return PictureRow(
        name,
        photo_of(height, width),
        mask if truth else None,
        [(f"net{number}", mask.astype(np.float32)) for number in range(members)],
        mask if blend else None,
        "blend at 0.5",
    )


def opened(path: Path) -> Image:
    with Pictures.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.fixture
def captions(monkeypatch: pytest.MonkeyPatch) -> list[list[str | None]]:
    """The captions of every line that is laid out, None for an empty place."""
    seen: list[list[str | None]] = []
    real = drawing.laid_out

    def laid_out(lines: list[list[drawing.Cell | None]], font_size: int) -> Pictures.Image:
        seen.extend([cell and cell.caption for cell in line] for line in lines)
        return real(lines, font_size)

    monkeypatch.setattr(drawing, "laid_out", laid_out)
    return seen


def test_one_line_a_photo_with_its_cells_in_order(tmp_path: Path, captions: list[list[str | None]]) -> None:
    comparison([row_of(80, 120), row_of(80, 120, name="b_02")], tmp_path / "show.png", height=64)
    cells = ["truth", "net0  Dice 1.0000", "net1  Dice 1.0000", "blend at 0.5  Dice 1.0000"]
    assert captions == [["a_01", *cells], ["b_02", *cells], ["maps: 0 to 1"]]
    assert [entry.name for entry in tmp_path.iterdir()] == ["show.png"]


def test_cells_have_the_height_and_the_photos_proportions(tmp_path: Path) -> None:
    comparison([row_of(80, 120, members=0)], tmp_path / "show.png", height=160)
    sheet = opened(tmp_path / "show.png")
    assert sheet.shape[1] == 3 * 240 + 4 * GAP
    assert np.array_equal(
        sheet[-GAP - 160 : -GAP, GAP : GAP + 240], drawing.scaled_photo(photo_of(80, 120), Size(160, 240))
    )


def test_photos_of_different_sizes_stand_in_one_picture(tmp_path: Path) -> None:
    rows = [row_of(80, 120, members=1), row_of(200, 100, members=1), row_of(64, 256, members=1)]
    comparison(iter(rows), tmp_path / "show.png", height=64)
    sheet = opened(tmp_path / "show.png")
    assert sheet.shape[1] == 4 * 256 + 5 * GAP
    assert sheet.shape[0] > 3 * 64


def test_what_one_photo_lacks_leaves_its_place_empty(tmp_path: Path, captions: list[list[str | None]]) -> None:
    rows = [row_of(80, 120), row_of(80, 120, truth=False, members=1), row_of(80, 120, blend=False)]
    comparison(rows, tmp_path / "show.png", height=64)
    assert captions[1] == ["a_01", None, "net0", None, "blend at 0.5"]
    assert captions[2][-1] is None


def test_what_all_photos_lack_takes_no_place(tmp_path: Path, captions: list[list[str | None]]) -> None:
    comparison([row_of(80, 120, truth=False, members=0, blend=False)], tmp_path / "show.png", height=64)
    assert captions == [["a_01"]]


def test_long_lines_go_on_below(tmp_path: Path, captions: list[list[str | None]]) -> None:
    comparison([row_of(80, 120, members=4)], tmp_path / "show.png", height=64, columns=3)
    assert [len(line) for line in captions] == [3, 3, 1, 1]
    assert captions[2] == ["blend at 0.5  Dice 1.0000"]


def test_dice_is_that_of_the_cut_map_and_of_the_blend_as_given(
    tmp_path: Path, captions: list[list[str | None]]
) -> None:
    truth = np.array([[1, 1, 1, 0]], dtype=np.bool_).repeat(4, axis=0)
    cut = np.array([[0.5, 0.49999, 1, 0.6]], dtype=np.float32).repeat(4, axis=0)
    blend = np.array([[1, 0, 0, 0]], dtype=np.bool_).repeat(4, axis=0)
    row = PictureRow("a", photo_of(4, 4), truth, [("net", cut)], blend, "blend")
    comparison([row], tmp_path / "show.png", height=64)
    assert captions[0] == ["a", "truth", "net  Dice 0.6667", "blend  Dice 0.5000"]


def test_a_map_is_shown_as_jet_over_the_photo(tmp_path: Path) -> None:
    probabilities = np.zeros((64, 64), dtype=np.float32)
    probabilities[:, 32:] = 1
    photo = np.full((64, 64, 3), 100, dtype=np.uint8)
    comparison([PictureRow("a", photo, None, [("net", probabilities)], None)], tmp_path / "show.png", height=64)
    sheet = opened(tmp_path / "show.png")
    colours = {tuple(colour) for colour in sheet[:, 2 * GAP + 64 :].reshape(-1, 3).tolist()}
    low, high = (40, 40, 117), (117, 40, 40)  # 0.4 * 100 + 0.6 * jet, which ends in half blue and half red
    assert {low, high} <= colours
    row = sheet.shape[0] // 2
    assert tuple(sheet[row, 2 * GAP + 64 + 10]) == low
    assert tuple(sheet[row, 2 * GAP + 64 + 60]) == high


def test_the_truth_is_lit_and_the_rest_dimmed(tmp_path: Path) -> None:
    photo = np.full((96, 96, 3), 120, dtype=np.uint8)
    comparison([PictureRow("a", photo, box(96, 96), [], None)], tmp_path / "show.png", height=96)
    cell = opened(tmp_path / "show.png")[-GAP - 96 : -GAP, -GAP - 96 : -GAP]
    assert tuple(cell[48, 48]) == (120, 120, 120)
    assert tuple(cell[5, 5]) == (30, 30, 30)


def test_the_blends_outline_follows_its_border(tmp_path: Path) -> None:
    photo = np.full((96, 96, 3), 120, dtype=np.uint8)
    mask = box(96, 96)
    comparison([PictureRow("a", photo, None, [], mask)], tmp_path / "show.png", height=96)
    cell = opened(tmp_path / "show.png")[-GAP - 96 : -GAP, -GAP - 96 : -GAP]
    green = (cell == drawing.OUTLINE).all(axis=-1)
    rows, columns = np.nonzero(green)
    assert {rows.min(), rows.max(), columns.min(), columns.max()} <= {23, 24, 25, 31, 32, 63, 64, 70, 71, 72}
    assert green[48].sum() in range(2, 7)  # the line crosses the middle twice, one to three pixels wide
    assert not green[30:66, 38:58].any()


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_equal_input_gives_equal_bytes(tmp_path: Path, suffix: str) -> None:
    for name in ("one", "two"):
        comparison([row_of(80, 120)], tmp_path / f"{name}{suffix}", height=64)
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_an_error_in_the_rows_leaves_the_old_picture(tmp_path: Path) -> None:
    path = tmp_path / "show.png"
    path.write_bytes(b"old")

    def rows() -> Iterator[PictureRow]:
        yield row_of(80, 120)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        comparison(rows(), path)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["show.png"]


@pytest.mark.parametrize(
    ("maps", "error", "message"),
    [
        (np.zeros((80, 120), dtype=np.float64), UsageError, "net's map of image 'a' is float64"),
        (np.zeros((1, 80, 120), dtype=np.float32), UsageError, r"net's map of image 'a' .*\(1, 80, 120\)"),
        (np.zeros((80, 119), dtype=np.float32), DataError, "is 80x119 but its photo is 80x120"),
        (np.full((80, 120), 1.5, dtype=np.float32), DataError, "from 1.5 to 1.5"),
        (np.full((80, 120), -0.5, dtype=np.float32), DataError, "from -0.5 to -0.5"),
        (np.full((80, 120), np.nan, dtype=np.float32), DataError, "from nan to nan"),
    ],
)
def test_maps_that_cannot_be_meant(tmp_path: Path, maps: ProbabilityMap, error: type[Exception], message: str) -> None:
    row = PictureRow("a", photo_of(80, 120), None, [("net", maps)], None)
    with pytest.raises(error, match=message):
        comparison([row], tmp_path / "show.png")
    assert not list(tmp_path.iterdir())


def test_masks_and_photos_that_cannot_be_meant(tmp_path: Path) -> None:
    photo, mask = photo_of(80, 120), box(80, 120)
    for row, error, message in (
        (PictureRow("a", photo, mask[:79], [], None), DataError, "the truth of image 'a' is 79x120"),
        (PictureRow("a", photo, None, [], mask[:79]), DataError, "the blend of image 'a' is 79x120"),
        (PictureRow("a", photo, None, [], mask.astype(np.uint8)), UsageError, "the blend of image 'a' is uint8"),
        (PictureRow("a", photo[..., 0], None, [], mask), UsageError, "photo 'a' is uint8 of shape"),
    ):
        with pytest.raises(error, match=message):
            comparison([row], tmp_path / "show.png")


@pytest.mark.parametrize("arguments", [{"height": 31}, {"columns": 0}])
def test_sizes_that_cannot_be_meant(tmp_path: Path, arguments: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least"):
        comparison([row_of(80, 120)], tmp_path / "show.png", **arguments)


def test_nothing_to_show_and_other_suffixes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to show"):
        comparison([], tmp_path / "show.png")
    with pytest.raises(UsageError, match="nothing to show"):
        mosaic([], tmp_path / "mosaic.png")
    with pytest.raises(UsageError, match=r"neither \.png nor \.jpg"):
        comparison([row_of(80, 120)], tmp_path / "show.pdf")
    with pytest.raises(UsageError, match=r"neither \.png nor \.jpg"):
        mosaic([("a", photo_of(8, 8), box(8, 8))], tmp_path / "mosaic.tif")


def flat_cells(count: int, height: int = 40, width: int = 60) -> Iterator[tuple[str, Image, Mask]]:
    for number in range(count):
        photo = np.full((height, width, 3), 10 + number, dtype=np.uint8)
        yield f"car_{number:02}", photo, box(height, width)


def test_a_mosaic_alternates_photos_and_cut_out_cars_in_order(tmp_path: Path) -> None:
    mosaic(flat_cells(5), tmp_path / "mosaic.png", columns=2, scale=0.5)
    sheet = opened(tmp_path / "mosaic.png")
    assert sheet.shape[1] == 2 * 30 + 3 * GAP
    caption = (sheet.shape[0] - 6 * 20 - 7 * GAP) // 3
    top = GAP
    for line in range(3):
        for column in range(2):
            number = 2 * line + column
            left = GAP + column * (30 + GAP)
            plain = sheet[top + caption : top + caption + 20, left : left + 30]
            masked = sheet[top + caption + 20 + GAP : top + caption + 40 + GAP, left : left + 30]
            if number == 5:
                assert (plain == 255).all()
                assert (masked == 255).all()
                continue
            assert (plain == 10 + number).all()
            assert (masked[7:13, 12:18] == 10 + number).all()
            assert not masked[:3].any()
            assert not masked[:, :7].any()
        top += caption + 40 + 2 * GAP


def test_a_mosaic_of_different_sizes_keeps_their_proportions(tmp_path: Path) -> None:
    cells = [*flat_cells(1, 40, 60), *flat_cells(1, 80, 20), *flat_cells(1, 1, 1)]
    mosaic(cells, tmp_path / "mosaic.png", columns=3)
    sheet = opened(tmp_path / "mosaic.png")
    assert sheet.shape[1] == 15 + 5 + 1 + 4 * GAP


def test_a_mosaic_takes_one_photo_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = []
    real = pictures.drawing.scaled_photo

    def scaled(photo: Image, size: Size) -> Image:
        events.append("reduced")
        return real(photo, size)

    def cells() -> Iterator[tuple[str, Image, Mask]]:
        for cell in flat_cells(3):
            events.append("read")
            yield cell

    monkeypatch.setattr(pictures.drawing, "scaled_photo", scaled)
    mosaic(cells(), tmp_path / "mosaic.png")
    assert events == ["read", "reduced", "reduced"] * 3


@pytest.mark.parametrize("arguments", [{"columns": 0}, {"scale": 0.0}, {"scale": 1.5}, {"scale": float("nan")}])
def test_a_mosaic_that_cannot_be_meant(tmp_path: Path, arguments: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"columns .* and scale"):
        mosaic(flat_cells(1), tmp_path / "mosaic.png", **arguments)  # type: ignore[arg-type]


def test_a_mosaic_refuses_a_mask_of_another_size(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the mask of image 'a' is 8x9 but its photo is 8x8"):
        mosaic([("a", photo_of(8, 8), box(8, 9))], tmp_path / "mosaic.png")


@pytest.mark.real
def test_a_real_car_is_what_the_mosaic_shows(tmp_path: Path) -> None:
    if "CARVANA_ENS_DATA" not in os.environ:
        pytest.skip("CARVANA_ENS_DATA is not set: no real photos")
    folder = Path(os.environ["CARVANA_ENS_DATA"]) / "carvana"
    file = min((folder / "train_hq").glob("*.jpg"))
    photo = opened(file)
    mask = opened(next((folder / "train_masks").glob(f"{file.stem}*")))[..., 0] > 127
    mosaic([(file.stem, photo, mask)], tmp_path / "mosaic.png", columns=1)
    sheet = opened(tmp_path / "mosaic.png").astype(int)
    masked = sheet[-GAP - 320 : -GAP, GAP : GAP + 480]
    plain = sheet[-2 * GAP - 640 : -2 * GAP - 320, GAP : GAP + 480]
    inside = drawing.scaled_cover(mask, Size(320, 480)) == 1
    outside = drawing.scaled_cover(mask, Size(320, 480)) == 0
    assert np.abs(masked - plain)[inside].mean() < 3
    assert masked[outside].mean() < 1
    assert plain[outside].mean() > 100
