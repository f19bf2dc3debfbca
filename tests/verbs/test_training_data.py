"""What members are trained on: views, second data sets, fold rules; seen in what a model's fit is handed."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
import pytest

from carvana_ens import Project
from carvana_ens.verbs.train import task_digest
from carvana_ens.verbs.training_data import training_samples
from carvana_ens.verbs.workspace import Workspace


def edit(world: Any, old: str, new: str) -> None:
    file = world.cars / "ensemble.toml"
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


@pytest.fixture
def learned(project: Any) -> Any:
    project.did("add-model", "learned-cut")
    return project


def opened(world: Any, member: str = "learned-cut") -> tuple[Workspace, Any, Any]:
    project = Project(world.cars)
    workspace = Workspace(project)
    config = project.member(member)
    return workspace, config, workspace.fold_table(config.folds)


def trained_on(world: Any, fold: int, member: str = "learned-cut") -> set[str]:
    return set(training_samples(*opened(world, member), fold).ids)


def held_out(world: Any, fold: int) -> set[str]:
    workspace, _, table = opened(world)
    return set(table.held_out(fold, workspace.groups))


def handed(world: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[set[str], set[str]]]:
    """Ids to train and to validate on of every fit from here on."""
    calls: list[tuple[set[str], set[str]]] = []
    import numpy_models

    fit = numpy_models.LearnedCut.fit

    def spy(self: Any, task: Any) -> Any:
        calls.append((set(task.train.ids), set(task.valid.ids)))
        return fit(self, task)

    monkeypatch.setattr(sys.modules["numpy_models"].LearnedCut, "fit", spy)
    return calls


def test_views_are_what_the_model_trains_on_and_all_are_held_out(
    learned: Any, oracle: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned.did("add-model", "learned-cut", "--name", "rear", "--view", "02", "--view", "04")
    assert 'views = ["02", "04"]' in (learned.cars / "ensemble.toml").read_text()
    calls = handed(learned, monkeypatch)
    learned.did("train", "rear")
    assert len(calls) == 2
    for fold, (train, valid) in enumerate(calls):
        assert valid == held_out(learned, fold)
        assert len(valid) == 4
        assert train == {i for i in set(oracle.TRAIN) - valid if i.endswith(("_02", "_04"))}
    learned.did("predict", "rear", "--split", "oof")
    assert " 8/8" in learned.did("status").out


def test_other_views_are_other_settings(learned: Any) -> None:
    learned.did("add-model", "learned-cut", "--name", "rear", "--view", "02", "--view", "04")
    learned.did("train", "rear")
    edit(learned, '["02", "04"]', '["04", "02"]')  # the same views
    learned.calls()
    learned.did("train", "rear")
    assert learned.calls("fit") == []
    edit(learned, '["04", "02"]', '["04"]')
    assert "train rear --fresh" in learned.do("train", "rear").error
    assert "train rear --fresh" in learned.do("predict", "rear").error


def test_what_is_not_said_changes_no_stamp(learned: Any, oracle: ModuleType) -> None:
    """Checkpoints of the version before there were views, rules and second data sets are kept."""
    workspace, config, table = opened(learned)
    assert config.to_json().keys() == {
        *("name", "model", "size", "tta", "folds", "checkpoint", "sha256", "like", "out_of_fold", "seed", "options")
    }
    assert table.to_json().keys() == {"schema", "name", "folds", "holdout", "seed", "assignment", "digest"}
    said = {
        "model": "learned-cut",
        "size": None,
        "options": {"epochs": 3, "soft": 12.0},
        "seed": 0,
        "folds": json.loads((learned.cars / "folds" / "default.json").read_text())["digest"],
        "fold": 1,
        "data": sha256([[i, i[:3]] for i in sorted(oracle.TRAIN)]),
    }
    assert task_digest(workspace, config, table, 1) == sha256(said)


def sha256(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def test_views_that_there_are_not(learned: Any) -> None:
    told = learned.do("add-model", "learned-cut", "--name", "rear", "--view", "17").error
    assert "view '17'" in told
    assert "'01', '02', '03', '04'" in told
    learned.did("add-model", "learned-cut", "--name", "rear", "--view", "02")
    edit(learned, 'views = ["02"]', 'views = ["2"]')
    assert "member rear is to be trained on view '2'" in learned.do("train", "rear").error
    for words in (("bright-cut",), ("--like", "rear", "--size", "24x36")):
        assert learned.do("add-model", *words, "--name", "x", "--view", "02").code == 2


def test_a_member_like_another_has_its_views(learned: Any) -> None:
    learned.did("add-model", "learned-cut", "--name", "rear", "--view", "02")
    learned.did("add-model", "--like", "rear", "--name", "small", "--size", "24x36")
    learned.did("train", "rear")
    learned.did("predict", "small", "--split", "test")


def add_extra(world: Any, oracle: ModuleType, ids: list[str], where: str = "drawn") -> None:
    for image_id in ids:
        oracle.save_photo(world.root / where, image_id)
        oracle.save_mask(world.root / f"{where}_masks", image_id, oracle.ellipse(image_id))


EXTRA = ["e01_01", "e01_02", "e02_09"]


def with_extra(world: Any, oracle: ModuleType, *more: object) -> None:
    add_extra(world, oracle, EXTRA)
    done = world.init("--extra", world.root / "drawn", world.root / "drawn_masks", *more)
    assert f"3 more training photos ({world.root / 'drawn'}), never held out" in done.out
    world.did("add-model", "learned-cut")


def test_a_second_data_set_is_trained_on_in_every_fold(
    world: Any, oracle: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_extra(world, oracle)
    assert (
        '[[data.extra]]\nimages = "../drawn"\nmasks = "../drawn_masks"\n' in (world.cars / "ensemble.toml").read_text()
    )
    calls = handed(world, monkeypatch)
    world.did("train")
    for fold, (train, valid) in enumerate(calls):
        assert valid == held_out(world, fold) <= set(oracle.TRAIN)
        assert train == (set(oracle.TRAIN) - valid) | {f"extra1:{i}" for i in EXTRA}
    workspace, config, table = opened(world)
    samples = training_samples(workspace, config, table, 0)
    assert np.array_equal(samples.mask("extra1:e02_09"), oracle.ellipse("e02_09"))
    assert samples.image("extra1:e02_09").shape == (*oracle.SIZE, 3)
    world.did("predict", "--split", "oof")
    assert " 8/8" in world.did("status").out


def test_changed_second_data_sets_are_other_settings(world: Any, oracle: ModuleType) -> None:
    with_extra(world, oracle, "--extra-share", "0.25")
    world.did("train")
    assert "was trained before" in world.did("train").out
    edit(world, "share = 0.25", "share = 0.5")
    assert "--fresh" in world.do("train").error
    edit(world, "share = 0.5", "share = 0.250")
    assert "was trained before" in world.did("train").out
    add_extra(world, oracle, ["e03_01"])
    assert "--fresh" in world.do("train").error
    edit(world, '[[data.extra]]\nimages = "../drawn"\nmasks = "../drawn_masks"\nshare = 0.250\n', "")
    assert "--fresh" in world.do("train").error


def test_a_share_is_what_mini_batches_are_drawn_by(world: Any, oracle: ModuleType) -> None:
    with_extra(world, oracle, "--extra-share", "0.5")
    samples = training_samples(*opened(world), 0)
    order = samples.order(0, 1)  # type: ignore[attr-defined]
    assert [number % len(samples.ids) >= 4 for number in order] == [False, True, False, True, False, True, False]


def test_photos_of_known_groups_are_refused_by_id(world: Any, oracle: ModuleType) -> None:
    add_extra(world, oracle, [*EXTRA, "7f3_17", "0a1_01"])
    words = ("--images", world.images, "--masks", world.masks, "--extra", world.root / "drawn")
    told = world.run("init", world.cars, *words, world.root / "drawn_masks").error
    assert "'0a1_01', '7f3_17'" in told
    assert "2 of 5 images" in told
    assert not world.cars.exists()
    (world.root / "drawn" / "7f3_17.jpg").unlink()
    told = world.run("init", world.cars, *words, world.root / "drawn_masks").error
    assert "no photo" in told  # photos and masks must match
    assert "'7f3_17'" in told
    world.init()
    world.did("add-model", "learned-cut")
    oracle.save_photo(world.root / "drawn", "7f3_17")
    file = world.cars / "ensemble.toml"
    file.write_text(file.read_text() + '[[data.extra]]\nimages = "../drawn"\nmasks = "../drawn_masks"\n')
    assert "'0a1_01', '7f3_17'" in world.do("train").error
    assert world.calls("fit") == []


def test_several_sets_and_their_shares(world: Any, oracle: ModuleType) -> None:
    add_extra(world, oracle, EXTRA)
    add_extra(world, oracle, EXTRA, "more")
    extras = [
        word for name in ("drawn", "more") for word in ("--extra", world.root / name, world.root / f"{name}_masks")
    ]
    assert world.run("init", world.cars, "--extra", world.root / "drawn", world.root / "drawn_masks").code == 2
    words = ("--images", world.images, "--masks", world.masks, *extras)
    assert world.run("init", world.cars, *words, "--extra-share", "0.5").code == 2
    told = world.run("init", world.cars, *words, "--extra-share", "0.5", "--extra-share", "0.5").error
    assert "shares come to 1.0" in told
    world.init(*extras, "--extra-share", "0.3", "--extra-share", "0.5")
    world.did("add-model", "learned-cut")
    expected = {f"extra{number}:{i}" for number in (1, 2) for i in EXTRA}
    assert {i for i in trained_on(world, 0) if i.startswith("extra")} == expected


def car(oracle: ModuleType, world: Any, name: str, share: float) -> None:
    """Five views of which only 05 is of this area; the rest of the area is in 01 in the other order."""
    for view, part in (("01", 1 - share), ("05", share)):
        mask = np.zeros(oracle.SIZE, bool)
        mask[: round(part * 40)] = True
        oracle.save_photo(world.images, f"{name}_{view}")
        oracle.save_mask(world.masks, f"{name}_{view}", mask)


def test_folds_by_one_view_and_by_histogram(world: Any, oracle: ModuleType) -> None:
    for folder in (world.images, world.masks):
        for path in folder.iterdir():
            path.unlink()
    names = [f"c{number:02d}" for number in range(12)]
    for number, name in enumerate(names):
        car(oracle, world, name, 0.05 + 0.07 * number)
    world.init("--folds", "3", "--by-view", "05")
    world.did("add-model", "learned-cut")
    world.did("train", "--fold", "0")
    table = json.loads((world.cars / "folds" / "default.json").read_text())
    assert table["by_view"] == "05"
    assert table["assignment"] == {name: rank % 3 for rank, name in enumerate(names)}
    edit(world, 'by_view = "05"', 'by_view = "01"')
    told = world.do("train").error
    assert "by_view 05" in told
    (world.cars / "folds" / "default.json").unlink()
    world.did("train", "--fold", "0", "--fresh")
    table = json.loads((world.cars / "folds" / "default.json").read_text())
    assert table["assignment"] == {name: rank % 3 for rank, name in enumerate(reversed(names))}

    done = world.do(
        "add-model", "learned-cut", "--name", "b", "--folds", "4", "--fold-rule", "histogram", "--by-view", "01"
    )
    assert done.code == 0
    assert (
        '[folds.k4-histogram]\nfolds = 4\nrule = "histogram"\nby_view = "01"\n'
        in (world.cars / "ensemble.toml").read_text()
    )
    world.did("train", "b", "--fold", "0")
    table = json.loads((world.cars / "folds" / "k4-histogram.json").read_text())
    assert table["rule"] == "histogram"
    assert sorted(table["assignment"].values()) == sorted([0, 1, 2, 3] * 3)
    assert world.do("add-model", "learned-cut", "--name", "c", "--by-view", "05").code == 2
    told = world.do("add-model", "learned-cut", "--name", "c", "--folds", "2", "--by-view", "03").error
    assert "no photo of view '03'" in told


@pytest.mark.skipif("CARVANA_ENS_DATA" not in os.environ, reason="CARVANA_ENS_DATA is not set")
@pytest.mark.parametrize("view", ["05", "12"])
def test_folds_of_real_photos_by_one_view(run: Any, tmp_path: Path, view: str) -> None:
    folder = Path(os.environ["CARVANA_ENS_DATA"]) / "carvana"
    words = ("--images", folder / "train_hq", "--masks", folder / "train_masks", "--by-view", view, "--folds", 2)
    assert run("init", tmp_path / "cars", *words).code == 0
    table = Workspace(Project(tmp_path / "cars")).fold_table("default")
    areas = {}
    for path in (folder / "train_masks").glob(f"*_{view}_mask.gif"):
        with PIL.Image.open(path) as picture:
            areas[path.name[:12]] = (np.asarray(picture.convert("L")) > 127).mean()
    ranked = sorted(areas, key=areas.__getitem__)
    assert dict(table.assignment) == {group: rank % 2 for rank, group in enumerate(ranked)}


def test_rules_need_masks_and_more_than_one_fold(world: Any) -> None:
    assert "--fold-rule" in world.run("init", world.cars, "--fold-rule", "histogram").error
    words = ("--images", world.images, "--masks", world.masks, "--fold-rule", "histogram", "--holdout", "0.5")
    assert "two folds or more" in world.run("init", world.cars, *words).error
    assert not world.cars.exists()
