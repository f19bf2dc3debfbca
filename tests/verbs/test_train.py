"""carvana-ens train, with a model that needs no torch."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import PIL.Image
import pytest

from carvana_ens.cli.train import LiveLine, live_text
from carvana_ens.store.lock import WriterLock


@pytest.fixture
def learned(project):
    """A project with one trainable member of 3 epochs."""
    project.did("add-model", "learned-cut")
    return project


def checkpoint(world, fold, member="learned-cut"):
    return world.cars / "checkpoints" / member / f"fold{fold}" / "cut.json"


def test_every_fold_learns_from_the_other_groups(learned, oracle):
    done = learned.did("train")
    assert done.out.count(": trained, 3 epochs") == 2
    assert "learned-cut fold 1 epoch 3/3" in done.err
    table = json.loads((learned.cars / "folds" / "default.json").read_text())
    areas = {car: sum(oracle.ellipse(i).sum() for i in oracle.TRAIN if i.startswith(car)) for car in ("0a1", "7f3")}
    ranked = sorted(areas, key=areas.get)
    assert table["assignment"] == {ranked[0]: 0, ranked[1]: 1}
    for fold in (0, 1):
        record = json.loads((checkpoint(learned, fold).parent / "done.json").read_text())
        cut = json.loads(checkpoint(learned, fold).read_text())["cut"]
        held_out = [i for i in oracle.TRAIN if i.startswith(ranked[fold])]
        dices = []
        for image_id in held_out:
            photo = np.asarray(PIL.Image.open(learned.images / f"{image_id}.jpg"))
            dices.append(oracle.naive_dice(photo.mean(axis=-1) >= cut, oracle.ellipse(image_id)))
        assert record["dice"] == pytest.approx(np.mean(dices), abs=1e-12)


def test_finished_folds_are_kept(learned):
    learned.did("train")
    assert len(learned.calls("fit")) == 2
    before = [checkpoint(learned, fold).stat().st_mtime_ns for fold in (0, 1)]
    done = learned.did("train")
    assert done.out.count("was trained before, 3 epochs") == 2
    assert learned.calls("fit") == []
    assert [checkpoint(learned, fold).stat().st_mtime_ns for fold in (0, 1)] == before


def test_one_fold(learned):
    learned.did("train", "learned-cut", "--fold", "1")
    assert [call[2] for call in learned.calls("fit")] == ["fold1"]
    learned.did("train")
    assert [call[2] for call in learned.calls("fit")] == ["fold0"]
    done = learned.do("train", "--fold", "2")
    assert "it has 0 to 1" in done.error
    assert done.code == 2


def test_a_stopped_fold_goes_on_after_its_last_epoch(learned, monkeypatch):
    learned.did("train")
    whole = [checkpoint(learned, fold).read_bytes() for fold in (0, 1)]
    learned.did("add-model", "learned-cut", "--name", "again")
    learned.calls()
    monkeypatch.setenv("NUMPY_MODELS_STOP", "2")
    assert learned.do("train", "again").code == 130
    assert [call[3] for call in learned.calls("epoch")] == ["0", "1"]
    assert "0: " not in learned.did("status").out.splitlines()[2]  # the fold is not finished
    monkeypatch.delenv("NUMPY_MODELS_STOP")
    learned.did("train", "again")
    assert [call[2:] for call in learned.calls("epoch")] == [["fold0", "2"], *[["fold1", e] for e in "012"]]
    assert [checkpoint(learned, fold, "again").read_bytes() for fold in (0, 1)] == whole


def test_other_settings_are_refused_until_fresh(learned):
    learned.did("train")
    file = learned.cars / "ensemble.toml"
    file.write_text(file.read_text() + "\n[members.learned-cut.options]\nepochs = 5\n")
    done = learned.do("train")
    assert "fold 0" in done.error
    assert "--fresh" in done.error
    assert "train learned-cut --fresh" in learned.do("predict").error
    learned.calls()
    assert learned.did("train", "--fresh").out.count("trained, 5 epochs") == 2
    assert len(learned.calls("epoch")) == 10  # from the start, although there was a state


def test_a_default_option_written_out_is_the_same_task(learned):
    learned.did("train")
    file = learned.cars / "ensemble.toml"
    file.write_text(file.read_text() + "\n[members.learned-cut.options]\nepochs = 3\n")
    learned.calls()
    learned.did("train")
    assert learned.calls("fit") == []


def test_other_photos_are_other_settings(learned, oracle):
    learned.did("train")
    oracle.save_photo(learned.images, "0a1_05")
    oracle.save_mask(learned.masks, "0a1_05", oracle.ellipse("0a1_05"))
    assert "--fresh" in learned.do("train").error
    oracle.save_photo(learned.images, "new_01")
    oracle.save_mask(learned.masks, "new_01", oracle.ellipse("new_01"))
    told = learned.do("train").error
    assert "new" in told
    assert "default.json" in told


def test_an_edited_fold_table_is_refused(learned):
    learned.did("train")
    path = learned.cars / "folds" / "default.json"
    table = json.loads(path.read_text())
    table["assignment"] = {group: 1 - fold for group, fold in table["assignment"].items()}
    path.write_text(json.dumps(table))
    assert str(path) in learned.do("train").error


def test_other_folds_in_the_project_than_in_the_table_are_refused(learned):
    learned.did("train")
    file = learned.cars / "ensemble.toml"
    file.write_text(file.read_text().replace("[folds.default]", "[folds.default]\nfolds = 1\nholdout = 0.5"))
    told = learned.do("train").error
    assert "default.json" in told
    assert "ensemble.toml" in told


def test_members_without_training_are_said_not_failed(project):
    project.did("add-model", "bright-cut")
    done = project.did("train", "bright-cut")
    assert "bright-cut: nothing to train (model bright-cut needs no training)" in done.err
    assert done.out == ""


def test_unknown_members_name_the_nearest(learned):
    done = learned.do("train", "learnt-cut")
    assert "did you mean 'learned-cut'?" in done.error
    assert done.code == 2


@pytest.mark.parametrize(
    ("soft", "told"),
    [("1", "gone.json"), ("2", "outside.json"), ("3", "nan"), ("4", "ZeroDivisionError: division by zero")],
)
def test_what_a_model_answers_from_fit_is_checked(project, soft, told):
    project.did("add-model", "bad-fit", "--set", f"soft={soft}")
    done = project.do("train")
    assert told in done.error
    assert "bad-fit" in done.error
    assert "fold 0" in done.error
    assert not (checkpoint(project, 0, "bad-fit").parent / "done.json").exists()


def test_where_a_plugin_raised_is_told(project):
    project.did("add-model", "bad-fit", "--set", "soft=4")
    # the module may have been imported from the copy that another folder of tests made
    assert re.search(
        r"ZeroDivisionError: division by zero \(/.*/numpy_models\.py, line \d+\)", project.do("train").error
    )


def test_fresh_removes_what_a_model_left_in_folders(learned):
    learned.did("train", "--fold", "0")
    nested = checkpoint(learned, 0).parent / "exported" / "part"
    nested.mkdir(parents=True)
    (nested / "file").write_text("x")
    learned.did("train", "--fold", "0", "--fresh")
    assert not nested.exists()
    assert checkpoint(learned, 0).is_file()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"digest": 1}'])
def test_a_damaged_record_is_named(learned, text):
    learned.did("train", "--fold", "0")
    done = checkpoint(learned, 0).parent / "done.json"
    done.write_text(text)
    assert str(done) in learned.do("train").error
    assert str(done) in learned.do("predict", "--fold", "0").error
    assert str(done) in learned.did("status").out


def test_training_needs_photos_and_masks(world):
    world.run("init", world.cars, "--images", world.images)
    world.did("add-model", "learned-cut")
    assert "data.masks" in world.do("train").error


def test_two_trainings_of_one_fold_are_kept_apart(learned):
    with WriterLock(learned.cars / "checkpoints" / "learned-cut" / "fold0"):
        done = learned.do("train", "learned-cut", "--fold", "0")
    assert done.code == 1
    assert "is being written by process" in done.error
    assert learned.do("train", "learned-cut", "--fold", "0").code == 0


STEP = {"epoch": 3, "epochs": 40, "step": 12, "steps": 95, "loss": 0.02314, "images_per_second": 34.06}


def test_the_live_line_has_loss_dice_speed_and_what_is_left():
    left = {**STEP, "seconds_left": 3750.4}
    assert live_text("net", 1, left) == "net fold 1 epoch 3/40 step 12/95: loss 0.0231, 34.1 images/s, 1:02:30 left"
    assert ": loss 0.0231, dice 0.9931, 34.1 images/s" in live_text("net", 1, {**left, "dice": 0.99312})


@pytest.mark.parametrize("terminal", [True, False])
def test_the_live_line_shows_on_a_terminal_alone(monkeypatch, capsys, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", "60")
    live = LiveLine()
    for step in range(5):  # far closer to one another than two looks
        live.step("net", 0, {**STEP, "step": step, "seconds_left": 9.0})
    live.epoch("net", 0, {"epoch": 3, "epochs": 40, "loss": 0.5})
    told = capsys.readouterr().err
    *shown, end = told.split("\r")
    assert end == "net fold 0 epoch 3/40: loss 0.5\n"
    # nothing, one step cut to the width, blanks over it
    assert shown == (["", "net fold 0 epoch 3/40 step 0/95: loss 0.0231, 34.1 images/s", " " * 59] if terminal else [])
