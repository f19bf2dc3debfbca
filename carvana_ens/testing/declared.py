"""Checks of what a model says about itself: class attributes, options, configuration, import, parameters."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
import typing
from collections.abc import Mapping
from typing import Any, Literal

from carvana_ens.errors import UsageError
from carvana_ens.model import TTA, MemberConfig, Model, Recipe, options_json, parse_options, recipes_of, tta_fault
from carvana_ens.registry import NAME
from carvana_ens.testing.drawn import SIZE
from carvana_ens.testing.trial import calling, config_of, made, refused
from carvana_ens.types import Json, Size

KINDS = (bool, int, float, str)
FRAMEWORKS = ("torch", "tensorflow", "jax")
IMPORT_SECONDS = 120.0
_LISTING = """
import importlib, importlib.util, json, sys
name, file, sys.path[:] = json.loads(sys.argv[1])
from carvana_ens.registry import list_models
list_models()
listed = name in sys.modules
"""
_IMPORTING = """
try:
    importlib.import_module(name)
except ModuleNotFoundError:
    if file is None or importlib.util.find_spec(name.partition(".")[0]) is not None:
        raise
    spec = importlib.util.spec_from_file_location(name, file)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
"""
_TELLING = """
print()
print(json.dumps([listed, [module for module in sys.argv[2:] if module in sys.modules]]))
"""


def check_class(model_class: type[Model], options: Mapping[str, Json]) -> None:  # noqa: ARG001
    """The class attributes that the host reads have values that it knows.

    Raises:
        PluginError: one has not, ``predict`` is missing, or ``fit`` is missing from a trainable model.
    """
    if not (isinstance(model_class, type) and issubclass(model_class, Model)):
        raise refused(model_class, "it is not derived from carvana_ens.Model: register a class that is")
    for name, known in (("output", ("probabilities", "logits")), ("context", ("image", "group"))):
        value = getattr(model_class, name)
        if value not in known:
            raise refused(model_class, f"{name} is {value!r}: set it to {known[0]!r} or {known[1]!r}")
    if type(model_class.trainable) is not bool:
        raise refused(model_class, f"trainable is {model_class.trainable!r}: set it to True or False")
    size: Any = model_class.size
    if size is not None and not (isinstance(size, Size) and all(type(side) is int and side > 0 for side in size)):
        raise refused(model_class, f"size is {size!r}: set it to None or a carvana_ens.Size of height and width")
    batch_size: Any = model_class.batch_size
    if type(batch_size) is not int or batch_size < 1:
        raise refused(model_class, f"batch_size is {batch_size!r}: set it to a whole number of photos, at least 1")
    if model_class.predict is Model.predict:
        raise refused(model_class, "predict is missing: write predict(self, batch), which gives (N, H, W) float32")
    if model_class.trainable and model_class.fit is Model.fit:
        raise refused(model_class, "fit is missing, but trainable is True: write fit(self, task), or set it to False")


def check_options(model_class: type[Model], options: Mapping[str, Json]) -> None:
    """The options are a frozen dataclass of plain values, each with a default and a help text.

    Raises:
        PluginError: they are not, or ``options`` (or a default, as ``--set`` gives it) is not accepted by them.
    """
    cls: Any = model_class.Options
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise refused(model_class, f"Options is {cls!r}, no dataclass: decorate it with @dataclass(frozen=True)")
    if "__dataclass_fields__" not in vars(cls) and inspect.get_annotations(cls):
        raise refused(model_class, f"{cls.__name__} adds options undecorated: decorate it with @dataclass(frozen=True)")
    if not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise refused(model_class, f"{cls.__name__} can be changed once made: decorate it with @dataclass(frozen=True)")
    with calling(model_class, f"reading the annotations of {cls.__name__}"):
        hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        _check_option(model_class, field, hints[field.name])
    with calling(model_class, f"{cls.__name__}()"):
        default = options_json(cls())
    for name, value in default.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        for given in (value, text):
            with calling(model_class, f"option {name}, set to its default {given!r},"):
                kept = options_json(parse_options(cls, {name: given}))[name]
            if kept != value:
                raise refused(model_class, f"option {name} becomes {kept!r} when it is set to {given!r}: keep it")
    with calling(model_class, f"options {dict(options)}"):
        parse_options(cls, options)


def _check_option(model_class: type[Model], field: dataclasses.Field[Any], hint: Any) -> None:
    choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
    kinds = {type(choice) for choice in choices} if choices else {hint}
    if len(kinds) != 1 or not kinds <= set(KINDS):
        raise refused(
            model_class,
            f"option {field.name} is a {field.type}: annotate it as bool, int, float, str or a Literal of one of these",
        )
    if field.default is dataclasses.MISSING:
        raise refused(model_class, f"option {field.name} has no default: write option(default, help)")
    if type(field.default) not in kinds or (choices and field.default not in choices):
        raise refused(model_class, f"option {field.name} has the default {field.default!r}, which is no {field.type}")
    if field.default != field.default or field.default in (float("inf"), float("-inf")):
        raise refused(model_class, f"option {field.name} has the default {field.default}: JSON has finite numbers only")
    help_text = field.metadata.get("help")
    if not (isinstance(help_text, str) and help_text.strip()) or "\n" in help_text:
        raise refused(model_class, f"option {field.name} has the help {help_text!r}: give one line, option(..., help)")


def check_recipes(model_class: type[Model], options: Mapping[str, Json]) -> None:
    """The recipes are carvana_ens.Recipe, each with a name and a help line, and the model takes what they set.

    Raises:
        PluginError: they are not, or it does not.
    """
    recipes: Any = model_class.recipes
    if not isinstance(recipes, Mapping):
        raise refused(model_class, f"recipes is {recipes!r}: set it to a table of carvana_ens.Recipe by name")
    for name, recipe in recipes.items():
        if not (isinstance(name, str) and NAME.fullmatch(name)):
            raise refused(model_class, f"a recipe is named {name!r}: a name is lower-case words joined by -")
        if not isinstance(recipe, Recipe):
            raise refused(model_class, f"recipe {name} is {recipe!r}: make it a carvana_ens.Recipe")
        if not (isinstance(recipe.help, str) and recipe.help.strip()) or "\n" in recipe.help:
            raise refused(model_class, f"recipe {name} has the help {recipe.help!r}: give one line")
        fault = tta_fault(recipe.tta)
        if fault is not None:
            raise refused(model_class, f"recipe {name} has the tta {recipe.tta}: {fault}")
        given = recipes_of(model_class)[name].options
        config = config_of(model_class, {**given, **options}, SIZE)
        with calling(model_class, f"its recipe {name}"):
            parse_options(model_class.Options, given)
            model_class(dataclasses.replace(config, size=recipe.size, tta=recipe.tta))


def check_config(model_class: type[Model], options: Mapping[str, Json]) -> None:
    """A member's config comes back from JSON as it was, and makes a model with the same options.

    Raises:
        PluginError: it does not, or the model takes an option that it does not have.
    """
    config = dataclasses.replace(config_of(model_class, options, SIZE), size=SIZE, tta=TTA, seed=7)
    model = made(model_class, config)
    for name, expected in (("config", MemberConfig), ("options", model_class.Options)):
        if not isinstance(getattr(model, name, None), expected):
            raise refused(model_class, f"its instance has no .{name}: call super().__init__(config) in __init__")
    if model.config != config:
        raise refused(model_class, f"its .config is {model.config}, not the config it was given: leave it alone")
    with calling(model_class, "writing its config as JSON"):
        text = json.dumps(config.to_json() | {"options": options_json(model.options)}, allow_nan=False)
    read = MemberConfig.from_json(json.loads(text))
    twin = made(model_class, read)
    if twin.options != model.options or options_json(twin.options) != options_json(model.options):
        raise refused(
            model_class,
            f"its options {model.options} come back from JSON as {twin.options}: keep values as given, "
            "and let options of the same values be equal",
        )
    unknown = dataclasses.replace(config, options={**options, "no_such_option": 1})
    try:
        model_class(unknown)
    except UsageError:
        return
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        raise refused(model_class, f"it answers an unknown option with {told}: raise carvana_ens.UsageError") from error
    raise refused(model_class, "it takes the unknown option 'no_such_option': call super().__init__(config)")


def check_import(model_class: type[Model], options: Mapping[str, Json]) -> None:  # noqa: ARG001
    """Listing models does not import the plugin, and importing a plain model does not import a framework.

    A model derived from TorchModel imports torch; any other model imports its framework in ``load``, so that its
    options can be shown without it. Both are tried in a new process.

    Raises:
        PluginError: they do, or the plain model cannot be imported there.
    """
    module = model_class.__module__
    plain = all(base.__module__ != "carvana_ens.learn.torch_model" for base in model_class.__mro__)
    code = _LISTING + (_IMPORTING if plain else "") + _TELLING
    found = json.dumps([module, getattr(sys.modules.get(module), "__file__", None), sys.path])
    command = [sys.executable, "-c", code, found, *FRAMEWORKS]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise refused(
            model_class, f"import {module} took more than {IMPORT_SECONDS:.0f} s: leave heavy work to load"
        ) from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise refused(model_class, f"import {module} in a new process failed: {reason}; see to what it imports")
    listed, frameworks = json.loads(done.stdout.splitlines()[-1])
    if listed:
        raise refused(
            model_class, f"listing the models imports {module}: no file of the plugin may import it by itself"
        )
    if frameworks:
        raise refused(
            model_class, f"import {module} imports {' and '.join(frameworks)}: import it inside load, where it is used"
        )


def check_parameters(model_class: type[Model], options: Mapping[str, Json]) -> None:
    """``count_parameters`` answers before ``load``, with a whole number; 0 for a model that cannot be trained.

    Raises:
        PluginError: it does not.
    """
    model = made(model_class, config_of(model_class, options, SIZE))
    with calling(model_class, "count_parameters()"):
        count: Any = model.count_parameters()
    if type(count) is not int or count < 0:
        raise refused(model_class, f"count_parameters() gives {count!r}: give a whole number")
    if count and not model_class.trainable:
        raise refused(model_class, f"count_parameters() gives {count}, but it is not trainable: give 0")
