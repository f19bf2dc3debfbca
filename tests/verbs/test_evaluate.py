"""carvana-ens evaluate, also of files that were not made here."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest


@pytest.fixture
def guess(world, oracle):
    """Masks that are a little wrong, by id; one is empty."""
    masks = {i: np.roll(oracle.ellipse(i), n, axis=1) for n, i in enumerate(oracle.TEST)}
    masks[oracle.TEST[-1]] = np.zeros(oracle.SIZE, bool)
    return masks


@pytest.fixture
def table(world, oracle, guess):
    """A CSV of the guesses as other programs leave it: byte order mark, CRLF, ids without extension here and there."""
    rows = {i + (".jpg" if n % 2 else ""): oracle.naive_rle(mask) for n, (i, mask) in enumerate(guess.items())}
    return oracle.write_rows(world.root / "foreign.csv", rows, end="\r\n", start=b"\xef\xbb\xbf")


@pytest.fixture
def expected(oracle, guess):
    """Mean and pooled Dice, and Dice by image, in plain numpy."""
    by_image = {i: oracle.naive_dice(mask, oracle.ellipse(i)) for i, mask in guess.items()}
    both = sum(int((mask & oracle.ellipse(i)).sum()) for i, mask in guess.items())
    areas = sum(int(mask.sum() + oracle.ellipse(i).sum()) for i, mask in guess.items())
    return {"dice": float(np.mean(list(by_image.values()))), "pooled": 2 * both / areas, "by_image": by_image}


def check(done, expected):
    assert (done.code, done.err) == (0, "")
    document = json.loads(done.out)
    assert document["metric"] == "mean Dice"
    assert document["images"] == 6
    assert document["dice"] == pytest.approx(expected["dice"], abs=1e-12)
    assert document["pooled_dice"] == pytest.approx(expected["pooled"], abs=1e-12)
    assert document["by_image"] == pytest.approx(expected["by_image"], abs=1e-12)
    for group, ids in {"b22": list(expected["by_image"])[:3], "c9d": list(expected["by_image"])[3:]}.items():
        mean = np.mean([expected["by_image"][i] for i in ids])
        assert document["groups"][group] == pytest.approx(mean, abs=1e-12)


def test_a_folder_of_masks(world, table, expected):
    check(world.run("evaluate", table, "--masks", world.test_masks, "--json"), expected)


def test_a_coco_file(world, oracle, table, expected):
    path = oracle.coco(world.root / "truth.json", {i: oracle.ellipse(i) for i in oracle.TEST})
    check(world.run("evaluate", table, "--masks", path, "--category", "car", "--json"), expected)
    assert "did you mean 'car'?" in world.run("evaluate", table, "--masks", path, "--category", "cat").error


def test_an_rle_table_needs_the_size(world, oracle, table, expected):
    rows = {f"{i}.jpg": oracle.naive_rle(oracle.ellipse(i)) for i in oracle.TEST}
    path = oracle.write_rows(world.root / "truth.csv", rows)
    done = world.run("evaluate", table, "--masks", path)
    assert "--images" in done.error
    assert "--size" in done.error
    check(world.run("evaluate", table, "--masks", path, "--images", world.test, "--json"), expected)
    check(world.run("evaluate", table, "--masks", path, "--size", "48x71", "--json"), expected)


def test_a_packed_table(world, table, expected):
    packed = world.root / "foreign.csv.gz"
    packed.write_bytes(gzip.compress(table.read_bytes()))
    check(world.run("evaluate", packed, "--masks", world.test_masks, "--json"), expected)


def test_words(world, table, expected):
    done = world.run("evaluate", table, "--masks", world.test_masks)
    assert f"mean Dice {expected['dice']:.6f} of 6 images (pooled Dice {expected['pooled']:.6f})" in done.out
    assert "worst: c9d_03 0.0000" in done.out
    mean = np.mean(list(expected["by_image"].values())[:3])
    assert f"b22    {mean:.6f}" in done.out


def test_groups_by_a_pattern(world, table, expected):
    done = world.run("evaluate", table, "--masks", world.test_masks, "--group", ".*_(.*)", "--json")
    groups = json.loads(done.out)["groups"]
    assert list(groups) == ["01", "02", "03"]
    mean = (expected["by_image"]["b22_02"] + expected["by_image"]["c9d_02"]) / 2
    assert groups["02"] == pytest.approx(mean, abs=1e-12)
    assert "(x" in world.run("evaluate", table, "--masks", world.test_masks, "--group", "(x").error


def test_what_only_one_side_has(world, oracle, table, expected):
    (world.test_masks / "b22_01_mask.gif").unlink()
    told = world.run("evaluate", table, "--masks", world.test_masks).error
    assert "b22_01" in told
    assert "--partial" in told
    oracle.save_mask(world.test_masks, "zzz_01", oracle.ellipse("b22_01"))
    rows = {f"{i}.jpg": oracle.naive_rle(oracle.ellipse(i)) for i in oracle.TEST[1:]}
    fewer = oracle.write_rows(world.root / "fewer.csv", rows)
    assert "zzz_01" in world.run("evaluate", fewer, "--masks", world.test_masks).error
    document = json.loads(world.run("evaluate", table, "--masks", world.test_masks, "--partial", "--json").out)
    assert document["images"] == 5
    assert document["dice"] == pytest.approx(np.mean(list(expected["by_image"].values())[1:]), abs=1e-12)
    nothing = oracle.write_rows(world.root / "nothing.csv", {"other_01.jpg": "1 5"})
    assert "no id in common" in world.run("evaluate", nothing, "--masks", world.test_masks, "--partial").error


def test_our_own_blend_scores_as_its_masks_do(project, oracle):
    project.imported(("net", 2, 2, 40))
    project.did("blend", "-o", project.root / "out.csv.gz", "--masks", project.root / "pngs")
    by_table = project.run("evaluate", project.root / "out.csv.gz", "--masks", project.test_masks, "--json")
    codes = {i: oracle.blurred(oracle.ellipse(i), 2, 2, 40, seed=99) for i in oracle.TEST}
    dices = [oracle.naive_dice(codes[i] >= 128, oracle.ellipse(i)) for i in oracle.TEST]
    assert json.loads(by_table.out)["dice"] == pytest.approx(np.mean(dices), abs=1e-12)


@pytest.mark.parametrize(
    ("rle", "told"),
    [
        ("5 10 8 2", "overlap"),
        ("20 5 1 3", "increasing order"),
        ("5", "odd count"),
        ("5 10 7", "odd count"),
        ("3400 10", "3408"),
        ("0 3", "1"),
        ("5 0", "length"),
        ("5 -3", "'-'"),
        ("a b", "'a'"),
        ("1.5 2", "'.'"),
        ("99999999999999999999 1", "past the last"),
    ],
)
def test_rows_that_are_no_encoding_of_the_image(world, oracle, guess, rle, told):
    rows = {f"{i}.jpg": oracle.naive_rle(mask) for i, mask in guess.items()} | {"b22_02.jpg": rle}
    path = oracle.write_rows(world.root / "bad.csv", rows)
    error = world.run("evaluate", path, "--masks", world.test_masks).error
    assert "b22_02" in error
    assert str(path) in error
    assert told in error


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("img,rle_mask\nb22_01.jpg,1 5,7\n", "row 1"),
        ("img,rle_mask\nb22_01.jpg,1 5\nb22_02.jpg\n", "row 2"),
        ("img,rle_mask\nb22_01.jpg,1 5\nb22_01.jpg,1 5\n", "b22_01"),
        ("img,rle_mask\nb22_01.jpg,1 5\nb22_01,1 5\n", "b22_01"),
        ("image,mask\nb22_01.jpg,1 5\n", "header"),
        ("b22_01.jpg,1 5\n", "header"),
        ("", "header"),
        ("img,rle_mask\n", "no rows"),
        ("img,rle_mask\n../b22_01.jpg,1 5\n", "row 1"),
    ],
)
def test_tables_that_cannot_be_read(world, text, told):
    path = world.root / "bad.csv"
    path.write_text(text)
    error = world.run("evaluate", path, "--masks", world.test_masks).error
    assert told in error
    assert str(path) in error
    # the same file as the truth
    good = world.root / "good.csv"
    good.write_text("img,rle_mask\nb22_01.jpg,1 5\n")
    error = world.run("evaluate", good, "--masks", path, "--size", "48x71", "--partial").error
    assert str(path) in error


def test_files_that_are_not_there(world, table):
    assert "nowhere.csv" in world.run("evaluate", world.root / "nowhere.csv", "--masks", world.test_masks).error
    assert "nowhere" in world.run("evaluate", table, "--masks", world.root / "nowhere").error
    assert "foreign.txt" in world.run("evaluate", world.root / "foreign.txt", "--masks", world.test_masks).error
    done = world.run("evaluate", table)
    assert "--masks" in done.error
    assert done.code == 2


def test_a_mask_of_another_size_than_is_said(world, table):
    told = world.run("evaluate", table, "--masks", world.test_masks, "--size", "71x48").error
    assert "b22_01" in told
    assert "48x71" in told


def test_damaged_truth_is_named(world, table):
    path = world.test_masks / "b22_02_mask.gif"
    path.write_bytes(path.read_bytes()[:40])
    assert str(path) in world.run("evaluate", table, "--masks", world.test_masks).error


def test_a_cut_off_gz_is_named(world, table):
    packed = world.root / "cut.csv.gz"
    packed.write_bytes(gzip.compress(table.read_bytes())[:-20])
    assert str(packed) in world.run("evaluate", packed, "--masks", world.test_masks).error


def test_the_masks_of_the_project_are_decoded_once(project, oracle, monkeypatch):
    masks = {i: np.roll(oracle.ellipse(i), n, axis=1) for n, i in enumerate(oracle.TRAIN)}
    path = oracle.write_rows(project.root / "oof.csv", {f"{i}.jpg": oracle.naive_rle(m) for i, m in masks.items()})
    first = json.loads(project.did("evaluate", path, "--json").out)
    expected = {i: oracle.naive_dice(mask, oracle.ellipse(i)) for i, mask in masks.items()}
    assert first["by_image"] == pytest.approx(expected, abs=1e-12)
    assert first == json.loads(project.did("evaluate", path, "--masks", project.masks, "--json").out)
    from carvana_ens.data.masks import open_masks

    monkeypatch.setattr(type(open_masks(project.masks)), "read", None)
    assert json.loads(project.did("evaluate", path, "--json").out) == first
    assert "--size says how to read --masks" in project.do("evaluate", path, "--size", "48x71").err
