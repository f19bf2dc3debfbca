"""What images show without their truth: against plain numpy, and with bad ones planted."""

from __future__ import annotations

import runpy
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from carvana_ens.ensemble.stack import MapStack
from carvana_ens.ensemble.unlabelled import Features, border_length, image_features, most_disputed, oddest
from carvana_ens.errors import DataError, UsageError
from carvana_ens.types import Size

Memory = runpy.run_path(str(Path(__file__).with_name("conftest.py")))["Memory"]
WEIGHTS = (2, 1, 1)
HALF = Fraction(1, 2)


def naive_border(mask):
    """Pixel by pixel."""
    height, width = mask.shape
    count = 0
    for y, x in zip(*np.nonzero(mask), strict=True):
        near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        count += any(0 <= v < height and 0 <= u < width and not mask[v, u] for v, u in near)
    return count


def naive_features(maps, weights, threshold):
    """maps: (M, H, W) codes of full scale 255."""
    weights = np.array(weights) / sum(weights)
    votes = np.tensordot(weights, maps >= float(threshold) * 255, 1)
    mask = np.tensordot(weights, maps.astype(float), 1) >= float(threshold) * 255
    return mask.size, int(mask.sum()), naive_border(mask), float((votes * (1 - votes)).sum())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("weights", [(2, 1, 1), (1, 0, 3)])
def test_features_equal_plain_numpy(store, weights, threads):
    rng = np.random.default_rng(1)
    sizes = {"a": Size(9, 21), "b": Size(1, 70), "c": Size(13, 1), "d": Size(8, 8)}
    maps = {i: rng.integers(0, 256, (3, *size)).astype(np.uint8) for i, size in sizes.items()}
    maps["d"][:] = 0
    stack = MapStack([store(f"m{n}", {i: codes[n] for i, codes in maps.items()}) for n in range(3)])
    found = image_features(stack, sizes, weights, Fraction(2, 5), threads=threads)
    assert list(found) == list(sizes)
    for image_id, one in found.items():
        expected = naive_features(maps[image_id], weights, Fraction(2, 5))
        assert (one.pixels, one.area, one.border) == expected[:3]
        assert one.disputed == pytest.approx(expected[3], abs=1e-9)
        assert one.disagreement == pytest.approx(expected[3] / max(expected[2], 1), abs=1e-9)
    assert found["d"] == Features(64, 0, 0, 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (12, 17)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_border_lengths(size, share):
    mask = np.random.default_rng(3).random(size) < share
    assert border_length(mask) == naive_border(mask)


def test_images_of_most_disagreement():
    found = {"b": Features(100, 50, 10, 5.0), "a": Features(100, 50, 10, 5.0), "c": Features(100, 50, 20, 12.0)}
    assert most_disputed(found, 2) == ["c", "a"]
    assert most_disputed(found, 9) == ["c", "a", "b"]


def ellipse(rng, size=(48, 70)):
    """(3, H, W) codes of three members that nearly agree on an ellipse."""
    y, x = np.indices(size)
    radii = rng.uniform(0.25, 0.32, 2) * size
    shape = ((y - size[0] / 2) / radii[0]) ** 2 + ((x - size[1] / 2) / radii[1]) ** 2
    return np.stack([np.clip(128 + 400 * (1 - shape) + rng.normal(0, 25, size), 0, 255) for _ in range(3)])


def empty(maps, rng):
    return maps * 0.1


def whole(maps, rng):
    return 255 - maps * 0.1


def ragged(maps, rng):
    """All members make the same holes."""
    return np.where(rng.random(maps.shape[1:]) < 0.2, 0, maps)


def disputed(maps, rng):
    """The two members that outweigh none lose half of the object each; the blend hardly changes."""
    maps = maps.copy()
    maps[1, :, :35] = 0
    maps[2, :, 35:] = 0
    maps[0] = np.where(maps[0] > 128, 255, 0)
    return maps


def small(maps, rng):
    maps = maps.copy()
    maps[:, 24:] = 0
    return maps


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (empty, "area 0 % of the picture, 0.00116 times the usual"),
        (whole, "area 100 % of the picture"),
        (ragged, "border of"),
        (disputed, "disagreement on a seam of"),
        (small, "area "),
    ],
)
def test_planted_bad_images_are_the_worst_of_200(spoil, reason):
    rng = np.random.default_rng(7)
    known = {f"k{number:03d}": ellipse(rng) for number in range(60)}
    test = {f"t{number:03d}": ellipse(rng) for number in range(200)}
    planted = ["t017", "t181"]
    for image_id in planted:
        test[image_id] = spoil(test[image_id], rng)
    found = []
    for maps in (known, test):
        stack = MapStack([Memory({i: codes[n].astype(np.uint8) for i, codes in maps.items()}) for n in range(3)])
        sizes = {image_id: Size(48, 70) for image_id in maps}
        found.append(image_features(stack, sizes, WEIGHTS, HALF, threads=1))
    worst = oddest(found[1], found[0], 5)
    assert sorted(odd.image_id for odd in worst[:2]) == planted
    for odd in worst[:2]:
        assert any(why.startswith(reason) for why in odd.reasons)
        assert (spoil is disputed) == any("disagreement" in why for why in odd.reasons)
    assert worst[1].distance > 2 * worst[2].distance
    assert [odd.distance for odd in worst] == sorted((odd.distance for odd in worst), reverse=True)


