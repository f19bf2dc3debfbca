"""What bench compares us with: numpy's ways and the peers' against naive loops, and the maps that are raced on."""

from __future__ import annotations

import numpy as np
import pytest

from carvana_ens.data.masks import open_masks
from carvana_ens.errors import CarvanaEnsError, UsageError
from carvana_ens.project import Project
from carvana_ens.store.store import open_store
from carvana_ens.types import Size, unsaid
from carvana_ens.verbs.bench import KINDS, foreign, numpy_ways
from carvana_ens.verbs.bench.disk import LAYOUTS, can_drop, drop, files_of, laid_out, settle, write_pngs, write_stores
from carvana_ens.verbs.bench.maps import Maps, drawn_masks, given_masks, made_maps, stored_maps
from carvana_ens.verbs.bench.peers import Peers
from carvana_ens.verbs.bench.processes import SideBySide
from carvana_ens.verbs.bench.roads import our_road, png_road, read_rows, zarr_road

RNG = np.random.default_rng(3)
MASKS = {
    "empty": np.zeros((5, 7), bool),
    "full": np.ones((5, 7), bool),
    "first": np.arange(35).reshape(5, 7) == 0,
    "last": np.arange(35).reshape(5, 7) == 34,
    "ends": np.isin(np.arange(35).reshape(5, 7), (0, 34)),
    "row": RNG.random((1, 64)) < 0.5,
    "column": RNG.random((65, 1)) < 0.5,
    "noise": RNG.random((13, 17)) < 0.4,
    "half": np.arange(24).reshape(4, 6) % 6 < 3,
}
STACKS = {
    "noise": RNG.integers(0, 256, (3, 90), np.uint8),
    "ends": RNG.choice(np.array([0, 1, 254, 255], np.uint8), (8, 90)),
    "ties": np.array([[127, 128, 0, 255, 126], [128, 127, 255, 0, 128]], np.uint8),
    "one": RNG.integers(0, 256, (1, 90), np.uint8),
    "many": RNG.integers(0, 256, (256, 20), np.uint8),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_texts_equal_a_naive_loop(mask, oracle):
    expected = oracle.naive_rle(mask)
    assert numpy_ways.usual_text(mask) == expected
    assert numpy_ways.lean_text(mask) == expected
    assert np.array_equal(numpy_ways.decoded(expected, Size(*mask.shape)), mask)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_texts_of_the_peers_counts_equal_it_too(mask, oracle):
    coco = pytest.importorskip("pycocotools.mask")
    assert foreign.coco_text(foreign.coco_counts(coco, mask)) == oracle.naive_rle(mask)
    rlemasklib = pytest.importorskip("rlemasklib")
    assert foreign.counts_text(foreign.rlemasklib_counts(rlemasklib, mask)) == oracle.naive_rle(mask)


@pytest.mark.parametrize("codes", STACKS.values(), ids=STACKS)
def test_masks_and_levels_equal_python_integers(codes):
    columns = [[int(code) for code in column] for column in codes.T]
    on = [2 * sum(column) >= 255 * len(column) for column in columns]
    for way in (numpy_ways.exact_mask, numpy_ways.float_mask, numpy_ways.lean_mask):
        assert way(codes).tolist() == on
    assert numpy_ways.levels(codes).tolist() == [sum(column) // len(column) for column in columns]


@pytest.mark.parametrize("truth", ["some", "none", "all"])
@pytest.mark.parametrize("codes", STACKS.values(), ids=STACKS)
def test_curves_equal_the_dice_of_one_mask_after_the_other(codes, truth, oracle):
    pixels = codes.shape[1]
    true = {"some": np.arange(pixels) % 3 == 0, "none": np.zeros(pixels, bool), "all": np.ones(pixels, bool)}[truth]
    sums = [sum(int(code) for code in column) for column in codes.T]
    expected = [oracle.naive_dice(np.array([total >= k * len(codes) for total in sums]), true) for k in range(1, 256)]
    assert numpy_ways.curve(codes, true).tolist() == expected
    assert numpy_ways.lean_curve(codes, true).tolist() == expected
    assert numpy_ways.counted_curve(codes, true).tolist() == expected
    assert numpy_ways.curve(codes, true, 64, 191).tolist() == expected[63:191]
    assert numpy_ways.lean_curve(codes, true, 64, 191).tolist() == expected[63:191]


@pytest.mark.parametrize("name", ["noise", "ends", "one"])
def test_curves_of_the_peers_equal_it_too(name):
    codes = STACKS[name]
    truth = np.arange(codes.shape[1]) % 3 == 0
    expected = numpy_ways.curve(codes, truth)
    metrics = pytest.importorskip("sklearn.metrics")
    found = foreign.sklearn_dice(foreign.sklearn_curve(metrics, codes, truth))
    assert found == pytest.approx(expected, abs=1e-12)
    torch = pytest.importorskip("torch")
    classification = pytest.importorskip("torchmetrics.functional.classification")
    found = foreign.torchmetrics_dice(foreign.torchmetrics_curve(torch, classification, codes, truth))
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.fixture
def cv2():
    return pytest.importorskip("cv2")


@pytest.fixture
def maps(cv2) -> Maps:
    masks, source = drawn_masks(2, Size(96, 144))
    return made_maps(cv2, "saturated", masks, source, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_made_maps_are_what_their_kind_says(cv2, kind):
    masks, source = drawn_masks(2, Size(640, 960))
    maps = made_maps(cv2, kind, masks, source, 3)
    assert source == "2 masks of drawn cars"
    assert not np.array_equal(masks[0], masks[1])
    for image, mask in enumerate(masks):
        stack = maps.stack(image, 3)
        assert stack.shape == (3, 640 * 960)
        assert len({row.tobytes() for row in stack}) == 3
        for row in stack:
            assert np.mean((row >= 128) == mask.reshape(-1)) > 0.98
        middle = np.mean((stack > 3) & (stack < 252))
        assert 0.001 < middle < 0.1
    exact = maps.facts.exact_share
    assert exact == pytest.approx(np.mean([(codes == 0) | (codes == 255) for codes in maps.bases]))
    assert exact > 0.9 if kind == "saturated" else 0.25 < exact < 0.42
    again = made_maps(cv2, kind, masks, source, 3)
    assert np.array_equal(again.stack(1, 3), maps.stack(1, 3))


@pytest.mark.parametrize("size", [(1, 1), (3, 90), (80, 120)])
@pytest.mark.parametrize("on", [False, True])
def test_masks_without_an_outline_and_tiny_ones_make_maps(cv2, on, size):
    for kind in KINDS:
        codes = made_maps(cv2, kind, [np.full(size, on)], "one mask", 2).stack(0, 2)
        assert codes.dtype == np.uint8
        assert codes.shape == (2, size[0] * size[1])
        if size == (80, 120):
            assert np.mean((codes >= 252) if on else (codes <= 3)) > 0.9


def test_more_images_and_members_are_the_made_ones_moved(maps):
    assert np.array_equal(maps.one(0, 0), maps.bases[0][0].reshape(96, 144))
    assert np.array_equal(maps.one(5, 0), np.roll(maps.bases[1][0].reshape(96, 144), 2, 0))
    assert np.array_equal(maps.one(0, 5), np.roll(maps.bases[0][1].reshape(96, 144), 2, 1))
    assert np.array_equal(maps.stack(3, 3)[2], maps.one(3, 2).reshape(-1))


def test_given_masks_are_spread_over_the_folder_and_brought_to_one_size(cv2, world):
    masks, source = given_masks(cv2, world.masks, 3, None)
    ids = open_masks(world.masks).ids
    expected = [open_masks(world.masks).read(image_id, Size(48, 71)) for image_id in (ids[0], ids[2], ids[4])]
    assert [np.array_equal(mask, wanted) for mask, wanted in zip(masks, expected, strict=True)] == [True] * 3
    assert source.startswith("3 masks of ")
    halved, _ = given_masks(cv2, world.masks, 3, Size(24, 71))
    assert np.array_equal(halved[0], expected[0][::2])


def test_a_table_of_masks_needs_a_size(cv2, tmp_path):
    table = tmp_path / "masks.csv"
    table.write_text("img,rle_mask\na_01.jpg,1 3\n")
    with pytest.raises(UsageError, match="--size"):
        given_masks(cv2, table, 1, None)
    masks, _ = given_masks(cv2, table, 1, Size(2, 5))
    assert masks[0].sum() == 3


def test_stored_maps_are_the_projects_own(project):
    codes = project.imported(("a", 1.5, -3, 60), ("b", 2.5, 4, 90))
    maps = stored_maps(Project(project.cars), 4, unsaid)
    store = open_store(project.store("a", "test"))
    assert maps.distinct == 4
    for image in range(4):
        expected = [codes[name][store.ids[image]] for name in ("a", "b")]
        assert np.array_equal(maps.one(image, 0), expected[0])
        assert np.array_equal(maps.one(image, 1), expected[1])
        assert np.array_equal(maps.masks[image], sum(part.astype(int) for part in expected) >= 255)


@pytest.fixture
def laid(maps, tmp_path) -> dict[str, dict]:
    """Stores of two members and three images in every layout."""
    plain = write_stores(maps, 2, 3, tmp_path / "stores")
    return {layout: laid_out(layout, plain, tmp_path / "stores") for layout in LAYOUTS}


def test_stores_of_every_layout_hold_the_maps(maps, laid):
    assert next(iter(laid)) == "plain"
    assert len({str(path) for stores in laid.values() for path in stores.values()}) == 2 * len(LAYOUTS)
    for stores in laid.values():
        for member, path in enumerate(stores.values()):
            store = open_store(path)
            store.require_complete()
            for image, image_id in enumerate(store.ids):
                assert np.array_equal(store.read(image_id), maps.one(image, member))
    assert (open_store(laid["packed"]["member00"]).packed, open_store(laid["plain"]["member00"]).packed) != (None, None)
    assert open_store(laid["plain"]["member00"]).packed is None


def test_all_roads_lead_to_the_same_rows(cv2, maps, laid, tmp_path, oracle):
    pandas = pytest.importorskip("pandas")
    import zarr

    expected = []
    for image in range(3):
        total = maps.stack(image, 2).astype(np.int64).sum(0)
        expected.append((f"{image:06d}_01.jpg", oracle.naive_rle((total >= 255).reshape(96, 144))))
    pngs = write_pngs(cv2, maps, 2, 3, tmp_path / "png")
    output = tmp_path / "out.csv.gz"
    assert read_rows(png_road(cv2, pandas, pngs, output)) == expected
    assert read_rows(zarr_road(zarr, pandas, laid["plain"], list(pngs), output)) == expected
    for stores in laid.values():
        for threads in (1, 2):
            assert read_rows(our_road(stores, output, threads)) == expected


def test_empty_masks_read_the_same_quoted_or_not(tmp_path):
    import gzip

    for text in ("img,rle_mask\na.jpg,\nb.jpg,1 2\n", 'img,rle_mask\na.jpg,""\nb.jpg,1 2\n'):
        path = tmp_path / "rows.csv.gz"
        path.write_bytes(gzip.compress(text.encode()))
        assert read_rows(path) == [("a.jpg", ""), ("b.jpg", "1 2")]
    path.write_bytes(gzip.compress(b"a.jpg,1 2\n"))
    assert read_rows(path)[0][0] == "no header"


def test_processes_side_by_side_write_what_one_does_and_end(laid, tmp_path):
    expected = read_rows(our_road(laid["plain"], tmp_path / "one.csv.gz", 1))
    with SideBySide(2, tmp_path) as processes:
        for stores in laid.values():
            outputs = processes.run(stores)
            assert len(set(outputs)) == 2
            assert [read_rows(output) for output in outputs] == [expected, expected]
    assert [process.returncode for process in processes._processes] == [0, 0]


def test_a_process_that_fails_is_told_of(laid, tmp_path):
    lost = {"gone": tmp_path / "gone.zarr"}
    with pytest.raises(CarvanaEnsError, match=r"gone\.zarr"), SideBySide(2, tmp_path) as processes:
        processes.run(lost)
    assert all(process.returncode for process in processes._processes)


def test_a_process_that_dies_is_told_of(laid, tmp_path):
    with SideBySide(1, tmp_path) as processes:
        processes._processes[0].kill()
        with pytest.raises(CarvanaEnsError, match="it ended"):
            processes.run(laid["plain"])


@pytest.mark.skipif(not can_drop(), reason="this system drops no pages")
def test_dropping_pages_changes_no_byte(laid):
    files = files_of(laid["plain"].values())
    assert len(files) >= 2 * 3
    before = [file.read_bytes() for file in files]
    settle(files)
    drop(files)
    assert [file.read_bytes() for file in files] == before


def test_peers_work_in_one_thread_and_are_put_back(cv2):
    torch = pytest.importorskip("torch")
    cv2.setNumThreads(2)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with Peers() as peers:
            assert peers.find("cv2") is cv2
            assert peers.find("cv2") is cv2
            assert peers.find("torch") is torch
            assert (cv2.getNumThreads(), torch.get_num_threads()) == (1, 1)
        assert (cv2.getNumThreads(), torch.get_num_threads()) == (2, 2)
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(-1)


def test_what_is_not_there_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with Peers() as peers:
        assert peers.missing("numcodecs", "sklearn.metrics") == ["scikit-learn"]
        assert peers.find("sklearn.metrics") is None
        with pytest.raises(UsageError, match=r"this needs scikit-learn.*carvana-ens\[bench\]"):
            peers.need("sklearn.metrics", "this")
