"""Passes over maps on worker processes: what this process finds, to the last bit; also when one of them is killed."""

from __future__ import annotations

import os
import signal
from fractions import Fraction

import numpy as np
import pytest

from carvana_ens.core.spaces import Space
from carvana_ens.data.masks import open_masks
from carvana_ens.engine.cluster import Workers, connected
from carvana_ens.ensemble import passes
from carvana_ens.ensemble.blending import Blend
from carvana_ens.ensemble.disputed import keep_disputed
from carvana_ens.ensemble.expected_dice import expected_dice_scores
from carvana_ens.ensemble.passes import Elsewhere
from carvana_ens.ensemble.spaces import count_codes, fit_space
from carvana_ens.ensemble.step_choice import choose_steps
from carvana_ens.ensemble.steps import parse_steps
from carvana_ens.ensemble.truth import TruthCache, cached_truth
from carvana_ens.errors import StoreError
from carvana_ens.types import Size

pytest.importorskip("distributed", reason="needs the extra [dist]")

pytestmark = pytest.mark.slow
IDS = [f"{car}_{view}" for car in "abcdefgh" for view in range(5)]
SIZES = {image_id: Size(20 + number % 3, 31) for number, image_id in enumerate(IDS)}
LOW, HIGH = Fraction(1, 4), Fraction(3, 4)


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes; started with the first test that asks."""
    with connected(Workers(count=2, limit=60), os.getcwd) as there:
        yield there


@pytest.fixture
def drawn(oracle, store, tmp_path, monkeypatch):
    """(stores by name, one of them uint16; the cache of masks), and few images a task."""
    monkeypatch.setattr(passes, "_IMAGES", 3)
    truths = {image_id: oracle.ellipse(image_id, size) for image_id, size in SIZES.items()}
    for image_id, truth in truths.items():
        oracle.save_mask(tmp_path / "masks", image_id, truth)
    stores = {}
    for place, (name, factor) in enumerate({"left": np.uint8(1), "right": np.uint8(1), "wide": np.uint16(257)}.items()):
        noisy = {i: oracle.blurred(truths[i], 1.5, place - 1, 90, seed=n) for n, i in enumerate(IDS)}
        stores[name] = store(name, {i: codes * factor for i, codes in noisy.items()})
    return stores, cached_truth(tmp_path / "truth", open_masks(tmp_path / "masks"), "drawn", SIZES)


@pytest.fixture
def elsewhere(drawn, cluster):
    return Elsewhere(cluster, drawn[1].path, drawn[1].source)


def same(ours, theirs):
    """Two ``Disputed`` of which nothing differs."""
    assert (ours.ids, ours.thresholds) == (theirs.ids, theirs.thresholds)
    for name in ("codes", "truth", "starts", "constants"):
        mine, other = getattr(ours.pixels, name), getattr(theirs.pixels, name)
        assert mine.dtype == other.dtype
        assert np.array_equal(mine, other)
    for name in ("members", "low", "high", "step"):
        assert getattr(ours.pixels, name) == getattr(theirs.pixels, name)
    return True


@pytest.mark.parametrize("memory", [2**30, 2000])
@pytest.mark.parametrize("names", [("left", "right"), ("left", "wide")])
def test_disputed_pixels_are_the_same(drawn, elsewhere, names, memory, tmp_path):
    stores, truth = [drawn[0][name] for name in names], drawn[1]
    more = {"memory": memory, "folder": tmp_path}
    ours = keep_disputed(stores, IDS, truth, LOW, HIGH, threads=1)
    assert ours.codes > memory or memory > 2000
    same(ours, keep_disputed(stores, IDS, truth, LOW, HIGH, elsewhere=elsewhere, **more))
    space = fit_space("rank", dict(zip(names, stores, strict=True)), IDS, truth)
    tables = space.tables(names)
    some = IDS[3:20]
    same(
        keep_disputed(stores, some, truth, LOW, HIGH, tables=tables, threads=1),
        keep_disputed(stores, some, truth, LOW, HIGH, tables=tables, elsewhere=elsewhere, **more),
    )


def test_counts_and_scores_are_the_same(drawn, elsewhere):
    stores, truth = drawn
    parts = {image_id: ord(image_id[0]) % 3 for image_id in IDS}
    ours, theirs = (count_codes(stores, IDS, truth, parts, elsewhere=where) for where in (None, elsewhere))
    assert ours.parts == theirs.parts
    for part, members in ours.counts.items():
        for mine, other in zip(members, theirs.counts[part], strict=True):
            assert mine.images == other.images
            for name in ("object_hist", "other_hist", "dice"):
                assert np.array_equal(getattr(mine, name), getattr(other, name))  # sums of floats in one order
    space = fit_space("temperature", stores, IDS, truth)
    weights = {"left": 1, "wide": 2}
    for used in (Space(), space):
        ours, theirs = (
            expected_dice_scores(stores, weights, IDS, truth, space=used, elsewhere=where)
            for where in (None, elsewhere)
        )
        assert list(ours.items()) == list(theirs.items())
    groups = {image_id: image_id[0] for image_id in IDS}
    blend = Blend({name: stores[name] for name in weights}, weights, "0.45", space=space)
    steps = parse_steps("largest,remove-islands,fill-holes")
    ours, theirs = (
        choose_steps(blend, steps, truth, groups, ids=IDS[:25], others=stores, elsewhere=where)
        for where in (None, elsewhere)
    )
    assert ours == theirs
    assert len(ours.tried) > 3


def test_a_damaged_map_is_refused_as_without_workers_the_first_of_two(drawn, elsewhere, tmp_path):
    stores, truth = drawn
    for name, number in (("right", 31), ("left", 17), ("right", 16)):
        chunk = tmp_path / f"{name}.zarr" / "prob" / "c" / str(number) / "0" / "0"
        chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    told = []
    for where in (None, elsewhere):
        with pytest.raises(StoreError) as refused:
            keep_disputed(list(stores.values()), IDS, truth, LOW, HIGH, elsewhere=where)
        told.append(str(refused.value))
    assert told[0] == told[1]
    assert str(tmp_path / "right.zarr") in told[0]
    assert IDS[16] in told[0]


def test_workers_that_find_other_files_look_at_nothing(drawn, elsewhere, tmp_path):
    stores = list(drawn[0].values())
    other = cached_truth(tmp_path / "other", open_masks(tmp_path / "masks"), "changed", SIZES)
    for masks, told in ((other.path, "finds other maps or masks"), (tmp_path / "none", "does not see what")):
        strange = Elsewhere(elsewhere.cluster, masks, drawn[1].source)
        with pytest.raises(StoreError, match=rf"a worker on \S+ {told}"):
            keep_disputed(stores, IDS, drawn[1], LOW, HIGH, elsewhere=strange)
    assert TruthCache(other.path).source == "changed"


def test_a_pass_goes_on_when_a_worker_is_killed(drawn, elsewhere):
    """At the first image that comes back, when not all tasks can have been given out yet."""
    stores, truth = list(drawn[0].values()), drawn[1]
    killed = []

    def killing(items, total, what):
        for item in items:
            if not killed:
                killed.append(next(iter(elsewhere.cluster.client.run(os.getpid).values())))
                os.kill(killed[0], signal.SIGKILL)
            yield item

    found = keep_disputed(stores, IDS, truth, LOW, HIGH, elsewhere=elsewhere, track=killing)
    assert killed
    same(keep_disputed(stores, IDS, truth, LOW, HIGH), found)


@pytest.mark.parametrize(
    ("members", "full_scale", "expected"), [(1, 255, 16), (8, 255, 6), (49, 255, 1), (4, 65535, 6), (30, 65535, 1)]
)
def test_what_comes_back_at_once_is_bounded(members, full_scale, expected):
    """Of photos of 1280x1918; also those of which every pixel is disputed."""

    class Large:
        shape = (5088, 1280, 1918)

    Large.full_scale = full_scale
    assert passes._task([Large()] * members) == expected
    assert expected == 1 or expected * members * 1280 * 1918 * (1 if full_scale == 255 else 2) <= passes._BYTES
