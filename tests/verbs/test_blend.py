"""carvana-ens blend: exact, and the same whatever the threads and the order."""

from __future__ import annotations

import gzip
import json
from fractions import Fraction

import numpy as np
import PIL.Image
import pytest

MEMBERS = (("b_net", 1.5, -3, 60), ("a_net", 2.5, 4, 90), ("c_net", 1.0, 1, 120))


@pytest.fixture
def three(project):
    """A project with three imported members, and their codes."""
    project.codes = project.kept("three", lambda: project.imported(*MEMBERS))
    return project


@pytest.fixture
def text(three):
    """Blends, and gives the bytes of the submission."""

    def blended(*words):
        three.did("blend", *words, "-o", three.root / "out.csv")
        return (three.root / "out.csv").read_bytes()

    return blended


@pytest.mark.parametrize(
    ("weights", "threshold"),
    [
        ("equal", "0.5"),
        ("b_net=2,a_net=1", "128/255"),
        ("b_net=1/3,a_net=0.25,c_net=1e-1", "0.37"),
        ("c_net=1", "1"),
        ("a_net=5,b_net=0,c_net=3", "1/255"),
    ],
)
def test_rows_equal_whole_numbers_and_a_naive_rle(three, oracle, text, weights, threshold):
    given = dict(part.split("=") for part in weights.split(",")) if weights != "equal" else {n[0]: 1 for n in MEMBERS}
    text("--weights", weights, "--threshold", threshold)
    rows = oracle.read_rows(three.root / "out.csv")
    assert list(rows) == [f"{image_id}.jpg" for image_id in oracle.TEST]
    for image_id in oracle.TEST:
        maps = [three.codes[name][image_id] for name in given]
        mask = oracle.naive_blend(maps, [Fraction(w) for w in given.values()], Fraction(threshold))
        assert rows[f"{image_id}.jpg"] == oracle.naive_rle(mask)


def test_threads_order_and_scale_change_no_byte(three, text):
    plain = text("--weights", "b_net=2,a_net=1", "--threads", "1")
    assert plain.startswith(b"img,rle_mask\nb22_01.jpg,")
    assert b"\r" not in plain
    for words in (
        ["--weights", "b_net=2,a_net=1", "--threads", "2"],
        ["--weights", "b_net=2,a_net=1", "--threads", "7"],
        ["--weights", "a_net=1,b_net=2"],
        ["--weights", "b_net=4,a_net=2"],
        ["--weights", "b_net=0.5,a_net=0.25"],
        ["--weights", "b_net=2/3,a_net=1/3,c_net=0"],
        ["--weights", "b_net=2,a_net=1", "--threshold", "1/2"],
        ["--weights", "b_net=2,a_net=1", "--threshold", ".50"],
    ):
        assert text(*words) == plain
    file = three.cars / "ensemble.toml"
    head, *tables = file.read_text().split("[members.")
    file.write_text(head + "".join("[members." + table.rstrip() + "\n" for table in reversed(tables)))
    assert text("--weights", "b_net=2,a_net=1") == plain
    assert text("--weights", "b_net=1,a_net=2") != plain


def test_gz_holds_the_same_text_and_is_the_same_again(three, text):
    plain = text()
    packed = [three.root / "one.csv.gz", three.root / "two.csv.gz"]
    for path in packed:
        three.did("blend", "-o", path)
    assert gzip.decompress(packed[0].read_bytes()) == plain
    assert packed[0].read_bytes() == packed[1].read_bytes()


def test_what_was_done_is_said(three):
    done = three.did("blend", "--weights", "a_net=4,b_net=2,c_net=0", "--threshold", "0.25", "-o", three.root / "o.csv")
    assert done.out == f"wrote {three.root / 'o.csv'}: 6 images, weights a_net 2, b_net 1, threshold 0.25\n"
    document = json.loads(three.did("blend", "--json", "-o", three.root / "o.csv").out)
    assert document == {
        "path": str(three.root / "o.csv"),
        "images": 6,
        "weights": {"b_net": 1, "a_net": 1, "c_net": 1},
        "threshold": "0.5",
        "postprocess": "",
        "checked": 0,
    }


