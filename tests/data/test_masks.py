from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from carvana_ens.data.masks import open_masks, read_mask
from carvana_ens.errors import DataError, UsageError
from carvana_ens.types import Size

Save = Callable[..., Path]
SHAPES = ((17, 23), (1, 23), (17, 1), (1, 1))


def _mask(shape: tuple[int, int] = (17, 23), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < 0.4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.tif", "a.bmp"])
@pytest.mark.parametrize("kind", ["random", "empty", "full"])
def test_a_black_and_white_picture_is_its_white_pixels(
    save: Save, name: str, shape: tuple[int, int], kind: str
) -> None:
    mask = {"random": _mask(shape), "empty": np.zeros(shape, bool), "full": np.ones(shape, bool)}[kind]
    for array in (mask, np.uint8(255) * mask):  # modes 1 and L
        got = read_mask(save(name, array))
        assert got.dtype == np.bool_
        np.testing.assert_array_equal(got, mask)


def test_a_lossless_webp_mask_is_read(save: Save) -> None:
    mask = _mask()
    mask_rgb = np.repeat(np.uint8(255) * mask[..., np.newaxis], 3, axis=2)
    np.testing.assert_array_equal(read_mask(save("a.webp", mask_rgb, lossless=True)), mask)


@pytest.mark.parametrize("name", ["a.gif", "a.png"])
@pytest.mark.parametrize("white_first", [False, True])
def test_a_palette_is_looked_up(tmp_path: Path, name: str, white_first: bool) -> None:
    """Carvana's GIF masks hold indices 0 and 1; which of them is white is the palette's affair."""
    mask = _mask()
    picture = PIL.Image.fromarray((mask ^ white_first).astype(np.uint8), "L").convert("P")
    picture.putdata((mask ^ white_first).astype(np.uint8).ravel())
    picture.putpalette([255, 255, 255, 0, 0, 0] if white_first else [0, 0, 0, 255, 255, 255])
    picture.save(tmp_path / name)
    np.testing.assert_array_equal(read_mask(tmp_path / name), mask)


@pytest.mark.parametrize("kind", ["random", "empty", "full"])
def test_a_picture_of_zeros_and_ones_is_read_as_it_was_meant(save: Save, kind: str) -> None:
    mask = {"random": _mask(), "empty": np.zeros((3, 4), bool), "full": np.ones((3, 4), bool)}[kind]
    np.testing.assert_array_equal(read_mask(save("a.png", mask.astype(np.uint8))), mask)


def test_two_levels_are_cut_between_dark_and_bright(save: Save) -> None:
    mask = _mask()
    for dark, bright in ((0, 128), (127, 128), (127, 255), (10, 240)):
        np.testing.assert_array_equal(read_mask(save("a.png", np.where(mask, bright, dark).astype(np.uint8))), mask)


@pytest.mark.parametrize("levels", [(0, 38), (0, 127), (128, 255), (37,), (200,), (2,), (0, 2), (254,)])
def test_levels_that_do_not_tell_object_from_background_are_refused(save: Save, levels: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=f"grey levels {' and '.join(map(str, levels))}, which do not tell"):
        read_mask(save("a.png", np.array([levels], np.uint8)))


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.tif", "a.bmp"])
@pytest.mark.parametrize("levels", [(0, 1, 255), (0, 128, 255), (0, 1, 2), tuple(range(256))])
def test_more_than_two_levels_of_a_lossless_mask_are_refused(save: Save, name: str, levels: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=rf"{re.escape(name)} has {len(levels)} grey levels"):
        read_mask(save(name, np.array([levels], np.uint8)))


def _disc(shape: tuple[int, int] = (128, 192), radius: float = 40) -> np.ndarray:
    rows, columns = np.indices(shape)
    return (rows - shape[0] / 2) ** 2 + (columns - shape[1] / 2) ** 2 < radius**2


@pytest.mark.parametrize("kind", ["disc", "empty", "full"])
@pytest.mark.parametrize("colours", [False, True])
def test_a_jpeg_mask_is_cut_at_the_middle(save: Save, kind: str, colours: bool) -> None:
    mask = {"disc": _disc(), "empty": np.zeros((9, 9), bool), "full": np.ones((9, 9), bool)}[kind]
    array = np.uint8(255) * mask
    path = save("a.jpg", np.repeat(array[..., np.newaxis], 3, axis=2) if colours else array, quality=80)
    got = read_mask(path)
    np.testing.assert_array_equal(got, np.asarray(PIL.Image.open(path).convert("L")) > 127)
    assert (got != mask).mean() < 0.001


def test_a_grey_jpeg_mask_is_refused(save: Save) -> None:
    photo = np.tile(np.arange(256, dtype=np.uint8), (64, 1))
    with pytest.raises(DataError, match=r"grey \(64..191\) in [45]\d\.\d%"):
        read_mask(save("a.jpg", photo))


@pytest.mark.parametrize("levels", [(0, 1), (0, 60), (200, 255), (40, 40)])
def test_a_jpeg_mask_without_black_and_white_is_refused(save: Save, levels: tuple[int, int]) -> None:
    array = np.where(_disc(), levels[1], levels[0]).astype(np.uint8)
    with pytest.raises(DataError, match="not both black and white"):
        read_mask(save("a.jpg", array, quality=95))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_constant_alpha_is_dropped_and_any_other_refused(tmp_path: Path, mode: str) -> None:
    mask = _mask()
    path = tmp_path / "a.png"
    picture = PIL.Image.fromarray(np.uint8(255) * mask).convert(mode)
    for alpha in (255, 7, 0):
        picture.putalpha(alpha)
        picture.save(path)
        np.testing.assert_array_equal(read_mask(path), mask)
    picture.putalpha(PIL.Image.fromarray(np.uint8(255) * mask))
    picture.save(path)
    with pytest.raises(DataError, match="transparent in places"):
        read_mask(path)


@pytest.mark.parametrize("name", ["a.gif", "a.png"])
def test_a_transparent_palette_entry_is_refused_if_it_is_used(tmp_path: Path, name: str) -> None:
    picture = PIL.Image.fromarray(_mask().astype(np.uint8), "L").convert("P")
    picture.putdata(_mask().astype(np.uint8).ravel())
    picture.putpalette([0, 0, 0, 255, 255, 255])
    picture.save(tmp_path / name, transparency=0)
    with pytest.raises(DataError, match="transparent in places"):
        read_mask(tmp_path / name)


def test_grey_written_as_rgb_is_read_and_colours_are_refused(save: Save, tmp_path: Path) -> None:
    mask = _mask()
    grey = np.repeat(np.uint8(255) * mask[..., np.newaxis], 3, axis=2)
    np.testing.assert_array_equal(read_mask(save("grey.png", grey)), mask)
    blue = grey * np.array([0, 0, 1], np.uint8)
    with pytest.raises(DataError, match=r"blue\.png has colours"):
        read_mask(save("blue.png", blue))
    classes = PIL.Image.fromarray(mask.astype(np.uint8), "L").convert("P")
    classes.putdata(mask.astype(np.uint8).ravel())
    classes.putpalette([0, 0, 0, 255, 255, 0])  # as VOC colours its classes
    classes.save(tmp_path / "voc.png")
    with pytest.raises(DataError, match=r"voc\.png has colours"):
        read_mask(tmp_path / "voc.png")
    PIL.Image.fromarray(grey).convert("CMYK").save(tmp_path / "cmyk.tif")
    with pytest.raises(DataError, match="CMYK"):
        read_mask(tmp_path / "cmyk.tif")


def test_palette_colours_that_no_pixel_uses_do_not_matter(tmp_path: Path) -> None:
    mask = _mask()
    picture = PIL.Image.fromarray(mask.astype(np.uint8), "L").convert("P")
    picture.putdata(2 * mask.astype(np.uint8).ravel())
    picture.putpalette([0, 0, 0, 255, 0, 0, 255, 255, 255])
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), mask)


