"""carvana-ens tune."""

from __future__ import annotations

import base64
import dataclasses
import json
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from carvana_ens.data.folds import read_folds, write_folds

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


def test_scores_and_threshold_equal_plain_numpy(pair, oracle):
    done = pair.did("tune", "--rounds", "6", "--from", "0.2", "--to", "1")
    found = tuning(pair)
    tried = slice(50, 255)  # 51/255 .. 255/255

    def curve(*weights):
        return naive_curve(oracle, pair.codes, weights)[tried]

    assert list(found["weights"]) == ["left", "right"]
    mine = curve(*found["weights"].values())
    assert found["scores"]["tuned"] == pytest.approx(mine.max(), abs=1e-12)
    assert found["scores"]["equal"] == pytest.approx(curve(1, 1).max(), abs=1e-12)
    assert found["singles"] == pytest.approx({"left": curve(1, 0).max(), "right": curve(0, 1).max()}, abs=1e-12)
    assert found["scores"]["best single"] == max(found["singles"].values())
    small = [weights for weights in product(range(5), repeat=2) if 0 < sum(weights) <= 6]
    assert found["scores"]["tuned"] >= max(curve(*weights).max() for weights in small) - 1e-9
    levels = np.flatnonzero(np.round(mine, 9) == np.round(mine, 9).max()) + 51
    assert Fraction(found["threshold"]) in {Fraction(int(level), 255) for level in levels}
    assert found["images"] == 8
    for line in (f"threshold {found['threshold']}", "mean Dice of the 8 out-of-fold photos", "tuned on"):
        assert line in done.out


def test_never_below_the_other_ways(pair):
    pair.did("tune", "--rounds", "1")
    scores = tuning(pair)["scores"]
    assert list(scores) == ["tuned", "best single", "equal", "separate", "joint"]
    assert scores["tuned"] == max(scores.values())
    assert scores["equal"] > scores["best single"]
    assert pair.did("status").out.rstrip().endswith("tuning: fresh")


@pytest.mark.parametrize(("objective", "metric"), [("pooled-dice", "pooled Dice"), ("mean-iou", "mean IoU")])
def test_another_objective_at_one_threshold(pair, oracle, objective, metric):
    done = pair.did("tune", "--objective", objective, "--from", "0.4", "--to", "2/5")
    found = tuning(pair)
    weights = found["weights"].values()
    rows = []
    for image_id in oracle.TRAIN:
        truth = oracle.ellipse(image_id)
        blend = sum(w * c[image_id].astype(np.int64) for w, c in zip(weights, pair.codes.values(), strict=True))
        on = blend >= 102 * sum(weights)
        rows.append((int((on & truth).sum()), int(on.sum()), int(truth.sum())))
    both, here, there = np.array(rows).T
    scores = {"pooled Dice": 2 * both.sum() / (here + there).sum(), "mean IoU": np.mean(both / (here + there - both))}
    assert found["metric"] == metric
    assert found["threshold"] == "0.4"
    assert found["scores"]["tuned"] == pytest.approx(scores[metric], abs=1e-12)
    assert f"{metric} of the 8 out-of-fold photos" in done.out
    assert "end of those that were tried" not in done.err


def test_the_end_of_the_thresholds_is_told(pair):
    told = pair.did("tune", "--from", "0.8", "--to", "0.9").err
    assert f"the best threshold, {tuning(pair)['threshold']}, is at the end of those that were tried" in told
    assert Fraction(tuning(pair)["threshold"]) == Fraction(204, 255)


def test_a_search_that_runs_out_of_time_says_so(pair):
    assert "the time was up" in pair.did("tune", "--seconds", "1e-9").err
    scores = tuning(pair)["scores"]
    assert scores["tuned"] >= max(scores["equal"], scores["best single"])
    assert "the time was up" not in pair.did("tune", "--seconds", "1000").err


def test_the_command_knows_every_objective():
    from carvana_ens.cli.tune import command
    from carvana_ens.ensemble.objectives import OBJECTIVES

    (option,) = [option for option in command.params if option.name == "objective"]
    assert sorted(option.type.choices) == sorted(OBJECTIVES)


@pytest.mark.parametrize("words", [("--from", "0.6", "--to", "0.4"), ("--from", "0"), ("--to", "1.1"), ("--to", "x")])
def test_thresholds_that_cannot_be_meant(pair, words):
    assert "write for example" in pair.do("tune", *words).error
    assert not (pair.cars / "tuning.json").exists()


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


