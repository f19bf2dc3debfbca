"""Data that is damaged or does not fit, found in the middle of a day's work: one line that names it."""

from __future__ import annotations

import shutil

import numpy as np
import PIL.Image
import pytest

from carvana_ens import open_store


@pytest.fixture
def day(project):
    """A project with a trainable member and one that needs no training."""

    def make():
        project.did("add-model", "learned-cut")
        project.did("add-model", "bright-cut")

    project.kept("day", make)
    return project


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def deep(path):
    """The photo as PNG of 16 bits a channel, in place of the JPEG."""
    grey = np.asarray(PIL.Image.open(path)).astype(np.uint16)[..., 0] * 257
    path.unlink()
    PIL.Image.fromarray(grey).save(path.with_suffix(".png"))


def nothing(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("this is no picture")


@pytest.mark.parametrize("damage", [cut_short, deep, nothing, text])
def test_a_bad_photo_is_named(day, damage):
    damage(day.images / "7f3_03.jpg")
    damage(day.test / "c9d_01.jpg")
    done = day.do("train")
    assert "7f3_03" in done.error
    assert "train_hq" in done.error
    assert done.code == 1
    for split, bad, folder in (("oof", "7f3_03", "train_hq"), ("test", "c9d_01", "test_hq")):
        done = day.do("predict", "bright-cut", "--split", split)
        if damage is cut_short:  # only decoding shows it: the other photos are predicted
            assert done.err.startswith(f"failed: {bad} (bright-cut, {split}): ")
            assert done.err.count("\n") == 1
            assert done.code == 3
            assert open_store(day.store("bright-cut", split)).missing() == [bad]
        else:
            assert bad in done.error
            assert done.code == 1
        assert folder in done.err
    assert day.do("run").code == 1


def test_all_photos_without_a_header_are_named_at_once(day):
    nothing(day.test / "c9d_01.jpg")
    text(day.test / "b22_02.jpg")
    done = day.do("predict", "bright-cut", "--split", "test")
    assert "b22_02.jpg" in done.error
    assert done.error.endswith("(and 1 more: 'c9d_01')")
    assert not day.store("bright-cut", "test").exists()


def test_a_bad_photo_stops_nothing_and_is_predicted_once_it_is_mended(day):
    good = (day.test / "c9d_03.jpg").read_bytes()
    day.did("add-model", "bright-cut", "--name", "whole")
    day.did("predict", "whole", "--split", "test")
    cut_short(day.test / "c9d_03.jpg")
    done = day.do("predict", "bright-cut", "--split", "test")
    assert done.code == 3
    assert "failed: c9d_03 (bright-cut, test): " in done.err
    assert "5 maps predicted, 6 in all, 1 missing" in done.out
    (day.test / "c9d_03.jpg").write_bytes(good)
    assert "1 maps predicted, 6 in all" in day.did("predict", "bright-cut", "--split", "test").out
    stores = [open_store(day.store(member, "test")) for member in ("whole", "bright-cut")]
    assert np.array_equal(stores[0].records, stores[1].records)


@pytest.mark.parametrize("damage", [cut_short, nothing, text])
def test_a_bad_mask_is_named(day, damage):
    path = day.masks / "7f3_03_mask.gif"
    damage(path)
    assert f"train_masks/{path.name}" in day.do("train").error
    day.did("predict", "bright-cut")
    assert f"train_masks/{path.name}" in day.do("tune", "bright-cut").error


def grey(mask):
    return np.where(mask, 255, 0).astype(np.uint8) - np.roll(mask, 1, axis=0).astype(np.uint8) * 20


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda mask: (mask * 255).astype(np.uint8)[:, 1:], "48x70"),
        (lambda mask: (mask * 255).astype(np.uint8).T.copy(), "71x48"),
        (grey, "grey levels"),
        (lambda mask: mask.astype(np.uint16) * 65535, "8 bits"),
        (lambda mask: np.stack([mask * 255, mask * 0, mask * 0], axis=-1).astype(np.uint8), "colours"),
    ],
)
def test_a_mask_that_does_not_fit_is_named(day, oracle, change, told):
    (day.masks / "7f3_03_mask.gif").unlink()
    PIL.Image.fromarray(change(oracle.ellipse("7f3_03"))).save(day.masks / "7f3_03_mask.png")
    error = day.do("train").error
    assert "7f3_03" in error
    assert told in error


def test_masks_and_photos_that_went_missing_are_named(day):
    (day.masks / "7f3_03_mask.gif").unlink()
    for words in (["train"], ["predict"], ["run"]):
        told = day.do(*words).error
        assert "7f3_03" in told
        assert "train_masks" in told
    (day.images / "7f3_03.jpg").unlink()
    (day.images / "7f3_04.jpg").unlink()
    assert "7f3_04" in day.do("train").error


def test_two_files_of_one_image_are_named(day):
    shutil.copy(day.images / "7f3_03.jpg", day.images / "7f3_03.JPEG")
    told = day.do("predict").error
    assert "7f3_03.JPEG" in told
    assert "7f3_03.jpg" in told
    shutil.copy(day.masks / "0a1_01_mask.gif", day.masks / "0a1_01.gif")
    (day.images / "7f3_03.JPEG").unlink()
    assert "0a1_01_mask.gif" in day.do("train").error


def test_folders_that_are_empty_or_gone_are_named(day):
    shutil.rmtree(day.test)
    assert "test_hq" in day.do("predict", "--split", "test").error
    day.test.mkdir()
    assert "test_hq" in day.do("predict", "--split", "test").error
    shutil.rmtree(day.masks)
    assert "train_masks" in day.do("train").error
    assert day.did("status").code == 0


