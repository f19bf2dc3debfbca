"""Cutouts as pictures: what is written, what of the photo's file is kept, and the sheet."""

from __future__ import annotations

from functools import cache

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
from PIL import ImageOps

pytest.importorskip("pymatting")

from carvana_ens.errors import CarvanaEnsError, DataError, UsageError
from carvana_ens.output.cutouts import (
    DARK,
    LIGHT,
    Finish,
    contact_sheet,
    finished,
    kept_tags,
    read_background,
    write_cutout,
)

SIZE = (40, 60)


@pytest.fixture
def scene():
    """A photo and an opacity: a block of 255 with a rim of 128 around it, in rows 9..21 and columns 14..46."""
    alpha = np.zeros(SIZE, np.uint8)
    alpha[9:21, 14:46] = 128
    alpha[10:20, 15:45] = 255
    photo = np.random.default_rng(5).integers(0, 256, (*SIZE, 3), np.uint8)
    return photo, alpha


def exif(orientation=None):
    tags = PIL.Image.Exif()
    tags[0x010F] = "Maker of cameras"
    if orientation is not None:
        tags[0x0112] = orientation
    own = tags.get_ifd(0x8769)
    own[0x927C] = b"MAKER\x00notes \xff\x01"
    return tags


@cache
def profile(space):
    """The same for all, as each that is made holds the time."""
    return PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile(space)).tobytes()


def test_transparent(scene):
    photo, alpha = scene
    picture = finished(photo, alpha, Finish())
    assert (picture.mode, picture.size) == ("RGBA", (60, 40))
    pixels = np.asarray(picture)
    assert np.array_equal(pixels[..., 3], alpha)
    assert np.array_equal(pixels[alpha == 255][:, :3], photo[alpha == 255])


def test_on_a_colour_and_on_a_picture(scene):
    photo, alpha = scene
    clear = np.asarray(finished(photo, alpha, Finish())).astype(int)
    wall = np.random.default_rng(6).integers(0, 256, (*SIZE, 3), np.uint8)
    for ground in ((10, 200, 30), wall):
        picture = finished(photo, alpha, Finish(ground))
        assert picture.mode == "RGB"
        expected = clear[..., :3] * (alpha[..., None] / 255) + np.array(ground) * (1 - alpha[..., None] / 255)
        assert np.abs(np.asarray(picture) - expected).max() <= 0.51


def test_a_picture_behind_is_scaled_to_cover_and_its_middle_is_seen(scene):
    photo, alpha = scene
    wide = np.zeros((20, 100, 3), np.uint8)  # doubled to 40 x 200, of which columns 70..130 are seen
    wide[:, :50] = (255, 0, 0)
    wide[:, 50:] = (0, 0, 255)
    pixels = np.asarray(finished(photo, alpha, Finish(wide)))
    assert (pixels[30:, :24] == (255, 0, 0)).all()
    assert (pixels[30:, 36:] == (0, 0, 255)).all()


def test_the_mask_alone(scene):
    photo, alpha = scene
    picture = finished(photo, alpha, Finish(mask_only=True))
    assert picture.mode == "L"
    assert np.array_equal(np.asarray(picture), alpha)
    nothing = finished(photo, np.zeros_like(alpha), Finish(mask_only=True))
    assert not np.asarray(nothing).any()


@pytest.mark.parametrize(
    ("margin", "rows", "columns"), [(0, (9, 21), (14, 46)), (3, (6, 24), (11, 49)), (15, (0, 36), (0, 60))]
)
def test_cropped_to_the_object_and_a_margin(scene, margin, rows, columns):
    photo, alpha = scene
    window = (slice(*rows), slice(*columns))
    assert np.array_equal(np.asarray(finished(photo, alpha, Finish(margin=margin)))[..., 3], alpha[window])
    whole = np.asarray(finished(photo, alpha, Finish((1, 2, 3))))
    assert np.array_equal(np.asarray(finished(photo, alpha, Finish((1, 2, 3), margin=margin))), whole[window])


@pytest.mark.parametrize("finish", [Finish(), Finish(margin=2), Finish(mask_only=True, margin=2)])
def test_nothing_to_cut_out(scene, finish):
    with pytest.raises(DataError, match="no object"):
        finished(scene[0], np.zeros(SIZE, np.uint8), finish)


