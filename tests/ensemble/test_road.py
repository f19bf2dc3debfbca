"""From stores to the .csv.gz and back: no pixel differs from whole numbers in numpy, whatever the threads."""

from __future__ import annotations

import gzip
import itertools
import math
import threading
from fractions import Fraction

import numpy as np
import pytest

from carvana_ens.ensemble.blending import Blend
from carvana_ens.ensemble.stack import MapStack
from carvana_ens.errors import StoreError
from carvana_ens.output.submission import write_submission

SIZES = [(40, 67), (33, 50), (40, 1), (1, 67), (7, 64), (40, 67), (20, 31), (1, 1), (39, 66), (8, 8), (13, 5)]
WEIGHTS = {
    "equal": {"a": 1, "b": 1, "c": 1, "d": 1},
    "a=7,b=1,c=2,d=1": {"a": 7, "b": 1, "c": 2, "d": 1},
    "a=0.0001,b=1,c=0.5,d=0.37": {"a": 1, "b": 10000, "c": 5000, "d": 3700},
    "a=3,b=0,c=1,d=0": {"a": 3, "b": 0, "c": 1, "d": 0},
}
THRESHOLDS = ["0.25", "0.37", "0.5", "0.62", "128/255"]
DTYPES = {
    "uint8": dict.fromkeys("abcd", np.uint8),
    "uint16": dict.fromkeys("abcd", np.uint16),
    "mixed": {"a": np.uint16, "b": np.uint8, "c": np.uint8, "d": np.uint16},
}


def member_maps(name, dtype):
    """Codes of images of several sizes: noise, and blobs that members agree on but for their rims."""
    rng = np.random.default_rng(ord(name))
    top = int(np.iinfo(dtype).max)
    maps = {}
    for number, size in enumerate(SIZES):
        image_id = f"car{number // 3}_{number:02d}"
        if number % 3 == 0:
            maps[image_id] = rng.integers(0, top, size, dtype, endpoint=True)
            continue
        y, x = np.indices(size)
        inside = 0.4 * min(size) - np.hypot(y - size[0] / 2, x - size[1] / 2)
        soft = np.clip(0.5 + (inside + rng.uniform(-1, 1)) / rng.uniform(1, 6), 0, 1)
        maps[image_id] = np.rint(soft * top).astype(dtype)
        if number % 3 == 2:  # ties: all members at one code
            maps[image_id][:] = np.rint(top * (number % 5) / 4)
    return maps


def twin(maps, weights, threshold):
    """sum(w code) >= ceil(t S sum(w)) in int64."""
    wide = any(codes.dtype == np.uint16 for name, codes in maps.items() if weights[name])
    total = np.zeros(next(iter(maps.values())).shape, np.int64)
    for name, codes in maps.items():
        total += codes.astype(np.int64) * (257 if wide and codes.dtype == np.uint8 else 1) * weights[name]
    return total >= math.ceil(Fraction(threshold) * (65535 if wide else 255) * sum(weights.values()))


@pytest.fixture(scope="module")
def kept():
    """Maps by kind and member, made once."""
    return {kind: {n: member_maps(n, dtype) for n, dtype in by_name.items()} for kind, by_name in DTYPES.items()}


@pytest.mark.parametrize("kind", DTYPES)
def test_no_pixel_differs(store, oracle, kept, tmp_path, kind):
    maps = kept[kind]
    stores = {name: store(name, maps[name]) for name in maps}
    seen = set()
    for (text, weights), threshold in itertools.product(WEIGHTS.items(), THRESHOLDS):
        found = Blend(stores, text, threshold)
        files = []
        for threads in (1, 2):
            path = tmp_path / f"{threads}.csv.gz"
            assert write_submission(path, found.rles(threads)) == len(SIZES)
            files.append(path.read_bytes())
        assert files[0] == files[1]
        rows = oracle.read_rows(path)
        assert list(rows) == [f"{image_id}.jpg" for image_id in maps["a"]]
        expected = {i: twin({n: maps[n][i] for n in maps}, weights, threshold) for i in maps["a"]}
        for image_id, mask in expected.items():
            decoded = oracle.naive_decode(rows[f"{image_id}.jpg"], mask.shape)
            assert np.count_nonzero(decoded != mask) == 0, (image_id, text, threshold)
        seen.add(gzip.decompress(files[0]))
    assert len(seen) > 15  # the cases are cases


@pytest.mark.parametrize("threads", [1, 2, 5, None])
def test_masks_come_in_order_from_any_number_of_threads(store, kept, threads):
    maps = kept["mixed"]
    found = Blend({name: store(name, maps[name]) for name in maps}, "a=2,b=1,c=1,d=1", "0.37")
    weights = {"a": 2, "b": 1, "c": 1, "d": 1}
    expected = [(i, twin({n: maps[n][i] for n in maps}, weights, "0.37")) for i in maps["a"]]
    results = list(found.masks(threads))
    assert [image_id for image_id, _ in results] == [image_id for image_id, _ in expected]
    for (_, mask), (_, right) in zip(results, expected, strict=True):  # kept masks do not change under later ones
        np.testing.assert_array_equal(mask, right)
    for (image_id, mask), (other, right) in zip(found, results, strict=True):
        assert image_id == other
        np.testing.assert_array_equal(mask, right)


def test_a_blend_works_no_further_ahead_than_it_has_to(store, monkeypatch):
    maps = {f"img_{number:03d}": np.full((3, 4), number, np.uint8) for number in range(120)}
    found = Blend({"a": store("a", maps)})
    asked = []
    bits = found.bits
    monkeypatch.setattr(found, "bits", lambda image_id: (asked.append(image_id), bits(image_id))[1])
    before = threading.active_count()
    results = found.masks(3)
    assert asked == []
    for number, (image_id, mask) in enumerate(results):
        assert image_id == f"img_{number:03d}"
        assert mask.all() == (number >= 128)
        assert len(asked) <= number + 6
        if number == 50:
            break
    results.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("threads", [1, 3])
def test_a_damaged_map_stops_at_its_image(store, tmp_path, threads):
    maps = {f"img_{number:02d}": np.full((3, 4), 200, np.uint8) for number in range(30)}
    found = Blend({"a": store("a", maps)})
    chunk = tmp_path / "a.zarr" / "prob" / "c" / "13" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    for results in (found.masks(threads), found.rles(threads)):
        taken = []
        with pytest.raises(StoreError, match=r"a\.zarr: the chunk of img_13 is damaged"):
            taken.extend(image_id for image_id, _ in results)
        assert taken == list(maps)[:13]


@pytest.mark.parametrize("kind", DTYPES)
def test_a_stack_is_the_members_maps_on_one_scale_in_memory_used_again(store, kept, kind):
    maps = kept[kind]
    stack = MapStack([store(name, maps[name]) for name in maps])
    assert stack.full_scale == (255 if kind == "uint8" else 65535)
    places = set()
    for image_id in sorted(maps["a"], key=lambda image_id: -maps["a"][image_id].size):
        codes = stack.read(image_id)
        assert codes.dtype == (np.uint8 if kind == "uint8" else np.uint16)
        assert codes.flags.c_contiguous
        places.add(codes.ctypes.data)
        for row, name in zip(codes, maps, strict=True):
            step = stack.full_scale // int(np.iinfo(maps[name][image_id].dtype).max)
            np.testing.assert_array_equal(row, maps[name][image_id].ravel().astype(np.int64) * step)
    assert len(places) == 1
