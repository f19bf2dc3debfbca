"""carvana-ens models, beside a plugin that is broken."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def listed(world, tmp_path, monkeypatch):
    """The world, with the memory of models that loaded in a folder of the test."""
    monkeypatch.setattr("carvana_ens.verbs.models._memory", lambda: tmp_path / "memory" / "models.json")
    return world


def test_one_model_with_its_options(listed):
    done = listed.run("models", "bright-cut")
    assert done.code == 0
    assert "bright-cut: numpy-models 1.0" in done.out
    assert "The object is what is bright." in done.out
    assert "cut    120.0  brightness that counts as half" in done.out
    document = json.loads(listed.run("models", "bright-cut", "--json").out)
    assert document["options"][0] == {
        "name": "cut",
        "type": "float",
        "default": 120.0,
        "help": "brightness that counts as half",
    }
    assert (document["parameters"], document["trainable"], document["context"]) == (0, False, "image")


def test_the_recipes_of_one_model(listed):
    assert "modern  sharper than the defaults\n  dusk    for dim photos" in listed.run("models", "bright-cut").out
    document = json.loads(listed.run("models", "bright-cut", "--json").out)
    assert [recipe["name"] for recipe in document["recipes"]] == ["modern", "dusk"]
    dusk = {"name": "dusk", "help": "for dim photos", "size": "24x36", "tta": ["hflip"]}
    dusk["options"] = {"cut": 80, "soft": 6.5}
    assert document["recipes"][1] == dusk
    shown = listed.run("models", "bright-cut", "--recipe", "dusk").out
    assert [line.split() for line in shown.splitlines()[1:]] == [
        ["size", "24x36"],
        ["tta", "hflip"],
        ["cut", "80"],
        ["soft", "6.5"],
    ]
    assert json.loads(listed.run("models", "bright-cut", "--recipe", "dusk", "--json").out) == dusk
    assert "did you mean 'dusk'?" in listed.run("models", "bright-cut", "--recipe", "duks").error
    assert "name the model" in listed.run("models", "--recipe", "dusk").error


def test_broken_and_unknown_models(listed):
    assert "no_such_module_at_all" in listed.run("models", "broken").error
    assert "did you mean 'bright-cut'?" in listed.run("models", "bright-cat").error


def test_a_model_that_raises_while_it_is_described(listed, tmp_path, oracle, monkeypatch):
    oracle.package(tmp_path / "site3", "sour", "[carvana_ens.models]\nsour = sour_model:Sour\n")
    lines = [
        "from carvana_ens import Model",
        "class Sour(Model):",
        "  def __init__(self, config):",
        "    {}[config.name]",
    ]
    (tmp_path / "site3" / "sour_model.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path / "site3")
    told = listed.run("models", "sour").error
    assert "KeyError: 'sour'" in told
    assert "sour_model.py, line 4" in told
    listed.init()
    assert "KeyError: 'sour'" in listed.do("add-model", "sour").error
    assert "sour" not in (listed.cars / "ensemble.toml").read_text()