@pytest.mark.parametrize(
    "words", [{"mask_only": True, "background": (0, 0, 0)}, {"suffix": ".jpg"}, {"suffix": ".gif"}, {"margin": -1}]
)
def test_finishes_that_cannot_be_meant(words):
    with pytest.raises(UsageError):
        Finish(**words)


def test_backgrounds(tmp_path):
    assert read_background("white") == (255, 255, 255)
    assert read_background("#30343a") == (0x30, 0x34, 0x3A)
    pixels = np.random.default_rng(1).integers(0, 256, (5, 6, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "wall.png")
    assert np.array_equal(read_background(str(tmp_path / "wall.png")), pixels)
    for text in ("whitish", str(tmp_path / "no.png"), "#11223344"):
        with pytest.raises(UsageError, match="background"):
            read_background(text)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [None, 1, 6])
def test_exif_and_profile_are_kept_and_the_picture_is_upright(tmp_path, form, orientation):
    path, out = tmp_path / "photo.img", tmp_path / "out.png"
    drawn = PIL.Image.fromarray(np.random.default_rng(2).integers(0, 256, (20, 30, 3), np.uint8))
    drawn.save(path, format=form, exif=exif(orientation), icc_profile=profile("sRGB"))
    for target, mode in ((out, "RGBA"), (tmp_path / "out.jpg", "RGB")):
        write_cutout(target, PIL.Image.new(mode, (20, 30)), kept_tags(path))
        with PIL.Image.open(target) as written:
            found = written.getexif()
            assert found[0x010F] == "Maker of cameras"
            assert found.get(0x0112, 1) == 1
            assert found.get_ifd(0x8769)[0x927C] == b"MAKER\x00notes \xff\x01"
            assert written.info["icc_profile"] == profile("sRGB")
            assert ImageOps.exif_transpose(written).size == written.size
    if orientation != 6:
        with PIL.Image.open(path) as photo:
            assert kept_tags(path)["exif"][6:] == photo.info["exif"].removeprefix(b"Exif\x00\x00")


def test_a_profile_of_other_colours_is_left_out(tmp_path):
    path = tmp_path / "photo.jpg"
    PIL.Image.new("RGB", (8, 8)).save(path, icc_profile=profile("LAB"))
    assert kept_tags(path) == {}


def test_masks_keep_no_colour_profile(tmp_path):
    write_cutout(tmp_path / "a.png", PIL.Image.new("L", (4, 4)), {"icc_profile": profile("sRGB")})
    with PIL.Image.open(tmp_path / "a.png") as written:
        assert "icc_profile" not in written.info


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    old = tmp_path / "a.jpg"
    old.write_bytes(b"old")
    with pytest.raises(CarvanaEnsError):
        write_cutout(old, PIL.Image.new("RGBA", (4, 4)), {})  # JPEG has no transparency
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]
    assert old.read_bytes() == b"old"


def test_the_sheet_shows_each_cutout_on_dark_and_on_light(tmp_path):
    pixels = np.zeros((50, 80, 4), np.uint8)
    pixels[10:40, 20:60] = (200, 0, 0, 255)
    cells = []
    for number in range(3):
        PIL.Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        cells.append((f"car {number}", tmp_path / f"{number}.png"))
    contact_sheet(cells, tmp_path / "sheet.png", height=64)
    with PIL.Image.open(tmp_path / "sheet.png") as drawn:
        sheet = np.asarray(drawn.convert("RGB"))
    counts = {ground: (sheet == ground).all(axis=2).sum() for ground in (DARK, LIGHT, (200, 0, 0))}
    assert counts[DARK] == pytest.approx(counts[LIGHT], rel=0.02)
    assert counts[DARK] > 1000
    assert counts[200, 0, 0] > 6 * 50 * 60  # six objects, of 56 x 75 pixels each at this height
    with pytest.raises(UsageError, match="no cutout"):
        contact_sheet([], tmp_path / "sheet.png")
    PIL.Image.new("RGB", (4, 4)).save(tmp_path / "opaque.png")
    with pytest.raises(DataError, match="no transparent picture"):
        contact_sheet([("x", tmp_path / "opaque.png")], tmp_path / "sheet.png")
    with pytest.raises(UsageError, match="neither"):
        contact_sheet(cells, tmp_path / "sheet.gif")
