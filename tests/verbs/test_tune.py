"""carvana-ens tune."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

MEMBERS = (("left", 1.5, -3, 60), ("right", 2.5, 4, 90))


@pytest.fixture
def pair(project):
    """A project with two imported members, and their codes."""
    project.codes = project.kept("pair", lambda: project.imported(*MEMBERS))
    return project


def tuning(world):
    return json.loads((world.cars / "tuning.json").read_text())


def naive_curve(oracle, codes, weights):
    """Mean Dice over the training photos at the 255 thresholds."""
    curve = np.zeros(255)
    for image_id in oracle.TRAIN:
        truth = oracle.ellipse(image_id)
        blend = sum(w * c[image_id].astype(np.int64) for w, c in zip(weights, codes.values(), strict=True))
        for k in range(1, 256):
            curve[k - 1] += oracle.naive_dice(blend >= k * sum(weights), truth)
    return curve / len(oracle.TRAIN)


def test_scores_and_threshold_equal_a_search_in_plain_numpy(pair, oracle):
    done = pair.did("tune", "--rounds", "6")
    found = tuning(pair)
    curves = {w: naive_curve(oracle, pair.codes, w) for w in product(range(5), repeat=2) if 0 < sum(w) <= 6}
    chosen = tuple(found["weights"].values())
    assert list(found["weights"]) == ["left", "right"]
    assert found["scores"]["tuned"] == pytest.approx(curves[chosen].max(), abs=1e-12)
    assert found["scores"]["equal"] == pytest.approx(curves[1, 1].max(), abs=1e-12)
    assert found["singles"] == pytest.approx({"left": curves[1, 0].max(), "right": curves[0, 1].max()}, abs=1e-12)
    assert found["scores"]["best single"] == max(found["singles"].values())
    assert found["scores"]["tuned"] >= max(found["scores"]["equal"], found["scores"]["best single"])
    # greedy selection, step by step: the member that makes the best blend joins
    counts, path = (0, 0), []
    for _ in range(6):
        steps = [(counts[0] + 1, counts[1]), (counts[0], counts[1] + 1)]
        scores = [round((curves.get(s) if s in curves else naive_curve(oracle, pair.codes, s)).max(), 9) for s in steps]
        counts = steps[scores.index(max(scores))]
        path.append((max(scores), counts))
    best = max(score for score, _ in path)
    assert chosen == next(counts for score, counts in path if score == best)
    best_levels = np.flatnonzero(np.round(curves[chosen], 9) == np.round(curves[chosen], 9).max()) + 1
    assert Fraction(found["threshold"]) in {Fraction(int(level), 255) for level in best_levels}
    assert found["images"] == 8
    for line in (f"threshold {found['threshold']}", "mean Dice of 8 out-of-fold photos", "tuned on"):
        assert line in done.out


def test_never_below_equal_and_the_best_single(project):
    """The first choice of the search is the best single; one round cannot reach equal weights."""
    project.imported(*MEMBERS)
    project.did("tune", "--rounds", "1")
    found = tuning(project)
    assert found["scores"]["equal"] > found["scores"]["best single"]
    assert found["scores"]["tuned"] == found["scores"]["equal"]
    assert found["weights"] == {"left": 1, "right": 1}
    assert project.did("status").out.rstrip().endswith("tuning: fresh")


def test_a_copy_of_a_member_joins_for_nothing(project):
    project.imported(("net", 2, 2, 50), ("twin", 2, 2, 50))
    project.did("tune")
    assert tuning(project)["weights"] == {"net": 1, "twin": 0}


def test_some_members_only(pair):
    pair.did("tune", "right")
    assert tuning(pair)["weights"] == {"right": 1}
    assert "did you mean 'right'?" in pair.do("tune", "rigth").error
    pair.did("blend", "--weights", "tuned", "-o", pair.root / "out.csv")


def test_json_is_the_file(pair):
    document = json.loads(pair.did("tune", "--json").out)
    written = tuning(pair)
    written.pop("schema")
    assert document == written


def test_the_same_again(pair):
    pair.did("tune")
    first = (pair.cars / "tuning.json").read_bytes()
    pair.did("tune")
    assert (pair.cars / "tuning.json").read_bytes() == first


def test_maps_that_nobody_declared_are_refused(pair, oracle):
    pair.maps("more", oracle.TRAIN, 2, 0)
    pair.did("import", "more", "--from", pair.root / "more", "--split", "oof")
    told = pair.do("tune").error
    assert str(pair.store("more", "oof")) in told
    assert "--out-of-fold" in told
    assert not (pair.cars / "tuning.json").exists()
    pair.did("tune", "left", "right")


def test_a_checkpoint_of_unknown_origin_is_refused_until_declared(project):
    (project.root / "cut.json").write_text('{"cut": 120.0}')
    project.did("add-model", "learned-cut", "--checkpoint", project.root / "cut.json")
    project.did("predict")
    assert str(project.store("learned-cut", "oof")) in project.do("tune").error
    project.did(
        "add-model", "learned-cut", "--name", "said", "--checkpoint", project.root / "cut.json", "--out-of-fold"
    )
    project.did("predict", "said")
    project.did("tune", "said")


def test_incomplete_and_missing_maps_are_refused(project):
    project.did("add-model", "learned-cut")
    told = project.do("tune").error
    assert "learned-cut has no out-of-fold maps" in told
    project.did("train")
    project.did("predict", "--fold", "0")
    told = project.do("tune").error
    assert "lacks 4 of 8 maps" in told
    assert any(image_id in told for image_id in ("0a1_01", "7f3_01"))


def test_what_a_holdout_leaves_out_is_said(world, oracle):
    world.init("--group", "(?:.*)_(.*)")  # four groups, the views
    world.did("add-model", "learned-cut", "--name", "all", "--set", "epochs=1")
    world.did("add-model", "learned-cut", "--name", "part", "--holdout", "0.5", "--set", "epochs=1")
    world.did("train")
    world.did("predict", "--split", "oof")
    done = world.did("tune")
    assert "4 of 8 photos are not out-of-fold for every member and are left out" in done.err
    assert tuning(world)["images"] == 4
    table = json.loads((world.cars / "folds" / "holdout50.json").read_text())["assignment"]
    held_out = [i for i in oracle.TRAIN if table[i.partition("_")[2]] == 0]
    from carvana_ens import open_store

    assert list(open_store(world.store("part", "oof")).ids) == held_out
    alone = {}
    for name in ("all", "part"):
        store = open_store(world.store(name, "oof"))
        curves = [[oracle.naive_dice(store.read(i) >= k, oracle.ellipse(i)) for i in held_out] for k in range(1, 256)]
        alone[name] = np.mean(curves, axis=1).max()
    assert tuning(world)["singles"] == pytest.approx(alone, abs=1e-12)


def test_members_that_share_no_photo_cannot_be_tuned(world):
    world.init("--group", "(?:.*)_(.*)")
    for name, seed in (("one", 0), ("two", 0)):
        world.did("add-model", "learned-cut", "--name", name, "--holdout", "0.25", "--seed", seed)
    file = world.cars / "ensemble.toml"
    file.write_text(
        file.read_text().replace(
            "[members.two]", "[folds.other]\nfolds = 1\nholdout = 0.25\nseed = SEED\n[members.two]"
        )
    )
    text = file.read_text()
    head, two = text.split("[members.two]")
    for seed in range(1, 40):  # another seed holds another view out
        file.write_text(head.replace("SEED", str(seed)) + "[members.two]" + two.replace("holdout25", "other"))
        world.did("train", "--fresh")
        world.did("predict", "--fresh", "--split", "oof")
        done = world.do("tune")
        if done.code:
            break
        (world.cars / "folds" / "other.json").unlink()
    assert "no image is out-of-fold for every member" in done.error


def test_a_mask_of_another_size_is_named(pair, oracle):
    oracle.save_mask(pair.masks, "7f3_02", oracle.ellipse("7f3_02")[:, 1:])
    told = pair.do("tune").error
    assert "7f3_02" in told
    assert "48x70" in told


def test_tuning_needs_masks(world, oracle):
    world.run("init", world.cars, "--images", world.images)
    world.maps("maps", oracle.TRAIN, 1, 0)
    world.did("import", "net", "--from", world.root / "maps", "--split", "oof", "--out-of-fold")
    assert "data.masks" in world.do("tune").error


@pytest.mark.parametrize("rounds", ["0", "-3", "many", "1.5"])
def test_rounds_that_cannot_be_meant(pair, rounds):
    done = pair.do("tune", "--rounds", rounds)
    assert "--rounds" in done.error
    assert done.code == 2