def test_a_photo_with_a_name_that_cannot_be_an_id(day):
    (day.test / "c9d_01.jpg").rename(day.test / "c9d\n01.jpg")
    assert "control character" in day.do("predict", "--split", "test").error


@pytest.mark.parametrize(
    ("rle", "told"),
    [("5 10 8 2", "overlap"), ("5", "odd count"), ("3400 10", "past the last"), ("5 3 ", "space"), ("x", "'x'")],
)
def test_a_mask_table_with_a_bad_row_is_named(world, oracle, rle, told):
    rows = {f"{i}.jpg": oracle.naive_rle(oracle.ellipse(i)) for i in oracle.TRAIN} | {"7f3_03.jpg": rle}
    table = oracle.write_rows(world.root / "masks.csv", rows)
    world.run("init", world.cars, "--images", world.images, "--masks", table)
    world.did("add-model", "learned-cut")
    error = world.do("train").error
    assert "7f3_03" in error
    assert str(table.name) in error
    assert told in error


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("img,rle_mask\n0a1_01.jpg\n", "row 1"),
        ("img,rle_mask\n0a1_01.jpg,1 5\n0a1_01.jpg,1 5\n", "0a1_01"),
        ("id,mask\n0a1_01.jpg,1 5\n", "header"),
        ("img,rle_mask\n0a1_01.jpg,1 5\n", "do not match"),
    ],
)
def test_a_mask_table_that_cannot_be_read_is_named(world, content, told):
    (world.root / "masks.csv").write_text(content)
    error = world.run("init", world.cars, "--images", world.images, "--masks", world.root / "masks.csv").error
    assert "masks.csv" in error
    assert told in error


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"images": []}', '{"images": [], "annotations": [], "categories": []}']
)
def test_a_coco_file_that_is_none_is_named(world, content):
    (world.root / "masks.json").write_text(content)
    error = world.run("init", world.cars, "--images", world.images, "--masks", world.root / "masks.json").error
    assert "masks.json" in error


TOML = [
    ("", "schema is None"),
    ("schema = 2\n", "schema is 2"),
    ("schema = 1\n[data\n", "not valid TOML"),
    ("schema = 1\n[data]\nimage = 'x'\n", "did you mean 'images'?"),
    ("schema = 1\n[data]\nimages = 3\n", "data.images"),
    ("schema = 1\n[dota]\n", "did you mean 'data'?"),
    ("schema = 1\n[members.net]\n", "members.net has no model"),
    ("schema = 1\n[members.net]\nmodel = 'bright-cut'\nsize = '24'\n", "members.net.size"),
    ("schema = 1\n[members.net]\nmodel = 'bright-cut'\nsize = 24\n", "members.net.size"),
    ("schema = 1\n[members.net]\nmodel = 'bright-cut'\ntta = 'hflip'\n", "members.net.tta"),
    ("schema = 1\n[members.net]\nmodel = 'bright-cut'\nseed = '1'\n", "members.net.seed"),
    ("schema = 1\n[members.net]\nmodel = 'bright-cut'\nfolds = 'other'\n", "'other'"),
    ("schema = 1\n[members.net]\nmodel = 'bright-cut'\nlike = 'net'\n", "members.net.like"),
    ("schema = 1\n[members.tuned]\nmodel = 'bright-cut'\n", "'tuned'"),
    ("schema = 1\n[folds.default]\nfolds = 0\n", "folds.default.folds"),
    ("schema = 1\n[folds.default]\nholdout = 2.0\n", "folds.default.holdout"),
    ("schema = 1\nmembers = 3\n", "members"),
    ("schema = 1\n[data]\ngroup = ''\n", "data.group"),
]


@pytest.mark.parametrize(("content", "told"), TOML)
def test_a_broken_project_file_is_named_with_its_key(world, content, told):
    world.cars.mkdir()
    (world.cars / "ensemble.toml").write_text(content)
    for verb in ("status", "train"):
        done = world.do(verb)
        assert told in done.error
        assert str(world.cars / "ensemble.toml") in done.error
        assert done.code == 1
    assert (world.cars / "ensemble.toml").read_text() == content


def test_a_project_file_that_is_no_text(world):
    world.cars.mkdir()
    (world.cars / "ensemble.toml").write_bytes(b"schema = 1 # \xff\n")
    assert str(world.cars / "ensemble.toml") in world.do("status").error


def test_options_in_the_file_are_checked_when_they_are_used(day):
    file = day.cars / "ensemble.toml"
    before = file.read_text()
    for line, told in (
        ("cutt = 3.0", "did you mean 'cut'?"),
        ("cut = 'dark'", "'dark'"),
        ("soft = -1.0", "soft is -1.0"),
    ):
        file.write_text(before + f"\n[members.bright-cut.options]\n{line}\n")
        error = day.do("predict", "bright-cut", "--split", "test").error
        assert told in error
        assert "member bright-cut" in error
        assert not day.store("bright-cut", "test").exists()


@pytest.mark.parametrize("group", ["(.*", "(.*)(.*)", "(x.*)", ".*"])
def test_a_group_pattern_in_the_file_is_checked_when_it_is_used(day, group):
    file = day.cars / "ensemble.toml"
    file.write_text(file.read_text().replace("[data]", f"[data]\ngroup = '{group}'"))
    told = day.do("train").error
    assert group in told
    assert day.do("predict").code in (1, 2)
