from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from carvana_ens.errors import PluginError
from carvana_ens.model import Model, Recipe, option
from carvana_ens.testing.checks import check_import
from carvana_ens.types import Size


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"output": "sigmoid"}, "output is 'sigmoid': set it to 'probabilities' or 'logits'"),
        ({"context": "car"}, "context is 'car'"),
        ({"trainable": 1}, "trainable is 1"),
        ({"size": (64, 96)}, r"size is \(64, 96\): set it to None or a carvana_ens\.Size"),
        ({"size": Size(64, 0)}, "size is "),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": True}, "batch_size is True"),
        ({"predict": Model.predict}, "predict is missing"),
        ({"trainable": True}, "fit is missing"),
    ],
)
def test_class_attributes_that_the_host_does_not_know(tiny, attributes, words):
    tiny.assert_fault(type("Planted", (tiny.Bright,), attributes), "check_class", words)


@pytest.mark.parametrize(
    ("recipes", "words"),
    [
        ([], r"recipes is \[\]: set it to a table"),
        ({"My own": Recipe("mine")}, "named 'My own': a name is lower-case words"),
        ({"own": {"slope": 2.0}}, "recipe own is {'slope': 2.0}: make it a carvana_ens.Recipe"),
        ({"own": Recipe("")}, "recipe own has the help ''"),
        ({"own": Recipe("two\nlines")}, "recipe own has the help"),
        ({"own": Recipe("mine", tta=("turn",))}, "recipe own has the tta"),
        ({"own": Recipe("mine", options={"sloppe": 2.0})}, "its recipe own raised .*did you mean 'slope'"),
        ({"modern": Recipe("mine", options={"slope": "steep"})}, "its recipe modern raised .*takes a number"),
    ],
)
def test_recipes_that_cannot_be_followed(tiny, recipes, words):
    tiny.assert_fault(type("Planted", (tiny.Bright,), {"recipes": recipes}), "check_recipes", words)


def test_a_recipe_that_can_be_followed(tiny):
    recipes = {"own-2": Recipe("mine", Size(8, 8), ("hflip",), {"slope": 2.0})}
    assert tiny.first_fault(type("Planted", (tiny.Bright,), {"recipes": recipes})) == (None, "")


def test_what_is_no_model(tiny):
    tiny.assert_fault(type("Other", (), {}), "check_class", "not derived from carvana_ens.Model")


@dataclass
class Mutable:
    slope: float = option(1.0, "steepness")


@dataclass(frozen=True)
class WithoutDefault:
    slope: float = field(metadata={"help": "steepness"})


@dataclass(frozen=True)
class WithoutHelp:
    slope: float = 1.0


@dataclass(frozen=True)
class TwoLines:
    slope: float = option(1.0, "steepness\nof the map")


@dataclass(frozen=True)
class WithPath:
    file: Path = option(Path("a"), "file")  # noqa: RUF009


@dataclass(frozen=True)
class WithList:
    widths: list = field(default_factory=lambda: [1, 2], metadata={"help": "widths"})


@dataclass(frozen=True)
class WholeForFloat:
    slope: float = option(1, "steepness")


@dataclass(frozen=True)
class Infinite:
    slope: float = option(float("inf"), "steepness")


@dataclass(frozen=True)
class OutsideItsChoices:
    channel: Literal["red", "green"] = option("blue", "channel")


@dataclass(frozen=True)
class Refusing:
    slope: float = option(0.0, "steepness")

    def __post_init__(self):
        if self.slope <= 0:
            raise ValueError("option slope must be above 0")


@dataclass(frozen=True)
class Rounding:
    slope: float = option(0.25, "steepness")

    def __post_init__(self):
        object.__setattr__(self, "slope", self.slope / 2)