def test_mask_pictures_equal_the_rows(three, oracle, text):
    text("--masks", three.root / "pngs")
    rows = oracle.read_rows(three.root / "out.csv")
    assert sorted(path.name for path in (three.root / "pngs").iterdir()) == [f"{i}.png" for i in oracle.TEST]
    for image_id in oracle.TEST:
        picture = PIL.Image.open(three.root / "pngs" / f"{image_id}.png")
        pixels = np.asarray(picture)
        assert (picture.mode, set(np.unique(pixels))) == ("L", {0, 255})
        assert np.array_equal(pixels == 255, oracle.naive_decode(rows[f"{image_id}.jpg"], oracle.SIZE))


def test_masks_without_a_submission(three, oracle):
    done = three.did("blend", "--masks", three.root / "pngs")
    assert str(three.root / "pngs") in done.out
    assert len(list((three.root / "pngs").iterdir())) == len(oracle.TEST)


def test_tuned_weights_and_threshold(three, text):
    three.did("tune")
    tuning = json.loads((three.cars / "tuning.json").read_text())
    named = ",".join(f"{name}={weight}" for name, weight in tuning["weights"].items())
    assert text("--weights", "tuned") == text("--weights", named, "--threshold", tuning["threshold"])
    assert text("--weights", "tuned", "--threshold", "0.5") == text("--weights", named, "--threshold", "0.5")
    assert text("--weights", "equal", "--threshold", "tuned") == text("--threshold", tuning["threshold"])
    assert text("--weights", "tuned", "--split", "oof").count(b"\n") == 9


def test_stale_tuning_is_refused(three, oracle, text):
    three.did("tune")
    three.maps("other", oracle.TRAIN, 2, 0)
    three.did("import", "b_net", "--from", three.root / "other", "--split", "oof", "--out-of-fold", "--fresh")
    told = three.do("blend", "--weights", "tuned", "-o", three.root / "x.csv").error
    assert "b_net" in told
    assert "tuning.json" in told
    assert "carvana-ens tune" in told
    assert not (three.root / "x.csv").exists()
    assert "b_net" in three.did("status").out.splitlines()[-1]
    three.did("tune")
    text("--weights", "tuned")


def test_tuning_of_a_member_that_is_gone_is_refused(three):
    three.did("tune")
    three.did("remove-model", "a_net")
    told = three.do("blend", "--weights", "tuned", "-o", three.root / "x.csv").error
    assert "a_net, which is gone" in told
    assert "a_net, which is gone" in three.did("status").out


def test_tuned_values_do_not_fit_maps_of_another_checkpoint(project):
    project.did("add-model", "learned-cut")
    project.did("train")
    project.did("predict")
    project.did("tune")
    file = project.cars / "ensemble.toml"
    file.write_text(file.read_text().replace('model = "learned-cut"', 'model = "learned-cut"\nseed = 9'))
    project.did("train", "--fresh")
    project.did("predict", "--fresh", "--split", "test")
    told = project.do("blend", "--weights", "tuned", "-o", project.root / "x.csv").error
    assert str(project.store("learned-cut", "test")) in told
    assert "learned-cut" in told


def test_tuned_without_tuning(three):
    assert "run carvana-ens tune first" in three.do("blend", "--weights", "tuned", "-o", three.root / "x.csv").error


def test_sample_submission_must_name_the_same_images(three, oracle, text):
    sample = oracle.write_rows(three.root / "sample.csv", {f"{i}.jpg": "" for i in reversed(oracle.TEST)}, end="\r\n")
    assert text("--sample-submission", sample) == text()
    oracle.write_rows(sample, {f"{i}.jpg": "" for i in [*oracle.TEST[1:], "zzz_01"]})
    told = three.do("blend", "-o", three.root / "x.csv", "--sample-submission", sample).error
    assert "zzz_01" in told
    assert oracle.TEST[0] in told
    assert not (three.root / "x.csv").exists()
    told = three.do("blend", "-o", three.root / "x.csv", "--sample-submission", three.root / "nowhere.csv").error
    assert "nowhere.csv" in told


