from __future__ import annotations

import io
import pickle
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from PIL import ImageFile, ImageOps

from carvana_ens.data.images import ImageFolder, image_size, read_image
from carvana_ens.errors import DataError
from carvana_ens.types import Size

Save = Callable[..., Path]
LOSSLESS = ("png", "tif", "tiff", "bmp", "PNG")


@pytest.mark.parametrize("extension", LOSSLESS)
def test_a_lossless_photo_comes_back_to_the_bit(save: Save, photo: np.ndarray, extension: str) -> None:
    image = read_image(save(f"a.{extension}", photo))
    np.testing.assert_array_equal(image, photo)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert image.flags.c_contiguous


def test_a_lossless_webp_comes_back_to_the_bit(save: Save, photo: np.ndarray) -> None:
    np.testing.assert_array_equal(read_image(save("a.webp", photo, lossless=True)), photo)


def test_a_jpeg_is_what_pillow_decodes(save: Save, photo: np.ndarray) -> None:
    path = save("a.jpg", photo, quality=90)
    np.testing.assert_array_equal(read_image(path), np.asarray(PIL.Image.open(path)))


def test_grey_bilevel_and_palette_pictures_become_rgb(tmp_path: Path, photo: np.ndarray) -> None:
    picture = PIL.Image.fromarray(photo)
    for name, mode in (("l.png", "L"), ("one.png", "1"), ("p.gif", "P"), ("p.png", "P")):
        converted = picture.convert(mode)
        converted.save(tmp_path / name)
        np.testing.assert_array_equal(read_image(tmp_path / name), np.asarray(converted.convert("RGB")))


def test_a_conversion_that_loses_something_is_said_once_for_a_folder(tmp_path: Path, photo: np.ndarray) -> None:
    picture = PIL.Image.fromarray(photo)
    for number in range(3):
        transparent = picture.copy()
        transparent.putalpha(number)
        transparent.save(tmp_path / f"alpha{number}.png")
        picture.convert("CMYK").save(tmp_path / f"cmyk{number}.jpg")
    picture.save(tmp_path / "plain.png")
    said: list[str] = []
    folder = ImageFolder(tmp_path, said.append)
    with ThreadPoolExecutor(4) as pool:
        images = dict(zip(folder.ids, pool.map(folder.read, folder.ids), strict=True))
    assert sorted("transparency" in line for line in said) == [False, True]
    assert any("CMYK" in line for line in said)
    np.testing.assert_array_equal(images["alpha1"], photo)  # the alpha channel is dropped, not mixed in
    assert images["cmyk1"].shape == photo.shape


