"""Blends of stores, against whole numbers in plain numpy."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from carvana_ens.ensemble.blending import Blend, blend, exact_weights
from carvana_ens.errors import StoreError, UsageError

SIZES = {"one": (20, 31), "row": (1, 9), "column": (13, 1), "dot": (1, 1)}


def maps(seed, dtype=np.uint8):
    """Codes of images of several sizes; many on the cut, all levels of uint8 among them."""
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    found = {name: rng.integers(0, top, size, dtype=dtype, endpoint=True) for name, size in SIZES.items()}
    if dtype == np.uint8:
        found["one"].ravel()[:256] = np.arange(256)
    return found


@pytest.mark.parametrize("threshold", ["0.5", "128/255", "1", "1/255", "0.001", "1/3", "0.9999"])
@pytest.mark.parametrize("weights", ["equal", "a=2,b=1,c=1", "a=1/3,b=0.5,c=0", "a=0,b=1,c=0", "a=1e-3,b=1,c=7"])
def test_masks_equal_whole_numbers(store, oracle, weights, threshold):
    codes = {name: maps(seed) for seed, name in enumerate("abc")}
    given = {"a": "1", "b": "1", "c": "1"} if weights == "equal" else dict(w.split("=") for w in weights.split(","))
    found = Blend({n: store(n, m) for n, m in codes.items()}, weights, threshold)
    assert found.ids == tuple(SIZES)
    for image_id, mask in found:
        expected = oracle.naive_blend(
            [codes[n][image_id] for n in "abc"], [Fraction(given[n]) for n in "abc"], Fraction(threshold)
        )
        assert mask.shape == SIZES[image_id]
        assert np.array_equal(mask, expected)
        assert found.rle(image_id).decode() == oracle.naive_rle(expected)


def test_uint8_and_uint16_are_one_scale(store, oracle):
    narrow, wide = maps(1), maps(2, np.uint16)
    found = Blend({"n": store("n", narrow), "w": store("w", wide)}, "n=2,w=3", "0.4")
    for image_id, mask in found:
        pair = [narrow[image_id].astype(np.int64) * 257, wide[image_id]]
        expected = oracle.naive_blend(pair, [Fraction(2), Fraction(3)], Fraction(2, 5), 65535)
        assert np.array_equal(mask, expected)


def test_order_and_scale_of_weights_do_not_matter(store):
    stores = {name: store(name, maps(seed)) for seed, name in enumerate("abc")}
    turned = dict(reversed(stores.items()))
    texts = ["a=2,b=1,c=3", "c=3,b=1,a=2", "a=4,b=2,c=6", "a=0.5,b=0.25,c=0.75", "a=2/7,b=1/7,c=3/7"]
    results = [
        [blend(some, text, "0.5").rle(image_id) for image_id in SIZES] for some in (stores, turned) for text in texts
    ]
    assert all(result == results[0] for result in results)
    mapping = Blend(stores, {"b": Fraction(1), "a": 2, "c": "3"}, Fraction(1, 2))
    assert [mapping.rle(image_id) for image_id in SIZES] == results[0]
    assert len(mapping) == len(SIZES)


def test_members_of_weight_zero_are_not_read(store):
    stores = {"a": store("a", maps(1)), "b": store("b", maps(2), leave=("row",))}
    found = Blend(stores, "a=1,b=0")
    assert found.weights == {"a": 1}
    with pytest.raises(StoreError, match=r"b\.zarr lacks 1 of 4 maps, first row"):
        Blend(stores, "a=1,b=1")


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ("a=1,bb=1", "did you mean 'b'|there are: a, b"),
        ("z=1", "there are: a, b"),
        ("a=-1,b=2", "'a' is -1"),
        ("a=0,b=0", "all weights are 0"),
        ("a=nan,b=1", "'nan'"),
        ("a=1,a=2", "'a' twice"),
        ("a", "not name=weight"),
        ("", "no weights"),
        ({}, "no weights"),
        ({"a": -1}, "-1"),
    ],
)
def test_weights_that_cannot_be_meant(weights, told):
    with pytest.raises(UsageError, match=told):
        exact_weights(["a", "b"], weights)


@pytest.mark.parametrize("threshold", ["0", "-0.5", "1.5", "256/255", "nan", "half", "", "1/0", True, float("inf")])
def test_thresholds_that_cannot_be_meant(store, threshold):
    with pytest.raises(UsageError, match="threshold"):
        Blend({"a": store("a", maps(1))}, "equal", threshold)


def test_stores_that_differ_are_named(store):
    plain = store("plain", maps(1))
    fewer = {name: codes for name, codes in maps(2).items() if name != "dot"}
    with pytest.raises(StoreError, match=r"fewer\.zarr .*have other images, 1 .*first dot"):
        Blend({"fewer": store("fewer", fewer), "plain": plain})
    with pytest.raises(StoreError, match="another order"):
        Blend({"turned": store("turned", dict(reversed(maps(2).items()))), "plain": plain})
    sized = {**maps(2), "row": np.zeros((1, 8), np.uint8)}
    with pytest.raises(StoreError, match=r"image row as 1x8, .*plain\.zarr as 1x9|image row as 1x9, .* as 1x8"):
        Blend({"sized": store("sized", sized), "plain": plain})
    with pytest.raises(UsageError, match="at least one member"):
        Blend({})


def test_a_weight_too_small_for_its_share_is_said_to_count_as_nothing():
    said = []
    assert exact_weights(["a", "b"], "a=1000000,b=1", said.append) == {"a": 1}
    assert said == ["warning: the weight of b is under 1/65536 of the sum and counts as 0"]
    assert exact_weights(["a", "b"], "a=65535,b=1", said.append) == {"a": 65535, "b": 1}
    assert len(said) == 1