def test_maps_by_another_fold_table_are_refused_with_their_ids(project):
    """A table that was drawn anew says that other photos are held out than the models saw."""
    project.did("add-model", "learned-cut", "--set", "epochs=1")
    project.did("train")
    project.did("predict", "--split", "oof")
    project.did("tune")
    file = project.cars / "folds" / "default.json"
    table = read_folds(file)
    turned = {group: (fold + 1) % table.folds for group, fold in table.assignment.items()}
    write_folds(file, dataclasses.replace(table, assignment=turned))
    told = project.do("tune").error
    assert f"{project.store('learned-cut', 'oof')}: 8 of 8 maps of learned-cut cannot be tuned or scored on" in told
    assert "0a1_01" in told
    assert "train and predict again with --fresh" in told


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
    done = world.did("tune", "--from", "1/255", "--to", "1")
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


def test_masks_are_decoded_once_and_again_when_one_changes(pair, oracle, monkeypatch):
    from carvana_ens.data.masks import MaskFolder

    read, decoded = MaskFolder.read, []
    monkeypatch.setattr(MaskFolder, "read", lambda self, i, size: decoded.append(i) or read(self, i, size))
    for expected in (oracle.TRAIN, []):
        pair.did("tune")
        assert sorted(decoded) == expected
        decoded.clear()
    first = tuning(pair)
    assert (pair.cars / "cache" / "masks").is_file()
    oracle.save_mask(pair.masks, "7f3_02", ~oracle.ellipse("7f3_02"))
    pair.did("tune")
    assert sorted(decoded) == oracle.TRAIN
    assert tuning(pair)["scores"]["tuned"] < first["scores"]["tuned"]


def test_the_honest_score_is_of_photos_held_out_of_the_search(pair, oracle):
    """Each car is scored with the weights and threshold that were searched on the other alone."""
    done = pair.did("tune", "--rounds", "6")
    honest = tuning(pair)["honest"]
    choices = {choice["held_out"][0]: choice for choice in honest["folds"].values()}
    dices = {}
    for image_id in oracle.TRAIN:
        choice = choices[image_id.split("_")[0]]
        weights, cut = choice["weights"].values(), Fraction(choice["threshold"]) * 255
        blend = sum(w * c[image_id].astype(np.int64) for w, c in zip(weights, pair.codes.values(), strict=True))
        dices[image_id] = oracle.naive_dice(blend >= cut * sum(weights), oracle.ellipse(image_id))
    assert honest["score"]["mean"] == pytest.approx(np.mean(list(dices.values())), abs=1e-12)
    assert honest["score"]["low"] is None
    assert honest["optimism"] == pytest.approx(tuning(pair)["scores"]["tuned"] - honest["score"]["mean"], abs=1e-12)
    assert set(honest["buys"]) == {"left", "right"}
    for line in ("honest Dice, of photos held out", "no interval: it takes 5 groups, there are 2", "optimism", "BUYS"):
        assert line in done.out


def test_an_honest_score_takes_two_groups_and_can_be_left_out(world, oracle):
    world.init()
    pair, _ = world, world.maps("maps", oracle.TRAIN, 1, 0)
    pair.did("import", "net", "--from", pair.root / "maps", "--split", "oof", "--out-of-fold")
    pair.did("tune")
    assert tuning(pair)["honest"]["buys"] == {}  # of one member there is nothing to say
    assert "no honest score, it was not asked for" in pair.did("tune", "--no-honest").out
    assert tuning(pair)["honest"] is None


