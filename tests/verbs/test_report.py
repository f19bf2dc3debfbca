"""report: the page of a project that was tuned."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def tuned(project):
    """Two imported members, tuned."""
    project.kept("tuned", lambda: project.imported(("left", 1.5, -3, 60), ("right", 2.5, 4, 90)))
    project.did("tune")
    return project


def text(world):
    return (world.cars / "report.html").read_text(encoding="utf-8")


def test_the_page_tells_what_tune_wrote(tuned, oracle):
    done = tuned.did("report")
    assert done.out.splitlines()[-1] == f"wrote {tuned.cars / 'report.html'}"
    page, found = text(tuned), json.loads((tuned.cars / "tuning.json").read_text())
    assert f"{found['honest']['score']['mean']:.6f}" in page
    assert f"{found['scores']['tuned']:.6f}" in page
    for name, weight in found["weights"].items():
        assert f'<tr><td>{name}</td><td class="text">imported</td><td>{weight}</td>' in page
    assert page.count("<img") == 12  # six of eight training photos, all six test photos
    assert page == (tuned.did("report") and text(tuned))


def test_worst_photos_are_those_of_least_dice(tuned, oracle):
    maps = {name: tuned.maps(f"{name}_oof", oracle.TRAIN, *how) for name, how in
            (("left", (1.5, -3, 60)), ("right", (2.5, 4, 90)))}  # fmt: skip
    found = json.loads((tuned.cars / "tuning.json").read_text())
    level, weights = int(found["threshold"].split("/")[0]), found["weights"]
    dices = {
        i: oracle.naive_dice(
            sum(w * maps[n][i].astype(int) for n, w in weights.items()) >= level * sum(weights.values()),
            oracle.ellipse(i),
        )
        for i in oracle.TRAIN
    }
    told = json.loads(tuned.did("report", "--json", "--worst", "3", "--odd", "2").out)
    expected = sorted(dices, key=lambda i: (dices[i], i))[:3]
    assert list(told["worst"]) == expected
    assert told["worst"] == pytest.approx({i: dices[i] for i in expected}, abs=1e-12)
    assert len(told["odd"]) == 2
    assert {one["id"] for one in told["odd"]} <= set(oracle.TEST)


def test_without_test_maps_and_photos(world, oracle):
    world.run("init", world.cars, "--images", world.images, "--masks", world.masks)
    world.maps("maps", oracle.TRAIN, 1, 0)
    world.did("import", "net", "--from", world.root / "maps", "--split", "oof", "--out-of-fold")
    world.did("tune", "--no-honest")
    done = world.did("report", "--worst", "0")
    assert "not every member has test maps" in done.err
    assert "<img" not in text(world)
    assert "There is no honest score: it was not asked for" in text(world)
    assert "not every member" not in world.did("report", "--odd", "0").err


def test_training_and_augmentation_are_on_the_page(project):
    project.did("add-model", "learned-cut", "--size", "24x36", "--set", "epochs=1")
    project.did("add-model", "--like", "learned-cut", "--name", "flipped", "--size", "24x36", "--tta", "hflip")
    project.did("train")
    project.did("predict")
    project.did("tune")
    project.did("report")
    assert "hflip: flipped over learned-cut" in text(project)
    assert "seconds a photo" in text(project)


def test_what_cannot_be_reported_is_said(project):
    assert "run carvana-ens tune first" in project.do("report").error
    project.imported(("net", 2, 2, 50))
    project.did("tune")
    project.did("remove-model", "net")
    assert "net, which is gone" in project.do("report").error
    assert not (project.cars / "report.html").exists()


def test_other_masks_make_it_stale(tuned, oracle):
    oracle.save_mask(tuned.masks, "7f3_02", ~oracle.ellipse("7f3_02"))
    assert "the masks changed since; run carvana-ens tune again" in tuned.do("report").error
    tuned.did("tune")
    tuned.did("report", "--odd", "0", "--worst", "1")
