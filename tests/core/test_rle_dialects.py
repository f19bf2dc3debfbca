"""Dialects beside pycocotools, Kaggle's own decoders written out, and a twin that looks at one pixel at a time."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn
from pycocotools import mask as theirs

from carvana_ens.core.rle_dialects import DIALECTS, find_dialect
from carvana_ens.errors import RLEError, UsageError
from carvana_ens.types import Size

NAMES = list(DIALECTS)
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def counts_of(flat):
    """Run lengths, background first."""
    found, current = [0], False
    for on in flat.tolist():
        if on != current:
            found.append(0)
            current = on
        found[-1] += 1
    return found


def pairs_of(flat):
    runs = []
    for place, on in enumerate(flat.tolist(), start=1):
        if on and runs and sum(runs[-1]) == place:
            runs[-1][1] += 1
        elif on:
            runs.append([place, 1])
    return " ".join(f"{start} {length}" for start, length in runs)


def gaps_of(flat):
    """Pixel by pixel: background since the last run, and the length of each run, the one at the end too."""
    words, gap, length = [], 0, 0
    for on in [*flat.tolist(), False]:
        if on:
            length += 1
        elif length:
            words += [gap, length]
            gap, length = 1, 0
        else:
            gap += 1
    return " ".join(map(str, words)) or "-1"


def siim(text, width, height):
    """The organisers' rle2mask of SIIM-ACR Pneumothorax; they show its transpose."""
    mask = np.zeros(width * height)
    if text != "-1":
        numbers = np.asarray([int(word) for word in text.split()])
        place = 0
        for start, length in zip(numbers[0::2], numbers[1::2], strict=True):
            place += start
            mask[place : place + length] = 255
            place += length
    return mask.reshape(width, height).T > 0


TWINS = {
    "carvana": lambda mask: pairs_of(mask.ravel()),
    "column-major": lambda mask: pairs_of(mask.T.ravel()),
    "relative": lambda mask: gaps_of(mask.T.ravel()),
    "coco-uncompressed": lambda mask: " ".join(map(str, counts_of(mask.T.ravel()))),
    "coco-compressed": lambda mask: theirs.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode(),
}


def corners():
    for shape in ((1, 1), (1, 70), (70, 1), (3, 5), (64, 2), (2, 65)):
        empty = np.zeros(shape, bool)
        first, last, across = empty.copy(), empty.copy(), empty.copy()
        first[0, 0] = last[-1, -1] = True
        across[:, ::2] = True
        yield from (
            empty,
            ~empty,
            first,
            last,
            first | last,
            ~first,
            ~last,
            across,
            empty | (np.indices(shape)[0] % 2 == 0),
        )


def check(name, mask):
    dialect = DIALECTS[name]
    text = dialect.encode(mask)
    assert text == TWINS[name](mask)
    back = dialect.decode(text, Size(*mask.shape))
    assert back.dtype == np.bool_
    assert np.array_equal(back, mask)


@pytest.mark.parametrize("name", NAMES)
def test_corners(name):
    for mask in corners():
        check(name, mask)


@pytest.mark.parametrize("name", NAMES)
@given(mask=drawn.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 70))))
def test_any_mask(name, mask):
    check(name, mask)
    check(name, np.asfortranarray(mask))


def test_relative_is_what_its_organisers_decode():
    for mask in corners():
        assert np.array_equal(siim(DIALECTS["relative"].encode(mask), mask.shape[1], mask.shape[0]), mask)


def test_coco_texts_are_read_by_pycocotools():
    for mask in corners():
        size = list(mask.shape)
        compressed = DIALECTS["coco-compressed"].encode(mask)
        counts = json.loads(f"[{DIALECTS['coco-uncompressed'].encode(mask).replace(' ', ',')}]")
        plain = theirs.frPyObjects({"size": size, "counts": counts}, *size)
        for rle in ({"size": size, "counts": compressed}, plain):
            assert np.array_equal(theirs.decode(rle), mask)


def test_known_texts():
    """Kaggle's own examples read as rows and as columns."""
    mask = DIALECTS["carvana"].decode("1 3 10 2", Size(3, 4))
    assert mask.astype(int).tolist() == [[1, 1, 1, 0], [0, 0, 0, 0], [0, 1, 1, 0]]
    mask = DIALECTS["column-major"].decode("1 3 10 2", Size(3, 4))
    assert mask.astype(int).tolist() == [[1, 0, 0, 1], [1, 0, 0, 1], [1, 0, 0, 0]]
    mask = DIALECTS["relative"].decode("1 2 3 1", Size(3, 4))
    assert mask.astype(int).tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("column-major", "10 4", "4 columns of 3"),
        ("column-major", "5", "no length"),
        ("relative", "", "-1"),
        ("relative", " -1", "' '"),
        ("relative", "-1 2", "'-'"),
        ("relative", "1 2 3", "run 2 has no length"),
        ("relative", "1 0", "length 0"),
        ("relative", "10 3", "13"),
        ("relative", "1  2", "'  ' at character 2"),
        ("relative", "1 2\n", "character 4"),
        ("relative", "1 " + "9" * 5000, "5000 digits"),
        ("relative", "٣ 1", "character 1"),
        ("coco-uncompressed", "", "empty"),
        ("coco-uncompressed", "5 6", "11"),
        ("coco-uncompressed", "5 8", "13"),
        ("coco-uncompressed", "5,7", "','"),
        ("coco-compressed", "", "0 pixels"),
        ("coco-compressed", "5 7", "' '"),
        ("coco-compressed", "1", "1 pixels"),
    ],
)
def test_what_breaks_the_rules_is_named(name, text, told):
    with pytest.raises(RLEError) as error:
        DIALECTS[name].decode(text, Size(3, 4))
    assert told in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_no_mask_and_no_size(name):
    with pytest.raises(UsageError, match="bool array"):
        DIALECTS[name].encode(np.zeros((3, 4), np.uint8))
    with pytest.raises((UsageError, RLEError)):
        DIALECTS[name].decode("1 1", Size(0, 4))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", [None, 3, b"1 1"])
def test_no_text(name, text):
    with pytest.raises(RLEError):
        DIALECTS[name].decode(text, Size(3, 4))


def test_unknown_names():
    with pytest.raises(UsageError, match="did you mean 'column-major'"):
        find_dialect("colum-major")
    with pytest.raises(UsageError, match="coco-compressed"):
        find_dialect("zzz")
