from __future__ import annotations

import numpy as np
import pytest

from carvana_ens.core.rle import rle_decode, rle_encode
from carvana_ens.core.rle_batch import rle_decode_many, rle_encode_many
from carvana_ens.errors import RLEError, UsageError
from carvana_ens.types import Size

THREADS = [1, 2, 3, 16]


def random_masks(count, size):
    """(N, H, W), from empty to full."""
    rng = np.random.default_rng([count, *size])
    return rng.random((count, *size)) < np.linspace(0, 1, count)[:, None, None]


@pytest.mark.parametrize("threads", THREADS)
def test_many_masks_of_any_sizes_equal_one_by_one(reference, threads):
    masks = list(reference.corner_masks().values())
    expected = [reference.write_runs(mask.reshape(-1)) for mask in masks]
    assert rle_encode_many(masks, threads) == expected
    assert rle_encode_many(iter(masks), threads) == expected


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("count", [0, 1, 2, 7, 130])
def test_many_masks_of_one_size_come_back(count, threads):
    masks = random_masks(count, (13, 29))
    texts = rle_encode_many(masks, threads)
    assert texts == [rle_encode(mask) for mask in masks]
    for given in (texts, iter(texts), np.array(texts, object)):
        decoded = rle_decode_many(given, Size(13, 29), threads)
        assert decoded.dtype == np.bool_
        assert decoded.shape == masks.shape
        assert decoded.flags.c_contiguous
        assert np.array_equal(decoded, masks)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize(
    ("bad", "got"),
    [(np.zeros((2, 2), np.uint8), r"uint8 \(2, 2\)"), (np.ones(3, np.bool_), r"bool \(3,\)"), (None, "NoneType")],
)
def test_the_first_bad_mask_is_named(threads, bad, got):
    masks = [*random_masks(40, (5, 4)), bad, np.ones((2, 2), np.bool_), "text"]
    with pytest.raises(UsageError, match=rf"^masks\[40\]: a mask is a bool array \(H, W\) .*, got {got}"):
        rle_encode_many(masks, threads)


def test_one_mask_in_the_place_of_many_is_refused():
    with pytest.raises(UsageError, match=r"masks\[0\]: .* got bool \(4,\)"):
        rle_encode_many(np.zeros((5, 4), np.bool_))


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("where", [0, 1, 20, 56])
def test_the_first_bad_text_is_named(threads, where):
    """Also where later ones are bad too, which another thread may meet earlier."""
    texts = ["1 2"] * where + ["1 2 3"] + ["1 5"] * 3 + ["2 1", float("nan"), "0 1", "x"] * 5
    with pytest.raises(
        RLEError, match=rf"^texts\[{where}\]: RLE has an odd count of numbers: run 2 starts at 3"
    ) as caught:
        rle_decode_many(texts, Size(2, 3), threads)
    assert isinstance(caught.value.__cause__, RLEError)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(UsageError, match="takes a list of texts, got one text"):
        rle_decode_many("1 2", Size(2, 3))
    for texts in ([], ["1 1"]):
        with pytest.raises(UsageError, match="size 0x3 is no picture's"):
            rle_decode_many(texts, Size(0, 3))
        with pytest.raises(UsageError, match="0 threads can do no work"):
            rle_decode_many(texts, Size(2, 3), 0)
    with pytest.raises(UsageError, match="-1 threads can do no work"):
        rle_encode_many([], -1)


@pytest.mark.real
@pytest.mark.parametrize("threads", [1, 2])
def test_real_masks(real_masks, reference, threads):
    masks = np.stack(list(real_masks.values()))
    texts = rle_encode_many(masks, threads)
    assert texts == [reference.write_runs(mask.reshape(-1)) for mask in masks]
    decoded = rle_decode_many(texts, Size(*masks.shape[1:]), threads)
    assert np.array_equal(decoded, masks)
    assert np.array_equal(decoded[3], rle_decode(texts[3], Size(*masks.shape[1:])))