@pytest.mark.parametrize("mode", ["LA", "PA", "P", "RGB"])
def test_transparency_of_every_kind_is_said(tmp_path: Path, photo: np.ndarray, mode: str) -> None:
    picture = PIL.Image.fromarray(photo).convert("L" if mode == "LA" else "P" if mode == "PA" else mode)
    if mode in ("LA", "PA"):
        picture = picture.convert(mode)
        picture.save(tmp_path / "a.tif" if mode == "PA" else tmp_path / "a.png")
    else:
        picture.save(tmp_path / "a.png", transparency=b"\x00\x80" if mode == "P" else (1, 2, 3))
    path = next(tmp_path.iterdir())
    said: list[str] = []
    image = read_image(path, said.append)
    assert [str(path) in line and "transparency" in line for line in said] == [True]
    np.testing.assert_array_equal(image, np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_and_known_from_the_header(
    save: Save, photo: np.ndarray, extension: str, orientation: int
) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if extension == "webp" else {}
    path = save(f"a.{extension}", photo, exif=exif, **options)
    plain = save(f"plain.{extension}", photo, **options)
    stored = PIL.Image.open(plain).convert("RGB")
    stored.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(read_image(path), expected)
    assert image_size(path) == Size(*expected.shape[:2])


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize("late", [True, False])
def test_the_size_of_a_png_heeds_exif_behind_the_pixels(save: Save, photo: np.ndarray, late: bool) -> None:
    path = save("a.png", photo)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    data = path.read_bytes()
    at = data.index(b"IEND" if late else b"IDAT") - 4
    path.write_bytes(data[:at] + _chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + data[at:])
    assert image_size(path) == (30, 20)
    np.testing.assert_array_equal(read_image(path), np.rot90(photo, -1))


def test_the_size_of_a_picture_needs_only_its_header(save: Save, photo: np.ndarray) -> None:
    for name in ("a.jpg", "a.png", "a.bmp"):
        path = save(name, np.tile(photo, (20, 20, 1)))
        path.write_bytes(path.read_bytes()[:2000])
        assert image_size(path) == (400, 600)
        with pytest.raises(DataError, match=name):
            read_image(path)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.bmp", "a.webp", "a.gif"])
def test_a_truncated_file_is_an_error_with_its_path_wherever_it_was_cut(
    save: Save, photo: np.ndarray, name: str
) -> None:
    path = save(name, photo)
    whole = path.read_bytes()
    expected = read_image(path)
    refused = 0
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        try:
            image = read_image(path)
        except DataError as error:
            assert name in str(error)  # noqa: PT017 - any other exception is the failure
            refused += 1
        else:  # only what follows the pixels may be missing
            np.testing.assert_array_equal(image, expected)
    assert refused > len(whole) / 7 * 0.5


def test_random_damage_raises_nothing_but_data_errors(save: Save, photo: np.ndarray) -> None:
    rng = np.random.default_rng(3)
    for name in ("a.jpg", "a.png", "a.tif", "a.bmp", "a.webp", "a.gif"):
        path = save(name, photo)
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            at = rng.integers(0, min(len(whole), 400), 3)
            damaged[at] = rng.integers(0, 256, 3)
            path.write_bytes(damaged.tobytes())
            for read in (read_image, image_size):
                try:
                    read(path)
                except DataError as error:
                    assert name in str(error)  # noqa: PT017


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_grey_of_more_than_8_bits_is_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.png" if mode == "I;16" else "a.tif")
    PIL.Image.new(mode, (4, 3)).save(path)
    with pytest.raises(DataError, match=r"more than 8 bits .* rescale"):
        read_image(path)


def test_16_bit_colour_that_pillow_would_cut_in_silence_is_refused(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + bytes(range(18)) for _ in range(2))
    header = struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    path = tmp_path / "deep.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    with PIL.Image.open(path) as picture:
        assert picture.mode == "RGB"  # what makes the check necessary
    for read in (read_image, image_size):
        with pytest.raises(DataError, match=r"deep\.png has more than 8 bits"):
            read(path)


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.png", "a.webp"])
def test_several_frames_are_refused(tmp_path: Path, photo: np.ndarray, name: str) -> None:
    frames = [PIL.Image.fromarray(photo), PIL.Image.fromarray(255 - photo)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="2 frames"):
        read_image(tmp_path / name)


def _bomb(path: Path, side: int) -> Path:
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", b"") + _chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("side", [9_500, 30_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_an_error_whatever_the_warning_filters(tmp_path: Path, side: int) -> None:
    with pytest.raises(DataError, match="too large"):
        read_image(_bomb(tmp_path / "bomb.png", side))


@pytest.mark.parametrize("side", [9_500, 30_000])
def test_a_decompression_bomb_is_an_error_where_warnings_are(tmp_path: Path, side: int) -> None:
    with pytest.raises(DataError, match="too large"):
        image_size(_bomb(tmp_path / "bomb.png", side))


def test_the_pixel_limit_is_pillows_own_setting(save: Save, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save("a.png", photo)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", None)
    assert image_size(path) == (20, 30)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 600)
    assert image_size(path) == (20, 30)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 599)
    with pytest.raises(DataError, match="too large"):
        image_size(path)


def test_nothing_is_read_while_pillow_is_told_to_accept_truncated_files(
    save: Save, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save("a.jpg", photo)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DataError, match="LOAD_TRUNCATED_IMAGES"):
        read_image(path)


