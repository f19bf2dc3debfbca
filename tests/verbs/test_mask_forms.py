"""blend --masks in other forms than PNG: read back by pycocotools, skimage, and line by line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from pycocotools.coco import COCO
from scipy import ndimage

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def two(project, oracle):
    """A project with two members; masks with a hole, a second piece, and one that is empty."""

    def make():
        codes = {}
        for image_id in oracle.TEST:
            mask = oracle.ellipse(image_id)
            mask[20:28, 30:40] = False
            mask[0, 0] = mask[-1, -3:] = True
            codes[image_id] = np.where(mask & (image_id != "c9d_02"), 200, 7).astype(np.uint8)
            for name in ("one", "two"):
                oracle.save_grey(project.root / name / f"{image_id}.png", codes[image_id])
        for name in ("one", "two"):
            project.did("import", name, "--from", project.root / name, "--split", "test")
        return codes

    project.masks_made = {i: codes > 127 for i, codes in project.kept("mask-forms", make).items()}
    return project


@pytest.mark.parametrize("words", [(), ("--workers", "1"), ("-o", "out.csv", "--check")])
def test_coco_is_read_back(two, oracle, capsys, monkeypatch, words):
    monkeypatch.chdir(two.root)
    two.did("blend", "--masks", "masks.json", *words)
    coco = COCO("masks.json")
    assert len(coco.imgs) == 6
    assert [category["name"] for category in coco.cats.values()] == ["object"]
    for number, image in coco.imgs.items():
        mask = np.zeros(oracle.SIZE, bool)
        assert (image["height"], image["width"]) == oracle.SIZE
        for annotation in coco.imgToAnns[number]:
            mask |= coco.annToMask(annotation).astype(bool)
            y, x = np.nonzero(mask)
            assert annotation["area"] == mask.sum()
            assert annotation["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
        assert np.array_equal(mask, two.masks_made[image["file_name"].removesuffix(".jpg")])
    assert len(coco.anns) == 5
    capsys.readouterr()


def test_coco_is_a_form_of_masks_here(two):
    two.did("blend", "-o", two.root / "out.csv", "--masks", two.root / "masks.json")
    found = json.loads(two.did("evaluate", two.root / "out.csv", "--masks", two.root / "masks.json", "--json").out)
    assert found["dice"] == 1


def centres(size):
    y, x = np.indices(size) + 0.5
    return np.stack([x.ravel(), y.ravel()], axis=1)


def filled(ring, size):
    return Outline(ring).contains_points(centres(size)).reshape(size)


def test_outlines_hold_the_pixels(two, oracle):
    two.did("blend", "--masks", two.root / "masks.geojson")
    document = json.loads((two.root / "masks.geojson").read_text())
    assert document["type"] == "FeatureCollection"
    assert [feature["id"] for feature in document["features"]] == sorted(oracle.TEST)
    holes = 0
    for feature in document["features"]:
        assert feature["geometry"]["type"] == "MultiPolygon"
        mask = np.zeros(oracle.SIZE, bool)
        for rings in feature["geometry"]["coordinates"]:
            assert all(ring[0] == ring[-1] for ring in rings)
            mask ^= np.logical_xor.reduce([filled(ring, oracle.SIZE) for ring in rings])
            holes += len(rings) - 1
        assert np.array_equal(mask, two.masks_made[feature["id"]])
    assert holes > 0


def test_yolo_says_that_holes_are_filled(two, oracle):
    done = two.did("blend", "--masks", two.root / "labels", "--masks-as", "yolo")
    whole = {i: ndimage.binary_fill_holes(mask, np.ones((3, 3))) for i, mask in two.masks_made.items()}
    holed = sum(not np.array_equal(mask, whole[image_id]) for image_id, mask in two.masks_made.items())
    assert holed > 2
    assert f"{holed} masks have holes, which YOLO cannot hold" in done.err
    assert len(list((two.root / "labels").iterdir())) == 6
    for image_id in two.masks_made:
        mask = np.zeros(oracle.SIZE, bool)
        for line in (two.root / "labels" / f"{image_id}.txt").read_text().splitlines():
            kind, *shares = line.split()
            assert kind == "0"
            assert all(0 <= float(share) <= 1 for share in shares)
            corners = np.array(shares, float).reshape(-1, 2) * (oracle.SIZE[1], oracle.SIZE[0])
            mask |= filled(corners, oracle.SIZE)
        assert np.array_equal(mask, whole[image_id])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--masks", "a_file", "--masks-as", "png"], "folder"),
        (["--masks", "a_folder", "--masks-as", "coco"], "file"),
        (["--masks-as", "coco", "-o", "x.csv"], "--masks"),
        (["--masks", "x", "--masks-as", "svg"], "svg"),
    ],
)
def test_what_cannot_be_meant(two, monkeypatch, words, told):
    monkeypatch.chdir(two.root)
    (two.root / "a_file").write_text("mine")
    (two.root / "a_folder").mkdir()
    done = two.do("blend", *words)
    assert told in done.error
    assert done.code == 2


def test_a_stop_leaves_the_old_file(two, monkeypatch):
    from carvana_ens.output.mask_forms import MaskFiles

    path = two.root / "masks.json"
    path.write_text("old")
    plain = MaskFiles.record

    def stopping(self, image_id, mask):
        if image_id == "c9d_03":
            raise KeyboardInterrupt
        return plain(self, image_id, mask)

    monkeypatch.setattr(MaskFiles, "record", stopping)
    assert two.do("blend", "--masks", path, "--threads", "1").code == 130
    assert path.read_text() == "old"
    assert [entry.name for entry in two.root.iterdir() if "partial" in entry.name] == []


def test_without_skimage_there_is_one_line(two, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "skimage.measure", None)
    assert "carvana-ens[outlines]" in two.do("blend", "--masks", two.root / "x.geojson").error
