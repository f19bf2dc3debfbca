"""A member that looks only where another one found the object."""

from __future__ import annotations

import json

import numpy as np
import pytest

from carvana_ens import Project, UsageError, open_store
from carvana_ens.errors import ProjectError
from carvana_ens.verbs.regions import roi_stamp, rounds, seen_by
from carvana_ens.verbs.workspace import Workspace

SOURCE = """
import json
import numpy as np
from dataclasses import dataclass
from carvana_ens import FitResult, Model
from carvana_ens.learn.recipe import InputOptions


class Learner(Model):
    Options = type("LearnerOptions", (InputOptions,), {})
    trainable = True

    def fit(self, task):
        seen = {i: [*s.image(i).shape[:2], *s.mask(i).shape] for s in (task.train, task.valid) for i in s.ids}
        path = task.directory / "seen.json"
        path.write_text(json.dumps(seen))
        return FitResult(path, 0.5, 1)

    def predict(self, batch):
        return np.ones(batch.images.shape[:3], np.float32)


class Looker(Model):
    Options = type("LookerOptions", (InputOptions,), {})

    def predict(self, batch):
        return batch.images.mean(axis=-1, dtype=np.float32) / 255
"""


@pytest.fixture
def looking(project, oracle, tmp_path, monkeypatch):
    """The project, with a model whose map is the brightness of what it sees."""
    oracle.package(
        tmp_path / "site4",
        "looking",
        "[carvana_ens.models]\nlooker = looker_model:Looker\nlearner = looker_model:Learner\n",
    )
    (tmp_path / "site4" / "looker_model.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path / "site4")
    project.did("add-model", "bright-cut", "--name", "first", "--set", "cut=150", "--set", "soft=5")
    return project


def test_maps_are_those_of_the_crops_and_0_elsewhere(looking):
    looking.did("add-model", "looker", "--name", "plain")
    looking.did("add-model", "looker", "--set", "roi=first", "--set", "roi_margin=3")
    looking.did("predict")
    for split in ("oof", "test"):
        first, plain, crops = (open_store(looking.store(name, split)) for name in ("first", "plain", "looker"))
        cut = 0
        for image_id in first.ids:
            rows, columns = np.nonzero(first.read(image_id) >= 128)
            inside = np.zeros(first.read(image_id).shape, bool)
            inside[max(rows.min() - 3, 0) : rows.max() + 4, max(columns.min() - 3, 0) : columns.max() + 4] = True
            expected = np.where(inside, plain.read(image_id), 0)
            assert np.array_equal(crops.read(image_id), expected)
            cut += (~inside).sum()
        assert cut > 100


def test_the_other_members_maps_must_be_there(looking):
    looking.did("add-model", "looker", "--set", "roi=first")
    told = looking.do("predict", "looker", "--split", "test").error
    assert "the test maps of first found the object (option roi)" in told
    assert "predict first first" in told
    looking.did("predict", "first", "--split", "test")
    looking.did("predict", "looker", "--split", "test")


def test_a_member_to_look_after_must_be_another_one_that_is_there(looking):
    assert "did you mean 'first'?" in looking.do("add-model", "looker", "--set", "roi=frist").error
    assert "names the member itself" in looking.do("add-model", "looker", "--name", "a", "--set", "roi=a").error
    looking.did("add-model", "looker", "--set", "roi=first")
    assert "'looker' looks where 'first' found the object" in looking.do("remove-model", "first").error
    looking.did("remove-model", "looker")
    looking.did("remove-model", "first")


def test_training_sees_the_crops_and_is_stale_when_they_change(looking):
    looking.did("add-model", "learner", "--set", "roi=first", "--set", "roi_margin=0")
    assert "the oof maps of first" in looking.do("train", "learner").error
    looking.did("predict", "first")
    looking.did("train", "learner")
    first = open_store(looking.store("first", "oof"))
    seen = json.loads((looking.cars / "checkpoints" / "learner" / "fold0" / "seen.json").read_text())
    assert sorted(seen) == sorted(first.ids)
    for image_id, shape in seen.items():
        rows, columns = np.nonzero(first.read(image_id) >= 128)
        assert shape == [np.ptp(rows) + 1, np.ptp(columns) + 1] * 2
    looking.did("predict", "learner")
    toml = looking.cars / "ensemble.toml"
    toml.write_text(toml.read_text().replace("cut = 150.0", "cut = 140.0"))
    looking.did("predict", "first", "--fresh")
    assert "with other settings" in looking.do("predict", "learner", "--fresh").error
    looking.did("train", "learner", "--fresh")


def test_photos_to_train_on_are_cut_and_the_maps_that_did_it_are_told(looking):
    looking.did("add-model", "looker", "--set", "roi=first", "--set", "roi_margin=0")
    project = Project(looking.cars)
    workspace = Workspace(project)
    samples, member = workspace.labelled(workspace.ids), project.member("looker")
    for hook in (lambda: seen_by(project, member, samples), lambda: roi_stamp(project, member, workspace.ids)):
        with pytest.raises(ProjectError, match="oof maps of first"):
            hook()
    assert seen_by(project, project.member("first"), samples) is samples
    assert roi_stamp(project, project.member("first"), workspace.ids) == {}
    looking.did("predict", "first")
    first = open_store(looking.store("first", "oof"))
    cropped = seen_by(project, member, samples)
    for image_id in workspace.ids:
        rows, columns = np.nonzero(first.read(image_id) >= 128)
        inside = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert np.array_equal(cropped.image(image_id), samples.image(image_id)[inside])
        assert np.array_equal(cropped.mask(image_id), samples.mask(image_id)[inside])
    assert roi_stamp(project, member, workspace.ids) == {"roi": first.fingerprint()}


def test_members_come_after_those_whose_maps_they_need(looking):
    looking.did("add-model", "looker", "--name", "second", "--set", "roi=first")
    looking.did("add-model", "looker", "--name", "third", "--set", "roi=second")
    looking.did("add-model", "looker", "--name", "alone")
    assert rounds(Project(looking.cars)) == [["first", "alone"], ["second"], ["third"]]
    toml = looking.cars / "ensemble.toml"
    toml.write_text(toml.read_text().replace('roi = "first"', 'roi = "third"'))
    with pytest.raises(UsageError, match="members second, third each look"):
        rounds(Project(looking.cars))


def test_run_predicts_a_member_before_another_looks_at_its_maps(looking):
    looking.did("add-model", "learner", "--name", "a-learner", "--set", "roi=first")
    looking.did("run", "-o", looking.root / "all.csv")
    assert (looking.root / "all.csv").is_file()
