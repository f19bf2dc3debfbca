"""Scores from disputed pixels, against plain numpy on the whole maps: equal to the last bit."""

from __future__ import annotations

import functools
import math
import runpy
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carvana_ens.core.rle import mask_bits
from carvana_ens.ensemble.disputed import common_ids, keep_disputed
from carvana_ens.ensemble.objectives import OBJECTIVES, objective_named
from carvana_ens.errors import CarvanaEnsError, DataError, StoreError, UsageError

Memory = runpy.run_path(str(Path(__file__).with_name("conftest.py")))["Memory"]
HALF = Fraction(1, 2)
NAMES = sorted(OBJECTIVES)


def naive_score(name, members, weights, threshold, truths, full_scale=255):
    """One score of whole maps, images in order, with Python's own numbers."""
    cut = math.ceil(threshold * full_scale * sum(weights))
    rows = []
    for image_id, truth in truths.items():
        total = sum(w * m[image_id].astype(np.int64) for w, m in zip(weights, members, strict=True))
        on = total >= cut
        rows.append((int((on & truth).sum()), int(on.sum()), int(truth.sum())))
    if name == "pooled-dice":
        both, found, objects = map(sum, zip(*rows, strict=True))
        return 2 * both / (found + objects) if found + objects else 1.0
    if name == "mean-dice":
        scores = [2 * b / (f + o) if f + o else 1.0 for b, f, o in rows]
    else:
        scores = [b / (f + o - b) if f + o - b else 1.0 for b, f, o in rows]
    return functools.reduce(lambda x, y: x + y, scores) / len(scores)