def test_a_second_run_searches_nothing_anew(pair, monkeypatch):
    from carvana_ens.ensemble import searched

    pair.did("tune", "--seed", "3")
    first = (pair.cars / "tuning.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(searched, "search", None)
        pair.did("tune", "--seed", "3")
        assert (pair.cars / "tuning.json").read_bytes() == first
    (pair.cars / "cache" / "searches.json").write_text("{")
    pair.did("tune", "--seed", "3")
    assert (pair.cars / "tuning.json").read_bytes() == first


def test_the_members_that_score_best_within_limits_stay(project):
    project.imported(("left", 1.5, -3, 60), ("right", 2.5, 4, 90), ("bad", 9, 9, 200))
    done = project.did("tune", "--max-models", "2")
    assert list(tuning(project)["weights"]) == ["left", "right"]
    assert "within these limits left, right score best" in done.err
    told = project.do("tune", "--max-seconds", "1").error
    assert "nobody knows how long left, right, bad takes" in told
    assert "leave --no-honest out" in project.do("tune", "--max-models", "1", "--no-honest").error


def test_members_within_seconds_a_photo(project):
    for name in ("slow", "quick"):
        project.did("add-model", "bright-cut", "--name", name)
    project.did("predict", "--split", "oof")
    for number, (name, seconds) in enumerate((("slow", 80.0), ("quick", 8.0))):
        record = {"verb": "predict", "member": name, "images": 8, "seconds": seconds}
        (project.cars / "runs" / f"2999010{number}-predict.json").write_text(json.dumps(record))
    project.did("tune", "--max-seconds", "2")
    assert list(tuning(project)["weights"]) == ["quick"]
    assert "none of 3 ensembles keeps within at most 0.5 seconds" in project.do("tune", "--max-seconds", "0.5").error


def plain_blend(oracle, codes, found, ids):
    """Masks of what was tuned, from its tables alone."""
    tables = {name: np.arange(256) for name in found["weights"]}
    full_scale = 255
    if found["space"] is not None:
        full_scale = 65535
        for name, member in found["space"]["members"].items():
            tables[name] = np.frombuffer(base64.b64decode(member["values"]), "<u2").astype(np.int64)
    total, cut = sum(found["weights"].values()), Fraction(found["threshold"])
    return {
        i: sum(w * tables[n][codes[n][i]] for n, w in found["weights"].items()) >= cut * full_scale * total for i in ids
    }


@pytest.mark.parametrize("kind", ["logit", "rank", "temperature", "vote"])
def test_one_blending_space_is_taken_and_blended_in(pair, oracle, kind):
    done = pair.did("tune", "--spaces", kind)
    found = tuning(pair)
    assert found["space"]["kind"] == kind
    assert f"of the blending space {kind}" in done.out
    masks = plain_blend(oracle, pair.codes, found, oracle.TRAIN)
    dices = [oracle.naive_dice(masks[i], oracle.ellipse(i)) for i in oracle.TRAIN]
    assert found["scores"]["tuned"] == pytest.approx(np.mean(dices), abs=1e-12)
    pair.did("blend", "--weights", "tuned", "-o", pair.root / "out.csv")
    expected = plain_blend(oracle, pair.codes, found, oracle.TEST)
    rows = oracle.read_rows(pair.root / "out.csv")
    assert rows == {f"{image_id}.jpg": oracle.naive_rle(mask) for image_id, mask in expected.items()}
    assert (
        "one of the blending space"
        in pair.do("blend", "--weights", "equal", "--threshold", "tuned", "-o", pair.root / "b.csv").error
    )
    pair.did("report")


def test_another_space_or_cut_takes_over_only_where_it_is_surely_better(pair):
    done = pair.did("tune", "--spaces", "probability,logit", "--cut", "best")
    found = tuning(pair)
    assert found["space"] is None  # two groups say nothing surely
    assert found["cut"] == "threshold"
    assert [one["name"] for one in found["tried"]] == ["space logit", "cut by expected Dice"]
    assert "tried space logit: " in done.out
    assert "decided by honest scores" in pair.do("tune", "--no-honest", "--cut", "best").error


def test_a_cut_by_expected_dice_and_steps_are_what_is_blended(pair, oracle):
    done = pair.did("tune", "--cut", "expected-dice", "--postprocess", "largest,fill-holes")
    found = tuning(pair)
    assert found["cut"] == "expected-dice"
    assert "each photo is cut where its expected Dice is greatest" in done.out
    pair.did("blend", "--weights", "tuned", "--split", "oof", "-o", pair.root / "oof.csv")
    rows = oracle.read_rows(pair.root / "oof.csv")
    masks = {i: oracle.naive_decode(rows[f"{i}.jpg"], oracle.SIZE) for i in oracle.TRAIN}
    dices = [oracle.naive_dice(masks[i], oracle.ellipse(i)) for i in oracle.TRAIN]
    assert found["final"] == pytest.approx(np.mean(dices), abs=1e-12)
    assert found["honest"]["optimism"] == pytest.approx(found["final"] - found["honest"]["score"]["mean"], abs=1e-12)
    pair.did("report")
    assert "cut by expected Dice" in (pair.cars / "report.html").read_text()
    pair.did("blend", "--weights", "tuned", "--threshold", "0.5", "--postprocess", "", "-o", pair.root / "plain.csv")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--spaces", "logits"), "blending space 'logits' is unknown"),
        (("--spaces", "logit,logit"), "name each once"),
        (("--postprocess", "sharpen"), "sharpen"),
    ],
)
def test_spaces_and_steps_that_cannot_be_meant(pair, words, told):
    assert told in pair.do("tune", *words).error