def test_deep_and_animated_masks_are_refused(tmp_path: Path) -> None:
    PIL.Image.fromarray(np.array([[0, 65535]], np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png has more than 8 bits"):
        read_mask(tmp_path / "deep.png")
    frames = [PIL.Image.fromarray(np.uint8(255) * _mask(seed=seed)) for seed in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="3 frames"):
        read_mask(tmp_path / "a.gif")


def test_a_truncated_mask_is_an_error_with_its_path(save: Save) -> None:
    for name in ("a.png", "a.gif", "a.tif"):
        path = save(name, np.uint8(255) * _mask((60, 60)))
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(DataError, match=re.escape(name)):
            read_mask(path)


def test_exif_turns_a_mask_as_it_turns_a_photo(save: Save) -> None:
    mask = _mask()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    np.testing.assert_array_equal(read_mask(save("a.png", np.uint8(255) * mask, exif=exif)), np.rot90(mask, -1))


def test_a_mask_that_is_a_bomb_is_refused(tmp_path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(DataError, match=r"bomb\.png is too large"):
        read_mask(path)


def test_a_folder_of_masks_goes_by_image_id(save: Save, tmp_path: Path) -> None:
    masks = {"car_01": _mask(), "car_02": _mask((5, 6), 1), "007": _mask((1, 9), 2)}
    save("masks/car_01_mask.gif", np.uint8(255) * masks["car_01"])
    save("masks/car_02_mask.png", masks["car_02"])
    save("masks/007.bmp", masks["007"])
    (tmp_path / "masks" / "readme.md").write_text("x")
    source = open_masks(tmp_path / "masks")
    assert source.ids == ("007", "car_01", "car_02")
    assert "3 mask pictures" in source.describe
    with ThreadPoolExecutor(3) as pool:
        for image_id, got in zip(
            source.ids, pool.map(lambda i: source.read(i, Size(*masks[i].shape)), source.ids), strict=True
        ):
            np.testing.assert_array_equal(got, masks[image_id])


def test_a_mask_of_another_size_than_its_photo_is_refused_with_both_sizes(save: Save, tmp_path: Path) -> None:
    save("car_01_mask.png", _mask())
    source = open_masks(tmp_path)
    with pytest.raises(DataError, match=r"'car_01' .* is 17x23, its photo is 17x24: "):
        source.read("car_01", Size(17, 24))
    with pytest.raises(DataError, match=r"17x23, its photo is 23x17 \(was one of them turned"):
        source.read("car_01", Size(23, 17))
    with pytest.raises(DataError, match=r"car_03.*did you mean 'car_01'"):
        source.read("car_03", Size(17, 23))


def test_two_masks_of_one_image_are_refused(save: Save, tmp_path: Path) -> None:
    save("a.png", _mask())
    save("a_mask.png", _mask())
    with pytest.raises(DataError, match=r"two masks of image 'a', a\.png and a_mask\.png"):
        open_masks(tmp_path)
    (tmp_path / "other").mkdir()
    save("other/_mask.png", _mask())
    with pytest.raises(DataError, match="empty"):
        open_masks(tmp_path / "other")


def test_a_path_that_is_no_source_of_masks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no masks at"):
        open_masks(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no pictures"):
        open_masks(tmp_path)
    with pytest.raises(UsageError, match="categories"):
        open_masks(tmp_path, ["wheel"])
    (tmp_path / "masks.txt").write_text("img,rle_mask\n")
    with pytest.raises(UsageError, match=r"masks\.txt"):
        open_masks(tmp_path / "masks.txt")


@pytest.mark.real
def test_the_real_gif_masks_are_palette_indices_0_and_1(real: Path) -> None:
    source = open_masks(real / "carvana" / "train_masks")
    assert len(source.ids) == 32
    for image_id in source.ids[::8]:
        path = real / "carvana" / "train_masks" / f"{image_id}_mask.gif"
        with PIL.Image.open(path) as picture:
            indices = np.asarray(picture)
        mask = source.read(image_id, Size(1280, 1918))
        np.testing.assert_array_equal(mask, indices == 1)
        assert 0.1 < mask.mean() < 0.4
