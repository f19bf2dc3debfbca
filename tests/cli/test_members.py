"""carvana-ens add-model and remove-model."""

from __future__ import annotations

import hashlib
import tomllib

import pytest


@pytest.fixture
def edited(project):
    """A project whose ensemble.toml carries the user's own words."""
    file = project.cars / "ensemble.toml"
    text = file.read_text().replace("[data]", "# mine: the studio\n[data]  # here") + "\n# the end is mine\n"
    file.write_text(text)
    return project


def members(world):
    return tomllib.loads((world.cars / "ensemble.toml").read_text()).get("members", {})


def folds(world):
    return tomllib.loads((world.cars / "ensemble.toml").read_text())["folds"]


def test_comments_are_kept_by_adding_and_removing(edited):
    file = edited.cars / "ensemble.toml"
    before = file.read_text()
    assert edited.did("add-model", "bright-cut").out == "added member bright-cut (model bright-cut, folds default)\n"
    after = file.read_text()
    for line in before.splitlines():
        assert line in after
    edited.did("remove-model", "bright-cut")
    assert members(edited) == {}
    for comment in ("# mine: the studio", "# here", "# the end is mine"):
        assert comment in file.read_text()


def test_options_and_settings(project):
    words = "bright-cut --name b.1 --size 24x36 --tta hflip --tta vflip --seed 4 --set cut=99 --set soft=3.5"
    project.did("add-model", *words.split())
    assert members(project)["b.1"] == {
        "model": "bright-cut",
        "size": "24x36",
        "tta": ["hflip", "vflip"],
        "seed": 4,
        "options": {"cut": 99.0, "soft": 3.5},
    }


def test_a_recipe_is_written_out_and_what_is_set_goes_before_it(project):
    project.did("add-model", "bright-cut", "--recipe", "dusk")
    project.did("add-model", "bright-cut", "--name", "b", "--recipe", "dusk", "--set", "soft=3", "--size", "48x72")
    project.did("add-model", "bright-cut", "--name", "c", "--recipe", "modern")
    assert members(project) == {
        "bright-cut": {
            "model": "bright-cut",
            "size": "24x36",
            "tta": ["hflip"],
            "options": {"cut": 80.0, "soft": 6.5},
        },
        "b": {"model": "bright-cut", "size": "48x72", "tta": ["hflip"], "options": {"cut": 80.0, "soft": 3.0}},
        "c": {"model": "bright-cut", "options": {"cut": 120.0, "soft": 9.0, "pause": 0.0}},
    }


def test_like_uses_the_checkpoints_of_another_member(project):
    project.did("add-model", "learned-cut", "--name", "small", "--size", "24x36", "--set", "epochs=1")
    project.did("add-model", "--like", "small", "--name", "large", "--size", "48x72")
    assert members(project)["large"] == {"model": "learned-cut", "size": "48x72", "like": "small"}
    done = project.did("train")
    assert "large: nothing to train (it uses the checkpoints of small)" in done.err
    project.calls()
    project.did("predict", "large", "--split", "test")
    assert [call[1:3] for call in project.calls("load")] == [["large", "fold0"], ["large", "fold1"]]
    assert not (project.cars / "checkpoints" / "large").exists()
    assert "'large' is like 'small'" in project.do("remove-model", "small").error


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--like", "small"], "--size"),
        (["--like", "smal", "--size", "24x36"], "did you mean 'small'?"),
        (["--like", "small", "--size", "24x36", "--set", "epochs=2"], "leave them out"),
        (["--like", "small", "--size", "24x36", "--folds", "2"], "leave them out"),
        (["--like", "small", "--size", "24x36", "--recipe", "modern"], "leave them out"),
        (["bright-cut", "--like", "small", "--size", "24x36"], "leave them out"),
        (["--like", "large", "--size", "24x36", "--name", "huge"], "--like small"),
        (["--like", "maps", "--size", "24x36", "--name", "huge"], "imported"),
        (["--like", "small", "--size", "24x36", "--name", "small"], "there already"),
    ],
)
def test_like_that_cannot_be_meant_leaves_the_file_as_it_was(project, words, told):
    project.did("add-model", "learned-cut", "--name", "small", "--size", "24x36")
    project.did("add-model", "--like", "small", "--name", "large", "--size", "48x72")
    project.imported(("maps", 1, 0, 0))
    before = (project.cars / "ensemble.toml").read_bytes()
    done = project.do("add-model", *words)
    assert told in done.error
    assert done.code == 2
    assert (project.cars / "ensemble.toml").read_bytes() == before


def test_checkpoint_is_kept_with_its_hash_and_checked_at_prediction(project, monkeypatch):
    file = project.root / "given" / "cut.json"
    file.parent.mkdir()
    file.write_text('{"cut": 120.0}')
    sha = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.chdir(project.root)
    assert (
        "is it the right file"
        in project.do("add-model", "learned-cut", "--checkpoint", file, "--sha256", "0" * 64).error
    )
    project.did("add-model", "learned-cut", "--checkpoint", "given/cut.json", "--sha256", sha, "--out-of-fold")
    assert members(project)["learned-cut"] == {
        "model": "learned-cut",
        "checkpoint": "../given/cut.json",
        "sha256": sha,
        "out_of_fold": True,
    }
    assert "it predicts with ../given/cut.json" in project.did("train").err
    project.did("predict")
    assert "mean Dice of the 8" in project.did("tune").out
    file.write_text('{"cut": 121.0}')
    told = project.do("predict", "--fresh").error
    assert "learned-cut" in told
    assert "sha256" in told
    file.unlink()
    assert "given/cut.json" in project.do("predict").error


