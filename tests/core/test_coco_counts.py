from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

import carvana_ens
from carvana_ens.core import rle_kernels
from carvana_ens.core.coco_counts import coco_counts, coco_decode, coco_encode
from carvana_ens.core.rle import mask_bits
from carvana_ens.errors import RLEError, UsageError

# pycocotools 2.0.11 calls numpy the old way when it decodes.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24))


def assert_coco_agrees(mask):
    """Both forms, both ways, beside pycocotools."""
    size = list(mask.shape)
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours, counts = coco_encode(mask), coco_counts(mask)
    assert ours == theirs
    assert coco.frPyObjects({"size": size, "counts": counts}, *size) == theirs
    assert np.array_equal(coco.decode(ours).astype(bool), mask)
    for form in (theirs["counts"], theirs["counts"].decode(), counts):
        decoded = coco_decode({"size": size, "counts": form})
        assert decoded.dtype == np.bool_
        assert decoded.flags.c_contiguous
        assert np.array_equal(decoded, mask)


def test_known_counts():
    """The examples of pycocotools' own documentation, and its text by hand."""
    assert coco_counts(np.array([[0, 0, 1, 1, 1, 0, 1]], np.bool_).T) == [2, 3, 1, 1]
    assert coco_counts(np.array([[1, 1, 1, 1, 1, 1, 0]], np.bool_)) == [0, 6, 1]
    mask = np.zeros((3, 4), np.bool_)
    mask[1:, 1] = mask[0, 2] = mask[2, 3] = True
    assert coco_counts(mask) == [4, 3, 4, 1]
    assert coco_encode(mask) == {"size": [3, 4], "counts": b"434N"}  # the last one is 1 - 3 = -2, 11110
    assert coco_encode(np.ones((40, 30), np.bool_))["counts"] == b"0`U1"  # 1200 = 1 00101 10000


def test_corner_masks_equal_the_twins_and_coco(reference):
    for name, mask in reference.corner_masks().items():
        counts = reference.column_counts(mask)
        text = reference.write_counts(counts)
        assert coco_counts(mask) == counts, name
        assert coco_encode(mask) == {"size": list(mask.shape), "counts": text.encode()}, name
        assert reference.read_counts(text, mask.size) == counts, name
        assert np.array_equal(reference.fill_columns(counts, mask.shape), mask), name
        assert_coco_agrees(mask)


def test_edges_of_columns_equal_the_twin(reference):
    for name, mask in reference.corner_masks().items():
        height, width = mask.shape
        bits = mask_bits(mask)
        edges, tally = np.full(bits.size, 2**64 - 1, np.uint64), np.full(width, 7)
        found = rle_kernels.column_edges(bits, height, width, edges, tally)
        expected, by_column = reference.column_edges(mask)
        assert np.array_equal(edges, reference.bits_of(expected.reshape(-1))), name
        assert np.array_equal(tally, by_column), name
        assert found == expected.sum(), name


def test_any_mask_comes_back_and_equals_coco():
    @given(MASKS)
    @settings(deadline=None, max_examples=300)
    def check(mask):
        assert_coco_agrees(mask)

    check()


