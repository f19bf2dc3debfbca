from __future__ import annotations

import contextlib
import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as oracle
from pycocotools.coco import COCO

from carvana_ens.data.coco_shapes import fill_polygon, fill_rle
from carvana_ens.data.masks import open_masks
from carvana_ens.errors import DataError, UsageError
from carvana_ens.types import Size

# pycocotools 2.0.11 calls numpy the old way when it decodes.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SQUARE = [1.0, 1.0, 5.0, 1.0, 5.0, 4.0, 1.0, 4.0]
DOCUMENT: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "photos/b_01.jpg", "width": 8, "height": 6},
        {"id": 3, "file_name": "a_01.png", "width": 9, "height": 7},
        {"id": 4, "file_name": "empty.jpg", "width": 5, "height": 5, "annotated": False},
    ],
    "categories": [{"id": 1, "name": "_background_"}, {"id": 2, "name": "wheel"}, {"id": 5, "name": "door"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 2, "segmentation": [SQUARE]},
        {"id": 2, "image_id": 7, "category_id": 5, "segmentation": [[0, 3, 7, 3, 7, 5, 0, 5]]},
        {"id": 3, "image_id": 7, "category_id": 1, "segmentation": [[0, 0, 8, 0, 8, 6, 0, 6]]},
        {"id": 4, "image_id": 3, "category_id": 5, "segmentation": [SQUARE, [6, 5, 9, 5, 9, 7, 6, 7]]},
    ],
}


def _polygon_oracle(polygon: list[float], size: tuple[int, int]) -> np.ndarray:
    return oracle.decode(oracle.merge(oracle.frPyObjects([polygon], *size))).astype(bool)


def _filled(polygon: list[float], size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, bool)
    fill_polygon(mask, polygon)
    return mask


_SIZES = st.tuples(st.integers(1, 30), st.integers(1, 30))
_COORDINATES = st.one_of(st.integers(-10, 40), st.floats(-10, 40), st.integers(-20, 80).map(lambda i: i / 2))


@settings(max_examples=400, deadline=None)
@given(_SIZES, st.lists(st.tuples(_COORDINATES, _COORDINATES), min_size=3, max_size=12))
def test_a_polygon_is_filled_as_pycocotools_fills_it(size: tuple[int, int], points: list[tuple[float, float]]) -> None:
    """Also where it crosses itself, repeats a point, has no area or leaves the image."""
    height, width = size
    polygon = [v for x, y in points for v in (min(max(x, -width), 2 * width), min(max(y, -height), 2 * height))]
    np.testing.assert_array_equal(_filled(polygon, size), _polygon_oracle(polygon, size))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (40, 60)])
def test_a_polygon_of_the_whole_image_fills_it(size: tuple[int, int]) -> None:
    height, width = size
    assert _filled([0, 0, width, 0, width, height, 0, height], size).all()
    assert _filled([-width, -height, 2 * width, -height, 2 * width, 2 * height, -width, 2 * height], size).all()
    assert not _filled([-1, -1, 0, -1, 0, 0, -1, 0], size).any()


def test_shapes_add_up() -> None:
    mask = np.zeros((6, 8), bool)
    fill_polygon(mask, SQUARE)
    fill_polygon(mask, SQUARE)
    expected = np.zeros((6, 8), bool)
    expected[1:4, 1:5] = True
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    "polygon",
    [
        [],
        [1, 1, 2, 2],
        [1, 1, 2, 2, 3],
        [1, 1, 2, 2, 3, "4"],
        [1, 1, 2, 2, 3, None],
        [1, 1, 2, 2, 3, True],
        [1, 1, 2, 2, 3, float("nan")],
        [1, 1, 2, 2, 3, float("inf")],
        [1, 1, 2, 2, 3, 1e12],
        [1, 1, 2, 2, -9, 3],
        "polygon",
        {},
    ],
)
def test_what_is_no_outline_is_refused(polygon: Any) -> None:
    with pytest.raises(DataError, match="outline"):
        fill_polygon(np.zeros((6, 8), bool), polygon)


