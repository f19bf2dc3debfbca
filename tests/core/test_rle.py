from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from carvana_ens.core import rle_kernels as kernels
from carvana_ens.core.rle import (
    bits_mask,
    mask_bits,
    rle_area,
    rle_decode,
    rle_encode,
    rle_encode_bits,
    rle_encode_bits_bytes,
)
from carvana_ens.errors import DataError, RLEError, UsageError
from carvana_ens.types import Size

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24))


def coco_counts(text, mask):
    """The runs of a text as COCO counts (lengths of off, on, off, ... over all pixels), packed by pycocotools."""
    counts, end = [], 0
    numbers = [int(token) for token in text.split()]
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        counts += [start - 1 - end, length]
        end = start - 1 + length
    if end < mask.size:
        counts.append(mask.size - end)
    height, width = mask.shape
    return coco.frPyObjects({"counts": counts, "size": [width, height]}, width, height)


def assert_coco_agrees(mask):
    # COCO runs down the columns, so the transposed mask has our order.
    columns = np.asfortranarray(mask.T.astype(np.uint8))
    ours = coco_counts(rle_encode(mask), mask)
    assert ours["counts"] == coco.encode(columns)["counts"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools with numpy 2
        assert np.array_equal(coco.decode(ours).T.astype(bool), mask)
    assert rle_area(rle_encode(mask), mask.shape) == coco.area(ours)


def test_known_texts():
    mask = np.zeros((3, 4), np.bool_)
    assert rle_encode(mask) == ""
    mask[0, 0] = mask[0, 3] = mask[1, 0] = mask[2, 3] = True
    assert rle_encode(mask) == "1 1 4 2 12 1"
    assert rle_encode(np.ones((3, 4), np.bool_)) == "1 12"


def test_corner_masks_equal_the_twin(reference):
    for name, mask in reference.corner_masks().items():
        flat = mask.reshape(-1)
        text = reference.write_runs(flat)
        bits = mask_bits(mask)
        assert rle_encode(mask) == text, name
        assert np.array_equal(bits, reference.bits_of(flat)), name
        assert rle_encode_bits(bits, mask.size) == text, name
        assert rle_encode_bits_bytes(bits, mask.size) == text.encode(), name
        assert np.array_equal(bits_mask(bits, Size(*mask.shape)), mask), name
        assert np.array_equal(rle_decode(text, Size(*mask.shape)), mask), name
        assert rle_area(text, Size(*mask.shape)) == mask.sum(), name


def test_corner_masks_agree_with_coco(reference):
    for mask in reference.corner_masks().values():
        assert_coco_agrees(mask)


def test_decoding_a_written_text_gives_the_mask_back():
    @given(MASKS)
    @settings(deadline=None)
    def check(mask):
        assert np.array_equal(rle_decode(rle_encode(mask), Size(*mask.shape)), mask)
        assert_coco_agrees(mask)

    check()


@pytest.mark.parametrize("order", ["transposed", "flipped", "every second", "turned", "a channel"])
def test_masks_need_not_lie_row_by_row(reference, order):
    mask = np.random.default_rng(5).random((37, 20)) < 0.5
    view = {
        "transposed": mask.T,
        "flipped": mask[:, ::-1],
        "every second": mask[::2, ::2],
        "turned": mask[::-1, ::-1],
        "a channel": np.stack([mask, ~mask], -1)[..., 1],
    }[order]
    assert rle_encode(view) == reference.write_runs(view.copy().reshape(-1))
    assert np.array_equal(mask_bits(view), reference.bits_of(view.copy().reshape(-1)))


def test_numbers_of_every_length(reference):
    mask = np.zeros((10, 120_001), np.bool_)
    for first in (8, 98, 998, 9_998, 99_998, 999_998):
        mask.reshape(-1)[first : first + 1] = True
        mask.reshape(-1)[first + 2 : first + 2 + first // 2] = True
    assert rle_encode(mask) == reference.write_runs(mask.reshape(-1))


def test_any_text_is_read_as_the_rules_say_or_refused(reference):
    pieces = st.sampled_from(["0", "1", "2", "7", "12", "30", " ", "  ", "-", "é", "\n", "nan", "9" * 30])
    numbers = st.lists(st.integers(0, 9), max_size=8).map(lambda steps: " ".join(map(str, np.cumsum(steps))))
    pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=6)

    def laid_out(steps):
        end, tokens = 0, []
        for gap, length in steps:
            tokens += [end + gap, length]  # gap 0 overlaps by a pixel, gap 1 touches
            end += gap + length - 1
        return " ".join(map(str, tokens))

    texts = st.one_of(st.lists(pieces, max_size=9).map("".join), numbers, pairs.map(laid_out), st.text(max_size=9))

    @given(texts)
    @settings(deadline=None, max_examples=400)
    def check(text):
        expected = reference.read_runs(text, 30)
        if expected is None:
            with pytest.raises(RLEError) as caught:
                rle_decode(text, Size(5, 6))
            assert "\n" not in str(caught.value)
        else:
            assert np.array_equal(rle_decode(text, Size(5, 6)).reshape(-1), reference.fill_runs(expected, 30))

    check()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1", "odd count of numbers: run 1 starts at 1 but has no length"),
        ("1 2 30", "odd count of numbers: run 2 starts at 30"),
        ("0 5", "run 1 starts at 0: pixels are counted from 1"),
        ("1 2 5 0", r"run 2 \(start 5\) has length 0"),
        ("1 2 8 5 10 3", "run 3 starts at 10 but run 2 ends at 12: runs must not overlap"),
        ("1 5 5 1", "run 2 starts at 5 but run 1 ends at 5"),
        ("10 3 1 2", "run 2 starts at 1 but run 1 ends at 12"),
        ("1 2 99 3", r"run 2 \(start 99, length 3\) ends past the last of the 100 pixels of 5x20"),
        ("101 1", r"run 1 \(start 101, length 1\) ends past the last"),
        ("1 " + "9" * 5000, r"run 1 \(start 1, length 999999999999999... \(5000 digits\)\) ends past the last"),
        ("9" * 5000 + " 1", r"run 1 \(start 999999999999999... \(5000 digits\), length 1\)"),
        ("18446744073709551617 1", "ends past the last"),
        ("9223372036854775807 9223372036854775807", "ends past the last"),
        ("-1 5", "character 1 is '-'"),
        ("1 +5", r"character 3 is '\+'"),
        ("nan", "character 1 is 'n'"),
        ("1 2\n", r"character 4 is '\\n' \(run 1\)"),
        ("1\t2", r"character 2 is '\\t'"),
        ("1 2.0", "character 4 is '.'"),
        ("1 2 \u0665 1", "character 5 is '\u0665'"),
        ("1 2 \ud800", r"character 5 is '\\ud800'"),
        ("1 2 \N{PILE OF POO}", "character 5 is"),
        ("1 2 ?", r"character 5 is '\?'"),
        (" 1 2", "starts with a space"),
        ("1 2 ", "ends with a space"),
        (" ", "starts with a space"),
        ("1  2", "two spaces in a row at character 3"),
        (float("nan"), "RLE is no text but nan"),
        (None, "RLE is no text but None"),
    ],
)
def test_broken_texts_are_refused_with_run_and_values(text, message):
    for read in (rle_decode, rle_area):
        with pytest.raises(RLEError, match=message) as caught:
            read(text, Size(5, 20))
        assert len(str(caught.value)) < 250


