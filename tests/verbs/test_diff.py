"""diff: two submissions against a count pixel by pixel, and two locks in words."""

from __future__ import annotations

import gzip
import json
import zipfile

import numpy as np
import pytest

from carvana_ens.core.rle_dialects import DIALECTS

SIZE = "48x71"


@pytest.fixture
def masks(oracle):
    """Two masks of each of six images: the same of the first two, an empty one on either side, and both empty."""
    found = {}
    for number, image_id in enumerate(oracle.TEST):
        mask = oracle.ellipse(image_id)
        found[image_id] = (mask, np.roll(mask, (0, 0, 1, 3, 0, 0)[number], axis=1))
    empty = np.zeros(oracle.SIZE, bool)
    found[oracle.TEST[4]] = (found[oracle.TEST[4]][0], empty)
    found[oracle.TEST[5]] = (empty, empty)
    return found


@pytest.fixture
def pair(tmp_path, oracle, masks):
    """The masks as two submissions."""
    for side, name in enumerate(("one.csv", "other.csv")):
        rows = {f"{image_id}.jpg": oracle.naive_rle(both[side]) for image_id, both in masks.items()}
        oracle.write_rows(tmp_path / name, rows)
    return tmp_path / "one.csv", tmp_path / "other.csv"


def compared(run, *words):
    done = run("diff", *words, "--json")
    assert done.code in (0, 1), done
    return done.code, json.loads(done.out)


@pytest.mark.parametrize("threads", [1, 2])
def test_pixels_and_dice_equal_a_naive_count(run, oracle, masks, pair, threads):
    code, found = compared(run, *pair, "--size", SIZE, "--threads", threads)
    pixels = {image_id: int((a != b).sum()) for image_id, (a, b) in masks.items()}
    dices = {image_id: oracle.naive_dice(a, b) for image_id, (a, b) in masks.items()}
    worst = sorted((image_id for image_id in masks if pixels[image_id]), key=dices.get)
    assert len(worst) == 3
    assert (code, found["same"], found["images"], found["differing"]) == (1, False, 6, 3)
    assert found["pixels"] == sum(pixels.values())
    assert found["mean_dice"] == pytest.approx(np.mean(list(dices.values())), abs=1e-12)
    assert [image["image"] for image in found["worst"]] == worst
    for image in found["worst"]:
        mine = image["image"]
        assert (image["pixels"], image["areas"]) == (pixels[mine], [int(mask.sum()) for mask in masks[mine]])
        assert image["dice"] == pytest.approx(dices[mine], abs=1e-12)


def test_what_is_said(run, pair):
    done = run("diff", *pair, "--size", SIZE, "--worst", "1")
    first, head, worst = done.out.splitlines()
    assert first.startswith("3 of 6 images differ, in ")
    assert head.split() == ["IMAGE", "PIXELS", "DICE", "AREA", "IN", "ONE", "IN", "OTHER"]
    assert worst.split()[0] == "c9d_02"
    assert len(run("diff", *pair, "--size", SIZE, "--worst", "0").out.splitlines()) == 1


def test_equal_texts_need_no_size_and_are_not_decoded(run, oracle, tmp_path):
    rows = {"a_01.jpg": "1 2", "a_02.jpg": "this would decode to nothing"}
    one = oracle.write_rows(tmp_path / "one.csv", rows)
    other = tmp_path / "other.csv.gz"
    other.write_bytes(gzip.compress(one.read_bytes()))
    done = run("diff", one, other)
    assert (done.code, done.out) == (0, "the same masks of 2 images: every row has the same text\n")


def test_rows_that_differ_need_a_size(run, pair):
    told = run("diff", *pair).error
    assert "--images" in told
    assert "b22_03" in told
    assert "give one of them" in run("diff", *pair, "--size", SIZE, "--images", pair[0].parent).error


def test_sizes_of_photos(run, pair, drawn):
    assert compared(run, *pair, "--images", drawn / "test_hq") == compared(run, *pair, "--size", SIZE)


def test_the_order_of_rows_does_not_matter_and_ids_of_one_side_are_named(run, oracle, masks, pair, tmp_path):
    rows = oracle.read_rows(pair[1])
    turned = dict(reversed(rows.items()))
    del turned["b22_01.jpg"]
    turned |= {"zzz_01.jpg": "", "zzz_02.jpg": "1 1"}
    other = oracle.write_rows(tmp_path / "turned.csv", turned, end="\r\n")
    code, found = compared(run, pair[0], other, "--size", SIZE)
    straight = compared(run, *pair, "--size", SIZE)[1]
    assert (code, found["images"], found["worst"]) == (1, 5, straight["worst"])
    assert (found["only_in_one"], found["only_in_other"]) == (["b22_01"], ["zzz_01", "zzz_02"])
    told = run("diff", pair[0], other, "--size", SIZE).out.splitlines()
    assert told[:2] == [
        f"only in {pair[0]}: 1 images, b22_01",
        f"only in {other}: 2 images, zzz_01, zzz_02",
    ]