@pytest.mark.parametrize(("height", "width"), [(1280, 1918), (1, 70_000), (70_000, 1), (64, 640), (641, 63)])
@pytest.mark.parametrize("kind", ["empty", "full", "rows", "columns", "board", "one", "noise", "few", "left half"])
def test_large_masks_equal_coco(height, width, kind):
    y, x = np.ogrid[:height, :width]
    rng = np.random.default_rng([height, width])
    mask = {
        "empty": lambda: np.zeros((height, width), np.bool_),
        "full": lambda: np.ones((height, width), np.bool_),
        "rows": lambda: (y % 2 == 0) & (x >= 0),
        "columns": lambda: (x % 2 == 0) & (y >= 0),
        "board": lambda: (x + y) % 2 == 0,
        "one": lambda: (y == height // 3) & (x == width // 3),
        "noise": lambda: rng.random((height, width)) < 0.5,
        "few": lambda: rng.random((height, width)) < 0.001,
        "left half": lambda: (x < width // 2) & (y >= 0),
    }[kind]()
    assert_coco_agrees(mask)


@pytest.mark.parametrize("order", ["by columns", "transposed", "flipped", "turned", "every second", "a channel"])
def test_masks_need_not_lie_row_by_row(order):
    mask = np.random.default_rng(5).random((70, 40)) < 0.5
    view = {
        "by columns": np.asfortranarray(mask),
        "transposed": mask.T,
        "flipped": mask[:, ::-1],
        "turned": mask[::-1, ::-1],
        "every second": mask[::2, ::2],
        "a channel": np.stack([mask, ~mask], -1)[..., 1],
    }[order]
    assert_coco_agrees(view)


def test_runs_of_length_0_are_read_as_coco_reads_them():
    for counts in (
        [0, 0, 5, 0, 0, 3, 0, 2, 2, 0],
        [3, 0, 1, 4, 0, 4],
        [0, 12, 0],
        [12, 0],
        [0, 0, 0, 3, 0, 3, 6, 0, 0],
    ):
        packed = coco.frPyObjects({"size": [4, 3], "counts": counts}, 4, 3)
        for form in (counts, packed["counts"]):
            assert np.array_equal(coco_decode({"size": [4, 3], "counts": form}), coco.decode(packed)), counts


def test_what_is_encoded_goes_through_json():
    mask = np.random.default_rng(8).random((30, 20)) < 0.3
    encoded = coco_encode(mask)
    encoded["counts"] = encoded["counts"].decode("ascii")
    for rle in (encoded, {"size": mask.shape, "counts": coco_counts(mask)}):
        assert np.array_equal(coco_decode(json.loads(json.dumps(rle))), mask)


def test_threads_do_not_share_memory():
    rng = np.random.default_rng(3)
    masks = [rng.random((height, 300)) < 0.2 for height in range(100, 160)]
    expected = [coco.encode(np.asfortranarray(mask.view(np.uint8))) for mask in masks]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(coco_encode, masks)) == expected
        decoded = list(pool.map(coco_decode, expected))
    assert all(np.array_equal(got, mask) for got, mask in zip(decoded, masks, strict=True))


def test_any_text_is_read_as_the_rules_say_or_refused(reference):
    pieces = st.lists(st.sampled_from([*"0123456789:?@NOPQao", "/", "p", " ", "é", "P" * 11, "P" * 12]), max_size=9)
    # Sizes that fit what a twin makes of the text are drawn too, so that many texts are sound.
    numbers = st.lists(st.integers(0, 40), min_size=1, max_size=9)
    sound = numbers.map(lambda counts: (reference.write_counts(counts), sum(counts)))
    damaged = st.tuples(sound, st.integers(0, 30), st.sampled_from(["", *"0OPo"])).map(
        lambda drawn: (drawn[0][0][: drawn[1]] + drawn[2] + drawn[0][0][drawn[1] + 1 :], drawn[0][1])
    )
    texts = st.one_of(
        sound, damaged, st.tuples(pieces.map("".join), st.integers(1, 60)), st.tuples(st.text(max_size=9), st.just(12))
    )
    seen = {"read": 0, "refused": 0}

    @given(texts)
    @settings(deadline=None, max_examples=1500, derandomize=True)
    def check(drawn):
        text, pixels = drawn
        pixels = max(pixels, 1)
        expected = reference.read_counts(text, pixels)
        for form in (text, text.encode("utf-8", "surrogatepass")):
            rle = {"size": [1, pixels], "counts": form}
            if expected is None:
                seen["refused"] += 1
                with pytest.raises(RLEError) as caught:
                    coco_decode(rle)
                assert "\n" not in str(caught.value)
            else:
                seen["read"] += 1
                assert np.array_equal(coco_decode(rle), reference.fill_columns(expected, (1, pixels)))

    check()
    assert min(seen.values()) > 100


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([40, -2, 10], "COCO count 2 is -2: run lengths are whole numbers"),
        ([40.0, 8.0], "count 1 is 40.0"),
        ([True, 47], "count 1 is True"),
        ([40, None], "count 2 is None"),
        ([np.int64(48)], "count 1 is .*48"),
        ([47], "sum to 47 pixels by count 1, a picture of 6x8 has 48"),
        ([40, 3, 6], "sum to 49 pixels by count 3"),
        ([], "sum to 0 pixels by count 0"),
        ([10**30], "sum to 1000000000000000000000000000000 pixels"),
        ((48,), "COCO counts are of type tuple: give a list of run lengths, or the compressed text"),
        (np.array([48]), "of type ndarray"),
        (None, "of type NoneType"),
        (48, "of type int"),
        ("", "sum to 0 pixels by count 0"),
        ("0", "sum to 0 pixels by count 1"),
        ("_1", "sum to 47 pixels by count 1"),
        ("a1", "sum to 49 pixels by count 1"),
        ("oooooooooooO", "count 1 is -1: run lengths"),
        ("ooooooooooo7", "sum to 288230376151711743 pixels by count 1"),
        ("8ooooooooooo7", "sum to 288230376151711751 pixels by count 2"),
        ("O", "count 1 is -1"),
        ("345K", "count 4 is -1: run"),
        ("P", r"end in the middle of a number \(count 1\)"),
        ("`1`", r"end in the middle of a number \(count 2\)"),
        ("0" + "P" * 12 + "0", r"no COCO text: count 2 goes on after 12 characters"),
        ("o" * 5000, r"no COCO text: count 1 goes on after 12"),
        ("0/", r"character '/' at place 2 \(count 2\) is not between '0' and 'o'"),
        ("p", "character 'p' at place 1"),
        ("00 1", "character ' ' at place 3"),
        ("1 48", "character ' ' at place 2"),
        ("0\u00e9", "character '\u00e9' at place 2"),
        ("00\N{PILE OF POO}", "character '\N{PILE OF POO}' at place 3"),
        ("0\udc80", "at place 2"),
        ("0\0", r"character '\\x00' at place 2"),
        (b"0\xff1", "at place 2"),
        (b"0\n", r"character '\\n' at place 2"),
    ],
)
def test_damaged_counts_are_refused(counts, message):
    """pycocotools fills those that sum to less up with what lies in memory."""
    with pytest.raises(RLEError, match=message) as caught:
        coco_decode({"size": [6, 8], "counts": counts})
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "size", [None, 48, [48], [6, 8, 1], "68", [6.0, 8.0], [True, 48], [0, 48], [-6, -8], [10**9, 10**9], {6: 8}]
)
def test_sizes_of_no_picture_are_refused(size):
    with pytest.raises(RLEError, match=r"COCO size is .*: it must be"):
        coco_decode({"size": size, "counts": [48]})
    with pytest.raises(RLEError, match="COCO size is None"):
        coco_decode({"counts": [48]})