def test_distances_are_robust_z_scores_of_logarithms():
    rng = np.random.default_rng(9)
    known = {f"k{n}": Features(1000, int(rng.integers(200, 400)), 60 + n % 7, float(rng.random())) for n in range(51)}
    one = Features(1000, 340, 90, 1.5)
    (odd,) = oddest({"x": one}, known, 3)
    logs = np.log([f.border + 1 for f in known.values()])
    expected = (np.log(91) - np.median(logs)) / (1.4826 * np.median(np.abs(logs - np.median(logs))))
    assert odd.distance == pytest.approx(expected, rel=1e-9)
    ratio = 91 / np.exp(np.median(logs))
    assert odd.reasons == (f"border of 90 pixels, {ratio:.3g} times the usual (z {expected:.1f})",)
    # more agreement than usual is not odd
    (calm,) = oddest({"x": Features(1000, 300, 63, 0.0)}, known, 1)
    assert calm.distance < 2


def test_where_most_known_images_are_the_same():
    known = {str(n): Features(100, 30, 10, 0.0) for n in range(9)}
    same, other = Features(100, 30, 10, 0.0), Features(100, 31, 10, 0.0)
    assert [(odd.image_id, odd.distance) for odd in oddest({"a": same, "b": other}, known, 2)] == [("b", 1e6), ("a", 0)]
    known["9"] = Features(100, 60, 10, 0.0)
    logs = np.log([31] * 9 + [61]) - np.log(31)
    assert oddest({"b": other}, known, 1)[0].distance == pytest.approx(np.log(32 / 31) / (1.2533 * logs.mean()))


def test_what_cannot_be_meant(store):
    known = {str(n): Features(100, 30, 10, 0.0) for n in range(5)}
    with pytest.raises(DataError, match="4 images say too little of what is usual: give the features of 5"):
        oddest(known, dict(list(known.items())[:4]), 1)
    with pytest.raises(UsageError, match="-1 images cannot be named"):
        oddest(known, known, -1)
    stack = MapStack([store("m", {"a": np.zeros((3, 3), np.uint8)})])
    with pytest.raises(UsageError, match="2 thresholds for 1 members"):
        image_features(stack, {"a": Size(3, 3)}, (1, 1), HALF, threads=1)
    for weights in ((0,), (-1,), (2**16 + 1,), ()):
        with pytest.raises(UsageError, match="are no whole numbers from 0 of sum"):
            image_features(stack, {"a": Size(3, 3)}, weights, HALF)