def test_ids_of_one_side_alone_are_a_difference(run, oracle, tmp_path):
    one = oracle.write_rows(tmp_path / "one.csv", {"a_01.jpg": "1 2", "a_02.jpg": ""})
    other = oracle.write_rows(tmp_path / "other.csv", {"a_01.jpg": "1 2"})
    assert compared(run, one, other)[0] == 1
    none = oracle.write_rows(tmp_path / "none.csv", {"b_01.jpg": "1 2"})
    code, found = compared(run, none, other)
    assert (code, found["images"], found["mean_dice"]) == (1, 0, None)


@pytest.mark.parametrize("dialect", sorted(set(DIALECTS) - {"carvana"}))
def test_other_dialects(run, oracle, masks, pair, tmp_path, dialect):
    rows = {f"{image_id}.jpg": DIALECTS[dialect].encode(both[1]) for image_id, both in masks.items()}
    other = oracle.write_rows(tmp_path / "dialect.csv", rows)
    words = ["--size", SIZE, "--other-dialect", dialect]
    assert compared(run, pair[0], other, *words) == compared(run, *pair, "--size", SIZE)
    code, found = compared(run, pair[1], other, *words)
    assert (code, found["same"], found["mean_dice"]) == (0, True, 1.0)
    assert "6 rows are written otherwise" in run("diff", pair[1], other, *words).out
    archive = tmp_path / "dialect.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(other, "dialect.csv")
    done = run("diff", other, archive, "--dialect", dialect)
    assert (done.code, "every row has the same text" in done.out) == (0, True)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ({"b22_03.jpg": "1 99999"}, "b22_03"),
        ({"b22_03.jpg": "2 x"}, "b22_03"),
    ],
)
def test_rows_that_are_no_masks(run, oracle, pair, tmp_path, rows, told):
    bad = oracle.write_rows(tmp_path / "bad.csv", oracle.read_rows(pair[1]) | rows)
    error = run("diff", pair[0], bad, "--size", SIZE).error
    assert told in error
    assert str(bad) in error


def test_files_that_cannot_be_compared(run, oracle, pair, tmp_path):
    twice = tmp_path / "twice.csv"
    twice.write_text(pair[0].read_text() + "b22_01.jpg,1 1\n")
    for words in ((pair[0], twice), (twice, pair[0])):
        told = run("diff", *words, "--size", SIZE).error
        assert "b22_01" in told
        assert str(twice) in told
    gone = tmp_path / "gone.csv"
    assert str(gone) in run("diff", pair[0], gone).error
    assert "one of each" in run("diff", pair[0], tmp_path / "x.json").error
    assert "neither a lock" in run("diff", pair[0], tmp_path / "x.txt").error
    assert "'zigzag'" in run("diff", *pair, "--other-dialect", "zigzag").error


def test_two_locks_in_words(project, oracle):
    project.imported(("a_net", 1.5, -3, 60), ("b_net", 2.5, 4, 90))
    one, other = project.root / "one.lock.json", project.root / "other.lock.json"
    project.did("lock", "-o", one)
    project.did("lock", "-o", other)
    done = project.run("diff", one, other)  # needs no project
    assert (done.code, done.out) == (0, "the same in all that is compared\n")
    project.did("lock", "--weights", "a_net=2,b_net=1", "--threshold", "128/255", "-o", other)
    shas = [json.loads(path.read_text())["lock"]["submission_sha256"] for path in (one, other)]
    done = project.run("diff", one, other)
    assert done.code == 1
    assert done.out.splitlines() == [
        f"weight of a_net: 1 in {one}, 2 in {other}",
        f"threshold: 1/2 in {one}, 128/255 in {other}",
        f"text of the submission: sha256 {shas[0][:12]}... in {one}, sha256 {shas[1][:12]}... in {other}",
    ]
    project.did("lock", "--weights", "a_net=1", "--postprocess", "largest", "-o", other)
    found = compared(project.run, one, other)[1]
    assert found["same"] is False
    assert f"member b_net: only in {one}" in found["differences"]
    assert any(line.startswith(f"post-processing: none in {one}, largest") for line in found["differences"])
    assert any("packages of its steps: none" in line for line in found["differences"])


def test_a_file_that_is_no_lock(project):
    project.imported(("a_net", 1.5, -3, 60))
    path = project.root / "ensemble.lock.json"
    project.did("lock", "-o", path)
    good = path.read_text()
    other = project.root / "other.json"
    for damaged, told in (
        (good.replace('"cut": "threshold"', '"cut": "expected-dice"'), "was changed after it was made"),
        (good.replace('"schema": 1,\n  "sha256"', '"schema": 7,\n  "sha256"'), "schema 7"),
        (good[:-20], "no lock"),
        ("[1, 2]", "no lock"),
        ('{"schema": 2, "weights": {}}', "no lock"),
        ("\x00\xff", "no lock"),
    ):
        assert damaged != good
        other.write_text(damaged, encoding="latin-1")
        error = project.run("diff", path, other).error
        assert str(other) in error
        assert told in error
        assert str(other) in project.do("replay", other, "--dry-run").error
    assert "make it with carvana-ens lock" in project.run("diff", path, project.root / "gone.json").error