def test_runs_are_recorded_apart(three, text):
    text("--weights", "c_net=1")
    (path,) = (three.cars / "runs").glob("*-blend.json")
    record = json.loads(path.read_text())
    assert (record["verb"], record["weights"], record["images"]) == ("blend", {"c_net": 1}, 6)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--weights", "a_nett=1"], "did you mean 'a_net'?"),
        (["--weights", "zzz=1,a_net=1"], "there are: b_net, a_net, c_net"),
        (["--weights", "a_net=-1,b_net=2"], "'a_net' is -1"),
        (["--weights", "a_net=0,b_net=0"], "all weights are 0"),
        (["--weights", "a_net=nan"], "'nan'"),
        (["--weights", "a_net=inf"], "'inf'"),
        (["--weights", "a_net=1,a_net=2"], "'a_net' twice"),
        (["--weights", "a_net"], "not name=weight"),
        (["--weights", "a_net=1,"], "not name=weight"),
        (["--weights", ""], "weights"),
        (["--weights", "a_net=1/0"], "'1/0'"),
        (["--threshold", "0"], "'0'"),
        (["--threshold", "1.5"], "'1.5'"),
        (["--threshold", "nan"], "'nan'"),
        (["--threshold", "half"], "'half'"),
        (["--threshold", "-0.5"], "'-0.5'"),
        (["--threshold", ""], "''"),
        (["--threads", "0"], "--threads"),
        (["--threads", "many"], "--threads"),
        (["--split", "more"], "more"),
        (["--wieghts", "equal"], "--wieghts"),
    ],
)
def test_what_cannot_be_meant(three, words, told):
    done = three.do("blend", "-o", three.root / "x.csv", *words)
    assert told in done.error
    assert not (three.root / "x.csv").exists()


def test_outputs_that_cannot_be_written(three):
    assert "nothing to write" in three.do("blend").error
    for name in ("x.txt", "x", "x.gz", ".csv.zip"):
        assert name in three.do("blend", "-o", three.root / name).error
    below = three.root / "train_hq" / "0a1_01.jpg" / "deep"
    assert str(below) in three.do("blend", "-o", below / "x.csv").error
    assert str(below) in three.do("blend", "--masks", below).error
    assert str(three.root) in three.do("blend", "-o", three.root).error


def test_an_old_submission_outlives_a_failed_blend(three, text):
    before = text()
    chunk = three.store("c_net", "test") / "prob" / "c" / "4" / "0" / "0"
    chunk.unlink()
    told = three.do("blend", "-o", three.root / "out.csv").error
    assert "c9d_02" in told
    assert str(three.store("c_net", "test")) in told
    assert (three.root / "out.csv").read_bytes() == before
    assert [path.name for path in three.root.iterdir() if "partial" in path.name] == []


def test_members_without_maps_are_not_left_out_in_silence(three):
    three.did("add-model", "bright-cut")
    assert "bright-cut has no test maps" in three.do("blend", "-o", three.root / "x.csv").error
    three.did("blend", "--weights", "a_net=1,bright-cut=0", "-o", three.root / "x.csv")


def test_maps_of_other_photos_are_refused(three, oracle):
    oracle.save_photo(three.test, "zzz_01")
    three.did("add-model", "bright-cut")
    three.did("predict", "--split", "test")
    told = three.do("blend", "-o", three.root / "x.csv").error
    assert "zzz_01" in told
    assert str(three.store("bright-cut", "test")) in told


def test_names_that_a_csv_must_quote_come_back(world, oracle):
    world.run("init", world.cars)
    codes = {}
    for seed, image_id in enumerate(["a,b_01", 'say "hi"_02', "grüße_03", "with space_04", "img_05"]):
        codes[image_id] = oracle.blurred(oracle.ellipse(image_id), 1, seed)
        oracle.save_grey(world.root / "maps" / f"{image_id}.png", codes[image_id])
        oracle.save_mask(world.root / "truth", image_id, oracle.ellipse(image_id))
    world.did("import", "net", "--from", world.root / "maps", "--split", "test")
    world.did("blend", "-o", world.root / "out.csv")
    rows = oracle.read_rows(world.root / "out.csv")  # by Python's csv module
    assert rows == {f"{i}.jpg": oracle.naive_rle(c >= 128) for i, c in sorted(codes.items())}
    found = json.loads(world.run("evaluate", world.root / "out.csv", "--masks", world.root / "truth", "--json").out)
    assert found["by_image"] == pytest.approx(
        {i: oracle.naive_dice(c >= 128, oracle.ellipse(i)) for i, c in codes.items()}
    )


def test_no_members(project):
    assert "has no members" in project.do("blend", "-o", project.root / "x.csv").error