@settings(max_examples=200, deadline=None)
@given(_SIZES, st.integers(0, 2**32), st.sampled_from([0.0, 0.02, 0.5, 1.0]))
def test_both_run_length_forms_are_decoded_as_pycocotools_decodes_them(
    size: tuple[int, int], seed: int, share: float
) -> None:
    expected = np.random.default_rng(seed).random(size) < share
    compressed = oracle.encode(np.asfortranarray(expected.astype(np.uint8)))
    flat = expected.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    for counts in (compressed["counts"].decode(), [0, *runs] if flat[0] else runs):
        mask = np.zeros(size, bool)
        fill_rle(mask, {"size": list(size), "counts": counts})
        np.testing.assert_array_equal(mask, expected)


def test_long_runs_are_decompressed() -> None:
    expected = np.zeros((1300, 1900), bool)
    expected[:, 700:1500] = True
    expected[5, 1600] = True
    text = oracle.encode(np.asfortranarray(expected.astype(np.uint8)))["counts"].decode()
    mask = np.zeros(expected.shape, bool)
    fill_rle(mask, {"size": [1300, 1900], "counts": text})
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ({"counts": [48]}, "size None"),
        ({"size": [8, 6], "counts": [48]}, r"size \[8, 6\], its image of \[6, 8\]"),
        ({"size": [6, 8]}, "run lengths"),
        ({"size": [6, 8], "counts": [40, -2, 10]}, "run lengths"),
        ({"size": [6, 8], "counts": [40.0, 8.0]}, "run lengths"),
        ({"size": [6, 8], "counts": [True, 47]}, "run lengths"),
        ({"size": [6, 8], "counts": [47]}, "sum to 47 .* has 48"),
        ({"size": [6, 8], "counts": [47, 2]}, "sum to 49"),
        ({"size": [6, 8], "counts": [10**15]}, "sum to"),
        ({"size": [6, 8], "counts": ""}, "sum to 0"),
        ({"size": [6, 8], "counts": "0é"}, "character 'é'"),
        ({"size": [6, 8], "counts": "P"}, "middle of a number"),
        ({"size": [6, 8], "counts": "o" * 40}, "no COCO text"),
        ({"size": [6, 8], "counts": "O"}, "run lengths"),  # -1
    ],
)
def test_a_broken_encoding_is_refused(segmentation: dict[str, Any], reason: str) -> None:
    """pycocotools answers the short ones with what lies beside them in memory."""
    with pytest.raises(DataError, match=reason):
        fill_rle(np.zeros((6, 8), bool), segmentation)


@pytest.fixture
def coco(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    def write(document: dict[str, Any]) -> Path:
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(document))
        return path

    return write


def test_a_mask_is_the_union_of_the_chosen_annotations(coco: Callable[..., Path]) -> None:
    path = coco(DOCUMENT)
    wheel, door = (_polygon_oracle(DOCUMENT["annotations"][index]["segmentation"][0], (6, 8)) for index in (0, 1))
    everything, chosen, both = open_masks(path), open_masks(path, ["wheel"]), open_masks(path, ["door", "wheel"])
    assert everything.ids == chosen.ids == ("a_01", "b_01", "empty")
    np.testing.assert_array_equal(everything.read("b_01", Size(6, 8)), wheel | door)  # less the background
    np.testing.assert_array_equal(both.read("b_01", Size(6, 8)), wheel | door)
    np.testing.assert_array_equal(chosen.read("b_01", Size(6, 8)), wheel)
    assert everything.read("a_01", Size(7, 9)).sum() == 12 + 6
    assert "all categories but the background" in everything.describe
    assert chosen.describe.endswith("wheel")


def test_an_image_without_a_chosen_annotation_has_an_empty_mask(coco: Callable[..., Path]) -> None:
    source = open_masks(coco(DOCUMENT), ["wheel"])
    for image_id, size in (("empty", Size(5, 5)), ("a_01", Size(7, 9))):
        mask = source.read(image_id, size)
        assert mask.shape == size
        assert mask.dtype == np.bool_
        assert not mask.any()


