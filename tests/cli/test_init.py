"""carvana-ens init."""

from __future__ import annotations

import shutil
import tomllib

import pytest


def toml(world):
    return tomllib.loads((world.cars / "ensemble.toml").read_text())


def test_photos_masks_and_test_are_written_relative_to_the_project(project):
    assert toml(project) == {
        "schema": 1,
        "data": {"images": "../train_hq", "masks": "../train_masks", "test": "../test_hq"},
        "folds": {"default": {}},
    }


def test_what_was_found_is_said(world):
    done = world.init()
    assert "8 training photos in 2 groups" in done.out
    assert "8 masks" in done.out
    assert "6 test photos in 2 groups" in done.out
    assert str(world.cars / "ensemble.toml") in done.out
    assert done.err == ""


def test_without_photos_the_project_only_blends(world):
    assert world.run("init", world.cars).code == 0
    assert toml(world)["data"] == {}
    assert "names no photos to predict" in world.do("predict").error
    assert "has no members" in world.do("train").error


def test_photos_without_masks(world):
    assert world.run("init", world.cars, "--images", world.images, "--test", world.test).code == 0
    assert set(toml(world)["data"]) == {"images", "test"}


def test_rle_csv_masks(world, oracle):
    rows = {f"{i}.jpg": oracle.naive_rle(oracle.ellipse(i)) for i in oracle.TRAIN}
    table = oracle.write_rows(world.root / "masks.csv", rows)
    done = world.run("init", world.cars, "--images", world.images, "--masks", table)
    assert (done.code, toml(world)["data"]["masks"]) == (0, "../masks.csv")
    world.did("add-model", "learned-cut")
    assert world.did("train").out.count("trained") == 2  # the table's masks are read


def test_coco_masks_with_a_category(world, oracle):
    path = oracle.coco(world.root / "coco.json", {i: oracle.ellipse(i) for i in oracle.TRAIN})
    done = world.run("init", world.cars, "--images", world.images, "--masks", path, "--category", "car")
    assert done.code == 0
    assert toml(world)["data"]["categories"] == ["car"]
    world.did("add-model", "learned-cut")
    assert world.did("train").out.count("trained") == 2


def test_coco_with_an_unknown_category_names_the_nearest(world, oracle):
    path = oracle.coco(world.root / "coco.json", {i: oracle.ellipse(i) for i in oracle.TRAIN})
    told = world.run("init", world.cars, "--images", world.images, "--masks", path, "--category", "cat").error
    assert str(path) in told
    assert "did you mean 'car'" in told
    assert not world.cars.exists()


def test_group_pattern_decides_the_groups(world):
    done = world.init("--group", "(?:.*)_(.*)")  # by view, not by car
    assert "8 training photos in 4 groups" in done.out
    assert toml(world)["data"]["group"] == "(?:.*)_(.*)"


@pytest.mark.parametrize(
    ("pattern", "word"),
    [("(.*", "not a regular expression"), ("(.*)(_.*)", "2 capture groups"), ("(x.*)", "finds no group")],
)
def test_bad_group_pattern_leaves_nothing(world, pattern, word):
    told = world.run("init", world.cars, "--images", world.images, "--group", pattern).error
    assert pattern in told
    assert word in told
    assert not world.cars.exists()


def test_bad_group_pattern_is_refused_without_photos_too(world):
    assert "(.*" in world.run("init", world.cars, "--group", "(.*").error
    assert not world.cars.exists()


def test_holdout_makes_one_fold(world):
    world.init("--group", "(?:.*)_(.*)", "--holdout", "0.25")
    assert toml(world)["folds"]["default"] == {"folds": 1, "holdout": 0.25}
    world.did("add-model", "learned-cut")
    assert world.did("train").out.count("trained") == 1


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--holdout", "1.5"], "1.5"),
        (["--holdout", "nan"], "nan"),
        (["--holdout", "0"], "0.0"),
        (["--folds", "3"], "3 folds cannot be made of 2 groups"),
        (["--folds", "1"], "hold-out"),
        (["--folds", "2", "--holdout", "0.5"], "hold-out"),
        (["--folds", "0"], "--folds"),
        (["--folds", "two"], "--folds"),
        (["--holdout", "some"], "--holdout"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_folds_that_cannot_be_made_leave_nothing(world, options, word):
    done = world.run("init", world.cars, "--images", world.images, "--masks", world.masks, *options)
    assert word in done.error
    assert done.code == 2
    assert not world.cars.exists()


def test_folds_need_masks(world):
    assert "--masks" in world.run("init", world.cars, "--images", world.images, "--folds", "2").error
    assert "--images" in world.run("init", world.cars, "--masks", world.masks).error
    assert "--masks" in world.run("init", world.cars, "--images", world.images, "--category", "car").error


def test_a_second_init_keeps_the_first(project):
    before = (project.cars / "ensemble.toml").read_bytes()
    told = project.run("init", project.cars).error
    assert str(project.cars / "ensemble.toml") in told
    assert (project.cars / "ensemble.toml").read_bytes() == before


def test_missing_mask_and_mask_without_photo_are_named(world):
    (world.masks / "0a1_02_mask.gif").unlink()
    told = world.run("init", world.cars, "--images", world.images, "--masks", world.masks).error
    assert "0a1_02" in told
    (world.images / "0a1_02.jpg").unlink()
    (world.images / "7f3_04.jpg").unlink()
    told = world.run("init", world.cars, "--images", world.images, "--masks", world.masks).error
    assert "7f3_04" in told
    assert "0a1_02" not in told


def test_duplicate_stems_are_refused(world):
    shutil.copy(world.images / "0a1_01.jpg", world.images / "0a1_01.jpeg")
    told = world.run("init", world.cars, "--images", world.images).error
    assert "0a1_01.jpeg" in told
    assert "0a1_01.jpg" in told


@pytest.mark.parametrize("option", ["--images", "--test"])
def test_empty_and_missing_folders_are_named(world, option):
    empty = world.root / "empty"
    empty.mkdir()
    assert str(empty) in world.run("init", world.cars, option, empty).error
    assert "nowhere" in world.run("init", world.cars, option, world.root / "nowhere").error
    told = world.run("init", world.cars, option, world.images / "0a1_01.jpg").error  # a file
    assert "0a1_01.jpg" in told


def test_masks_that_are_nowhere_or_of_no_known_form(world):
    told = world.run("init", world.cars, "--images", world.images, "--masks", world.root / "nowhere").error
    assert "nowhere" in told
    (world.root / "masks.txt").write_text("")
    assert (
        "masks.txt"
        in world.run("init", world.cars, "--images", world.images, "--masks", world.root / "masks.txt").error
    )


def test_the_project_cannot_lie_below_a_file(world):
    below = world.images / "0a1_01.jpg" / "cars"
    assert str(below) in world.run("init", below, "--images", world.images).error


def test_where_the_maps_lie_is_written_and_said(world, bucket):
    done = world.init("--stores", bucket)
    assert done.out.startswith(f"stores at {bucket}\n")
    assert toml(world)["stores"] == bucket
    for wrong in ("http://host/bucket", "s3://"):
        told = world.run("init", world.root / "other", "--stores", wrong).error
        assert wrong in told
        assert not (world.root / "other").exists()