def test_touching_runs_and_leading_zeros_are_read():
    assert np.flatnonzero(rle_decode("1 2 3 2 007 1", Size(2, 5))).tolist() == [0, 1, 2, 3, 6]


@pytest.mark.parametrize(
    "mask", [np.zeros((2, 2), np.uint8), np.zeros(4, np.bool_), np.zeros((0, 4), np.bool_), [[True]], None]
)
def test_what_is_no_mask_is_refused(mask):
    with pytest.raises(UsageError, match="a mask is a bool array"):
        rle_encode(mask)


def test_bits_of_another_size_are_refused():
    bits = mask_bits(np.ones((8, 9), np.bool_))
    with pytest.raises(DataError, match="2 bit words do not hold 64 pixels: it takes 1"):
        rle_encode_bits(bits, 64)
    with pytest.raises(DataError, match="bits past the last of 71 pixels are set"):
        bits_mask(bits, Size(1, 71))
    with pytest.raises(UsageError, match="bits are contiguous uint64 words"):
        rle_encode_bits(bits.astype(np.int64), 72)


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (10**10, 10**10)])
def test_sizes_of_no_picture_are_refused(size):
    with pytest.raises(UsageError, match="is no picture's"):
        rle_decode("1 1", size)


@pytest.mark.real
def test_real_masks(real_masks, reference):
    assert len(real_masks) == 32
    for mask in real_masks.values():
        text = rle_encode(mask)
        assert text == reference.write_runs(mask.reshape(-1))
        assert np.array_equal(rle_decode(text, Size(*mask.shape)), mask)
        assert_coco_agrees(mask)


def test_numbers_of_any_length_are_written_in_digits():
    rng = np.random.default_rng(6)
    values = {*range(1, 1200), *(10**power + step for power in range(1, 17) for step in (-1, 0, 1)), 10**17 - 1}
    values |= {int(10 ** rng.uniform(0, 17)) for _ in range(3000)}
    text = np.empty(40, np.uint8)
    for value in sorted(values):
        end = kernels._write_number(value, text, 3)
        assert text[3:end].tobytes().decode() == f"{value} "


def test_a_text_with_little_room_is_refused_or_whole(reference):
    rng = np.random.default_rng(8)
    for flat in (rng.random(3000) < 0.5, np.arange(300) % 2 == 0, np.ones(70), np.zeros(70), np.arange(64) == 63):
        bits, expected = reference.bits_of(flat), reference.write_runs(flat)
        room = kernels.room_for(bits, flat.size)
        assert room == reference.room_for(flat)
        for size in {0, 1, len(expected), len(expected) + 8, room - 1, room}:
            text = np.full(size + 20, 7, np.uint8)
            length = kernels.write_runs(bits, flat.size, text[:size])
            assert (text[size:] == 7).all()
            assert text[:length].tobytes().decode() == expected if length >= 0 else size < room