def drawn(seed, members=3, images=4, size=(6, 13), spread=90, dtype=np.uint8):
    """(maps of each member, truths): noisy codes around the truth; one picture is empty."""
    rng = np.random.default_rng(seed)
    full = np.iinfo(dtype).max
    truths = {f"a_{n}": rng.random(size) < (0.4 if n else 0) for n in range(images)}
    noise = spread * full // 255
    maps = [
        {
            i: (full // 2 + np.where(t, 1, -1) * full // 5 + rng.integers(-noise, noise + 1, size)).clip(0, full)
            for i, t in truths.items()
        }
        for _ in range(members)
    ]
    return [{i: codes.astype(dtype) for i, codes in member.items()} for member in maps], truths


def kept(members, truths, low, high, **options):
    return keep_disputed(
        [Memory(maps) for maps in members], list(truths), lambda i, _: mask_bits(truths[i]), low, high, **options
    )


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    name=st.sampled_from(NAMES),
    weights=st.lists(st.integers(0, 40), min_size=3, max_size=3).filter(any),
    threshold=st.fractions(Fraction(1, 50), 1, max_denominator=60),
    member=st.integers(0, 2),
    dtype=st.sampled_from([np.uint8, np.uint16]),
)
def test_every_score_equals_the_whole_maps(seed, name, weights, threshold, member, dtype):
    members, truths = drawn(seed, dtype=dtype)
    scale = int(np.iinfo(dtype).max)
    score = functools.partial(naive_score, name, members, truths=truths, full_scale=scale)
    objective = OBJECTIVES[name]
    one = kept(members, truths, threshold, threshold, threads=1)
    assert one.thresholds == (threshold,)
    assert one.score(objective, weights, threshold) == score(weights, threshold)
    assert one.curve(objective, weights).tolist() == [score(weights, threshold)]
    added = [[w + (k == m) for k, w in enumerate(weights)] for m in range(3)]
    assert one.scores_of_each_added(objective, weights, threshold).tolist() == [score(w, threshold) for w in added]
    some = [0, 0, 0]
    assert one.scores_of_each_added(objective, some, threshold).tolist() == [
        score([int(k == m) for k in range(3)], threshold) for m in range(3)
    ]
    values = range(1, 30)
    moved = [[v if k == member else w for k, w in enumerate(weights)] for v in values]
    assert one.line(objective, weights, member, values, threshold).tolist() == [score(w, threshold) for w in moved]
    around = kept(members, truths, threshold / 2, threshold, threads=1)
    assert around.score(objective, weights, threshold * 3 / 4) == score(weights, threshold * 3 / 4)
    picked = range(0, len(around.thresholds), max(1, len(around.thresholds) // 9))
    curve = around.curve(objective, weights)
    assert len(curve) == len(around.thresholds)
    assert [curve[k] for k in picked] == [score(weights, around.thresholds[k]) for k in picked]


@pytest.mark.parametrize("name", NAMES)
def test_threads_parts_and_a_file_change_nothing(name, monkeypatch, tmp_path):
    members, truths = drawn(5, images=40)
    objective = objective_named(name)
    plain = kept(members, truths, Fraction(1, 4), Fraction(3, 4), threads=1)
    spilled = kept(members, truths, Fraction(1, 4), Fraction(3, 4), threads=3, memory=20_000, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []  # the file has no name, or is gone
    monkeypatch.setattr("carvana_ens.ensemble.disputed._PART", 3000)
    for other in (plain, spilled):
        assert other.pixels.codes.tobytes() == plain.pixels.codes.tobytes()
    weights = (3, 1, 2)
    expected = [naive_score(name, members, weights, t, truths) for t in plain.thresholds]
    assert spilled.curve(objective, weights).tolist() == expected
    assert spilled.line(objective, weights, 1, range(3), HALF).tolist() == [
        naive_score(name, members, (3, v, 2), HALF, truths) for v in range(3)
    ]


def test_some_images_only():
    members, truths = drawn(6, images=7)
    whole = kept(members, truths, HALF, HALF)
    some = {i: truths[i] for i in ("a_5", "a_1", "a_6")}
    for name, objective in OBJECTIVES.items():
        found = whole.only(list(some)).score(objective, (1, 2, 1), HALF)
        assert found == naive_score(name, members, (1, 2, 1), HALF, some)
    on = {
        i: sum(w * m[i].astype(int) for w, m in zip((1, 2, 1), members, strict=True)) >= math.ceil(HALF * 255 * 4)
        for i in some
    }
    assert whole.only(list(some)).counts((1, 2, 1), HALF).tolist() == [
        [int((on[i] & some[i]).sum()), int(on[i].sum()), int(some[i].sum())] for i in some
    ]
    with pytest.raises(DataError, match="'b_9' is not among the 7 images"):
        whole.only(["a_1", "b_9"])
    with pytest.raises(DataError, match="no image to score"):
        whole.only([]).score(OBJECTIVES["mean-dice"], (1, 1, 1), HALF)
    assert whole.only([]).counts((1, 1, 1), HALF).shape == (0, 3)


def test_pictures_of_many_sizes_in_real_stores(store, oracle):
    sizes = {"a_1": (1, 200), "a_2": (64, 1), "b_1": (9, 31), "b_2": (8, 8)}
    truths = {i: oracle.ellipse(i, size) for i, size in sizes.items()}
    maps = [{i: oracle.blurred(truths[i], b, 0, 90, seed=s) for i in sizes} for s, b in enumerate((1, 2))]
    wide = {i: codes.astype(np.uint16) * 257 for i, codes in maps[1].items()}
    stores = [store("narrow", maps[0]), store("wide", wide)]
    asked = {}

    def truth(image_id, size):
        asked[image_id] = tuple(size)
        return mask_bits(truths[image_id])

    found = keep_disputed(stores, list(sizes), truth, Fraction(1, 5), Fraction(4, 5), threads=2)
    assert asked == sizes
    assert found.thresholds[0] == Fraction(1, 5)
    assert found.thresholds[-1] == Fraction(4, 5)
    curve = found.curve(OBJECTIVES["mean-dice"], (2, 1))
    for place in range(0, len(curve), 997):
        expected = naive_score("mean-dice", maps, (2, 1), found.thresholds[place], truths)
        assert curve[place] == expected


def test_common_ids_in_the_order_of_the_first(store):
    (maps,), _ = drawn(1, members=1)
    some = {i: maps[i] for i in ("a_2", "a_1", "a_0")}
    assert common_ids([store("all", maps), store("some", some)]) == ["a_0", "a_1", "a_2"]
    assert common_ids([store("all2", maps), store("none", {"z": maps["a_1"]})]) == []


def test_an_image_of_two_sizes_is_named(store):
    (maps,), _ = drawn(1, members=1, size=(20, 31))
    other = {i: codes[:, :-1] if i == "a_1" else codes for i, codes in maps.items()}
    with pytest.raises(StoreError, match=r"other\.zarr has image a_1 as 20x30, .*plain\.zarr as 20x31"):
        common_ids([store("plain", maps), store("other", other)])


def test_a_map_that_is_missing_is_named(store):
    (maps,), truths = drawn(1, members=1)
    broken = store("broken", maps, leave=("a_2",))
    with pytest.raises(StoreError, match="a_2"):
        keep_disputed([broken], list(truths), lambda i, _: mask_bits(truths[i]), HALF, HALF)


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [("0", "1/2", "no range"), ("1/2", "1/3", "no range"), ("1/2", "2", "no range"), ("0.501", "0.5011", "k/255")],
)
def test_ranges_that_cannot_be_meant(low, high, told):
    members, truths = drawn(1)
    with pytest.raises(UsageError, match=told):
        kept(members, truths, Fraction(low), Fraction(high))


def test_nothing_to_keep_and_nowhere_to_spill(tmp_path):
    members, truths = drawn(1)
    with pytest.raises(DataError, match="no image is out-of-fold"):
        kept(members, {}, HALF, HALF)
    with pytest.raises(CarvanaEnsError, match=r"cannot be spilled to .*nowhere.*: No such file"):
        kept(members, truths, HALF, HALF, memory=10, folder=tmp_path / "nowhere")


def test_an_objective_that_is_unknown():
    with pytest.raises(UsageError, match="'dice' is unknown: there are mean-dice, pooled-dice, mean-iou"):
        objective_named("dice")