def test_a_file_whose_size_is_not_the_photos_is_refused(coco: Callable[..., Path]) -> None:
    source = open_masks(coco(DOCUMENT))
    with pytest.raises(DataError, match=r"'b_01' in .* is 6x8, its photo is 12x16"):
        source.read("b_01", Size(12, 16))
    with pytest.raises(DataError, match="turned"):
        source.read("b_01", Size(8, 6))
    with pytest.raises(DataError, match="'c' is not in"):
        source.read("c", Size(8, 6))


def test_an_unknown_category_is_answered_with_the_nearest(coco: Callable[..., Path]) -> None:
    path = coco(DOCUMENT)
    with pytest.raises(UsageError, match="no category 'wheels': did you mean 'wheel'"):
        open_masks(path, ["wheels"])
    with pytest.raises(UsageError, match="it has _background_, wheel, door"):
        open_masks(path, ["sunroof"])


def test_an_outline_that_cannot_be_drawn_names_annotation_and_image(coco: Callable[..., Path]) -> None:
    document = copy.deepcopy(DOCUMENT)
    document["annotations"][0]["segmentation"] = [[1, 2, 3]]
    source = open_masks(coco(document))
    with pytest.raises(DataError, match=r"annotations\[0\] \(id 1\) of image 'b_01': an outline"):
        source.read("b_01", Size(6, 8))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.pop("images"), "'images', a list of objects"),
        (lambda d: d.update(annotations={}), "'annotations', a list of objects"),
        (lambda d: d.update(categories=[1]), "'categories', a list of objects"),
        (lambda d: d.update(images=[]), "has no images"),
        (lambda d: d["images"][1].pop("id"), r"images\[1\] needs id, .* None"),
        (lambda d: d["images"][1].update(file_name=5), r"images\[1\] needs file_name, and has 5"),
        (lambda d: d["images"][1].update(file_name="a\\b.jpg"), r"images\[1\]: image id"),
        (lambda d: d["images"][1].update(width=0), r"images\[1\] needs width"),
        (lambda d: d["images"][1].update(height="7"), r"images\[1\] needs height"),
        (lambda d: d["images"][1].update(id=7), r"images\[1\] .* twice"),
        (lambda d: d["images"][1].update(file_name="other/b_01.png"), r"images\[1\] \('b_01', id 3\) .* twice"),
        (lambda d: d["categories"][1].update(id=5), r"categories\[2\] has id 5, which another"),
        (lambda d: d["categories"][1].pop("name"), r"categories\[1\] has no text"),
        (lambda d: d["annotations"][2].update(image_id=99), r"annotations\[2\] \(id 3\) has image_id 99"),
        (lambda d: d["annotations"][2].update(category_id=99), r"annotations\[2\] .* category_id 99"),
        (lambda d: d["annotations"][2].update(category_id=True), "needs category_id"),
        (lambda d: d["annotations"][1].update(segmentation=[]), r"annotations\[1\] .* no outline .* a box alone"),
        (lambda d: d["annotations"][1].pop("segmentation"), r"annotations\[1\] .* no outline"),
    ],
)
def test_a_file_that_breaks_the_schema_is_refused(
    coco: Callable[..., Path], change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    document = copy.deepcopy(DOCUMENT)
    change(document)
    path = coco(document)
    with pytest.raises(DataError, match=reason) as caught:
        open_masks(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_coco_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json is no"):
        open_masks(path)


@pytest.mark.real
@pytest.mark.parametrize("categories", [(), ("wheel",)])
def test_the_real_car_parts_equal_pycocotools_in_every_pixel(real: Path, categories: tuple[str, ...]) -> None:
    path = real / "carparts" / "annotations.json"
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    chosen = [number for number, entry in coco.cats.items() if entry["name"] in categories]
    chosen = chosen or [number for number, entry in coco.cats.items() if entry["name"] != "_background_"]
    source = open_masks(path, categories)
    assert len(source.ids) == 400
    for entry in coco.imgs.values():
        expected = np.zeros((512, 512), bool)
        for annotation in coco.loadAnns(coco.getAnnIds(entry["id"], chosen)):
            expected |= coco.annToMask(annotation).astype(bool)
        got = source.read(entry["file_name"].removesuffix(".jpg"), Size(512, 512))
        assert (got != expected).sum() == 0, entry["file_name"]