def test_folds_and_holdout_make_second_tables(world):
    world.init("--group", "(?:.*)_(.*)", "--folds", "2")
    world.did("add-model", "learned-cut", "--set", "epochs=1")
    world.did("add-model", "learned-cut", "--name", "four", "--folds", "4", "--set", "epochs=1")
    world.did("add-model", "learned-cut", "--name", "part", "--holdout", "0.25", "--set", "epochs=1")
    world.did("add-model", "learned-cut", "--name", "same", "--folds", "4", "--set", "epochs=1")
    assert folds(world) == {"default": {"folds": 2}, "k4": {"folds": 4}, "holdout25": {"folds": 1, "holdout": 0.25}}
    assert {name: table.get("folds", "default") for name, table in members(world).items()} == {
        "learned-cut": "default",
        "four": "k4",
        "part": "holdout25",
        "same": "k4",
    }
    done = world.did("train")
    assert done.out.count(" fold ") == 2 + 4 + 1 + 4
    assert sorted(path.name for path in (world.cars / "folds").iterdir()) == [
        "default.json",
        "holdout25.json",
        "k4.json",
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "name of a model"),
        (["bright-cutt"], "did you mean 'bright-cut'?"),
        (["nothing-like-it"], "'nothing-like-it' is unknown"),
        (["broken"], "no_such_module_at_all"),
        (["bright-cut", "--size", "24"], "--size"),
        (["bright-cut", "--size", "24X36"], "24X36"),
        (["bright-cut", "--size", "0x36"], "0x36"),
        (["bright-cut", "--size", "-24x36"], "-24x36"),
        (["bright-cut", "--set", "cutt=3"], "did you mean 'cut'?"),
        (["bright-cut", "--set", "cut=dark"], "option cut takes a number, got 'dark'"),
        (["bright-cut", "--set", "cut=nan"], "finite"),
        (["bright-cut", "--set", "soft=0"], "option soft is 0.0"),
        (["learned-cut", "--set", "epochs=1.5"], "whole number"),
        (["faulty", "--set", "how=never"], "one of nan"),
        (["bright-cut", "--recipe", "dask"], "did you mean 'dusk'?"),
        (["learned-cut", "--recipe", "xyz"], "it has: modern"),
        (["bright-cut", "--recipe", "dusk", "--set", "soft=0"], "option soft is 0.0"),
        (["bright-cut", "--set", "cut"], "'cut'"),
        (["bright-cut", "--set", "=3"], "'=3'"),
        (["bright-cut", "--set", "cut=3", "--set", "cut=4"], "'cut=4'"),
        (["bright-cut", "--tta", "rot90"], "rot90"),
        (["bright-cut", "--tta", "hflip", "--tta", "hflip"], "hflip"),
        (["bright-cut", "--folds", "2"], "not trained"),
        (["learned-cut", "--folds", "3"], "3 folds cannot be made of 2 groups"),
        (["learned-cut", "--folds", "1"], "hold-out"),
        (["learned-cut", "--holdout", "1.5"], "1.5"),
        (["learned-cut", "--holdout", "inf"], "inf"),
        (["learned-cut", "--folds", "2", "--holdout", "0.5"], "hold-out"),
        (["learned-cut", "--checkpoint", "nowhere.json"], "nowhere.json"),
        (["learned-cut", "--sha256", "00"], "--checkpoint"),
        (["learned-cut", "--out-of-fold"], "--checkpoint"),
        (["bright-cut", "--name", "a/b"], "a/b"),
        (["bright-cut", "--name", "tuned"], "tuned"),
        (["bright-cut", "--name", "equal"], "equal"),
        (["bright-cut", "--name", "a=b"], "a=b"),
        (["bright-cut", "--seed", "-1"], "--seed"),
        (["bright-cut", "--colour", "red"], "--colour"),
        (["bright-cut", "another"], "another"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_leaves_the_file_as_it_was(project, words, told):
    before = (project.cars / "ensemble.toml").read_bytes()
    assert told in project.do("add-model", *words).error
    assert (project.cars / "ensemble.toml").read_bytes() == before


def test_two_packages_of_one_name_are_told_apart(project, oracle, tmp_path, monkeypatch):
    oracle.package(tmp_path / "site2", "other_models", "[carvana_ens.models]\nbright-cut = numpy_models:LearnedCut\n")
    monkeypatch.syspath_prepend(tmp_path / "site2")
    told = project.do("add-model", "bright-cut").error
    assert "numpy-models 1.0" in told
    assert "other-models 1.0" in told
    project.did("add-model", "numpy-models:bright-cut")
    project.did("add-model", "other-models:bright-cut", "--name", "second", "--set", "epochs=1")
    assert members(project)["bright-cut"]["model"] == "numpy-models:bright-cut"
    assert "second fold 0: trained" in project.did("train").out


def test_a_plugin_that_goes_missing_stops_only_its_member(project, monkeypatch, site):
    project.did("add-model", "bright-cut")
    project.imported(("maps", 1, 0, 0))
    monkeypatch.setattr("sys.path", [path for path in __import__("sys").path if path != str(site)])
    assert "bright-cut" in project.do("predict").error
    assert "'bright-cut' is unknown" in project.did("status").out
    project.did("blend", "--weights", "maps=1", "-o", project.root / "maps.csv")


def test_remove_model_keeps_what_is_on_disk_and_says_so(project):
    project.imported(("maps", 1, 0, 0))
    done = project.did("remove-model", "maps")
    assert str(project.cars / "stores" / "maps") in done.out
    assert project.store("maps", "oof").is_dir()
    assert "did you mean" not in project.do("remove-model", "maps").error


def test_remove_model_of_an_unknown_member_names_the_nearest(project):
    project.did("add-model", "bright-cut")
    done = project.do("remove-model", "bright-cat")
    assert "did you mean 'bright-cut'?" in done.error
    assert done.code == 2