@pytest.mark.parametrize("rle", [None, "434N", b"434N", [4, 3, 4, 1], ([3, 4], [12])])
def test_what_is_no_encoding_is_refused(rle):
    with pytest.raises(RLEError, match="a COCO encoding is"):
        coco_decode(rle)


@pytest.mark.parametrize(
    "mask", [np.zeros((2, 2), np.uint8), np.zeros(4, np.bool_), np.zeros((0, 4), np.bool_), [[True]], None]
)
def test_what_is_no_mask_is_refused(mask):
    for encode in (coco_counts, coco_encode):
        with pytest.raises(UsageError, match="a mask is a bool array"):
            encode(mask)


def test_without_the_compiler_the_answers_are_the_same():
    script = """
import numpy as np
from carvana_ens.core.coco_counts import coco_counts, coco_decode, coco_encode
rng = np.random.default_rng(0)
for size in ((9, 21), (1, 130), (130, 1), (64, 3), (3, 64), (1, 1)):
    for share in (0, 0.5, 1):
        mask = rng.random(size) < share
        rle = coco_encode(mask)
        assert np.array_equal(coco_decode(rle), mask)
        assert np.array_equal(coco_decode({**rle, "counts": coco_counts(mask)}), mask)
        print(rle["counts"].decode())
"""
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "CARVANA_ENS_"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={**keep, "PYTHONPATH": str(Path(carvana_ens.__file__).parents[1]), "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rng = np.random.default_rng(0)
    masks = [
        rng.random(size) < share
        for size in ((9, 21), (1, 130), (130, 1), (64, 3), (3, 64), (1, 1))
        for share in (0, 0.5, 1)
    ]
    assert done.stdout.split() == [
        coco.encode(np.asfortranarray(mask.view(np.uint8)))["counts"].decode() for mask in masks
    ]


@pytest.mark.real
def test_real_masks(real_masks):
    assert len(real_masks) == 32
    for mask in real_masks.values():
        assert_coco_agrees(mask)


@pytest.mark.real
def test_all_real_car_parts():
    """Every annotation as pycocotools encodes its outlines, which may cross and touch."""
    if "CARVANA_ENS_DATA" not in os.environ:
        pytest.skip("the car parts are not here: set CARVANA_ENS_DATA")
    path = Path(os.environ["CARVANA_ENS_DATA"]) / "carparts" / "annotations.json"
    document = json.loads(path.read_text())
    sizes = {entry["id"]: (entry["height"], entry["width"]) for entry in document["images"]}
    assert len(sizes) == 400
    for entry in document["annotations"]:
        size = sizes[entry["image_id"]]
        theirs = coco.merge(coco.frPyObjects(entry["segmentation"], *size))
        mask = coco_decode(theirs)
        assert np.array_equal(mask, coco.decode(theirs)), entry["id"]
        assert coco_encode(mask) == theirs, entry["id"]
        assert coco.frPyObjects({"size": list(size), "counts": coco_counts(mask)}, *size) == theirs, entry["id"]