@dataclass(frozen=True, eq=False)
class Unequal:
    slope: float = option(1.0, "steepness")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict, "no dataclass"),
        (Mutable, r"Mutable can be changed once made: .*frozen=True"),
        (WithoutDefault, "slope has no default"),
        (WithoutHelp, "slope has the help None"),
        (TwoLines, "one line"),
        (WithPath, "file is a Path"),
        (WithList, "widths is a list"),
        (WholeForFloat, "default 1, which is no float"),
        (Infinite, "finite"),
        (OutsideItsChoices, "default 'blue'"),
        (Refusing, "slope must be above 0"),
        (Rounding, r"becomes 0\.0625 when it is set to 0\.125"),
    ],
)
def test_options_that_cannot_be_shown_or_stored(tiny, options, words):
    tiny.assert_fault(type("Planted", (tiny.Logits,), {"Options": options}), "check_options", words)


def test_options_added_without_the_decorator(tiny):
    class More(tiny.Options):
        sharpness: float = option(1.0, "forgotten")

    tiny.assert_fault(
        type("Planted", (tiny.Bright,), {"Options": More}), "check_options", "More adds options undecorated"
    )


def test_options_that_are_never_equal(tiny):
    tiny.assert_fault(type("Planted", (tiny.Logits,), {"Options": Unequal}), "check_config", "come back from JSON as")


def no_init(self, config):
    self.config, self.options = config, self.Options()


def other_config(self, config):
    Model.__init__(self, type(config)(name="mine", model="mine"))


def only_config(self, config):
    self.config = config


@pytest.mark.parametrize(
    ("init", "words"),
    [
        (no_init, "takes the unknown option 'no_such_option'"),
        (other_config, "not the config it was given"),
        (only_config, r"no \.options"),
        (lambda self, config: 1 // 0, r"Planted\(config\) raised ZeroDivisionError"),
    ],
)
def test_models_that_lose_their_config(tiny, init, words):
    tiny.assert_fault(type("Planted", (tiny.Bright,), {"__init__": init}), "check_config", words)


@pytest.mark.parametrize(("count", "words"), [(3, "not trainable"), (0.0, "whole number"), (None, "gives None")])
def test_parameters_that_are_no_count(tiny, count, words):
    model = type("Planted", (tiny.Bright,), {"count_parameters": lambda self: count})
    tiny.assert_fault(model, "check_parameters", words)


# ---- import


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes modules that the check's own process can import; gives a class that says it comes from the last one."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(**sources):
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(source)
        return type("Planted", (Model,), {"__module__": name})

    return write


def test_a_module_without_a_framework_passes(module):
    check_import(module(planted_light="import json\n"), {})


@pytest.mark.parametrize("framework", ["torch", "tensorflow", "jax"])
def test_a_plain_model_that_imports_its_framework_at_once(module, framework):
    model = module(**{framework: "", "planted_heavy": f"import {framework}\n"})
    with pytest.raises(PluginError, match=f"import planted_heavy imports {framework}: import it inside load"):
        check_import(model, {})


def test_a_torch_model_may_import_torch(module):
    torch_model = type("TorchModel", (Model,), {"__module__": "carvana_ens.learn.torch_model"})
    planted = module(torch="", planted_torch="import torch\n")
    check_import(type("Planted", (planted, torch_model), {"__module__": "planted_torch"}), {})


def test_a_module_that_cannot_be_imported_anew(module):
    model = module(planted_broken="import no_such_module_at_all\n")
    with pytest.raises(PluginError, match="No module named 'no_such_module_at_all'"):
        check_import(model, {})


def test_a_module_that_is_imported_by_listing(module):
    names = ("EntryPoint", "Distribution", "CaseSensitiveConfigParser", "BadEntryPoint")
    source = "import planted_early\ndef get_group_all(group, path=None): return []\n"
    source += "".join(f"class {name}(Exception): ...\n" for name in names)
    with pytest.raises(PluginError, match="listing the models imports planted_early"):
        check_import(module(entrypoints=source, planted_early=""), {})