def test_a_format_that_is_not_listed_is_refused_whatever_its_extension(tmp_path: Path, photo: np.ndarray) -> None:
    buffer = io.BytesIO()
    PIL.Image.fromarray(photo).save(buffer, "PPM")
    for name, content in (
        ("ppm.jpg", buffer.getvalue()),
        ("eps.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n"),
        ("text.png", b"x"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            read_image(tmp_path / name)


def test_a_folder_lists_its_photos_of_any_size_and_ignores_the_rest(save: Save, tmp_path: Path) -> None:
    sizes = {"b_01": Size(3, 5), "a_02": Size(1, 1), "007": Size(10, 2), "NA": Size(2, 2)}
    for image_id, size in sizes.items():
        save(f"photos/{image_id}.PNG", np.zeros((*size, 3), np.uint8))
    for name in ("notes.txt", ".hidden.png", "._a_02.png", "thumbs.db", "c.npy"):
        (tmp_path / "photos" / name).write_bytes(b"x")
    (tmp_path / "photos" / "sub.jpg").mkdir()
    folder = ImageFolder(tmp_path / "photos")
    assert folder.ids == tuple(sorted(sizes))
    assert folder.sizes() == sizes
    assert list(folder.sizes()) == list(folder.ids)
    assert folder.path("NA") == tmp_path / "photos" / "NA.PNG"
    assert folder.read("007").shape == (10, 2, 3)
    assert folder.folder == tmp_path / "photos"


def test_progress_over_sizes_is_tracked(save: Save, tmp_path: Path, photo: np.ndarray) -> None:
    save("a.png", photo)
    seen: list[int] = []
    ImageFolder(tmp_path).sizes(lambda items, total, what: seen.append(total) or items)
    assert seen == [1]


def test_an_unknown_photo_is_answered_with_the_nearest(save: Save, tmp_path: Path, photo: np.ndarray) -> None:
    save("car_01.png", photo)
    with pytest.raises(DataError, match=r"car_02.*did you mean 'car_01'"):
        ImageFolder(tmp_path).read("car_02")


def test_two_photos_of_one_stem_are_refused(save: Save, tmp_path: Path, photo: np.ndarray) -> None:
    save("a.jpg", photo)
    save("a.png", photo)
    with pytest.raises(DataError, match=r"two photos of image 'a', a\.jpg and a\.png"):
        ImageFolder(tmp_path)


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no pictures"):
        ImageFolder(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="1 folders, name one of them"):
        ImageFolder(tmp_path)
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(DataError, match="cannot be read"):
        ImageFolder(tmp_path / "file.txt")


def test_a_name_that_cannot_be_an_id_is_refused_when_listing(save: Save, tmp_path: Path, photo: np.ndarray) -> None:
    save("a\nb.png", photo)
    with pytest.raises(DataError, match="control character"):
        ImageFolder(tmp_path)


def test_a_photo_that_went_away_or_was_a_broken_link_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone")
    folder = ImageFolder(tmp_path)
    assert folder.ids == ("a",)  # not skipped in silence
    for read in (folder.read, folder.size):
        with pytest.raises(DataError, match=r"a\.jpg cannot be read"):
            read("a")


def test_a_folder_can_be_sent_to_a_worker_process(save: Save, tmp_path: Path, photo: np.ndarray) -> None:
    save("a.png", photo)
    sent = pickle.loads(pickle.dumps(ImageFolder(tmp_path, lambda line: None)))
    np.testing.assert_array_equal(sent.read("a"), photo)


@pytest.mark.real
def test_real_photos_are_what_pillow_decodes(real: Path) -> None:
    folder = ImageFolder(real / "carvana" / "train_hq")
    assert len(folder.ids) == 32
    assert set(folder.sizes().values()) == {Size(1280, 1918)}
    image_id = folder.ids[5]
    np.testing.assert_array_equal(folder.read(image_id), np.asarray(PIL.Image.open(folder.path(image_id))))
