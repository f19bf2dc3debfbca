"""models: what is installed, and what one model is."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from carvana_ens.errors import CarvanaEnsError
from carvana_ens.files import digest, write_json
from carvana_ens.model import Context, MemberConfig, Recipe, find_recipe, recipes_of
from carvana_ens.registry import Entry, check_models, list_models, load_model
from carvana_ens.types import Json
from carvana_ens.verbs.plugin_calls import calling, configured


@dataclass(frozen=True)
class InstalledModel:
    """reason: why it is broken, in one line; None when it loads."""

    name: str
    distribution: str
    version: str | None
    reason: str | None


@dataclass(frozen=True)
class InstalledModels:
    """problems: what of other packages could not be read, one line each."""

    models: list[InstalledModel]
    problems: list[str]


@dataclass(frozen=True)
class OptionDescription:
    """One option of a model. type: its values in words."""

    name: str
    type: str
    default: Json
    help: str


@dataclass(frozen=True)
class RecipeDescription:
    """A recipe of a model with all that it sets; see ``carvana_ens.model.Recipe``."""

    name: str
    help: str
    size: str | None
    tta: list[str]
    options: dict[str, Json]


@dataclass(frozen=True)
class ModelDescription:
    """parameters: the number of trainable parameters, with the default options."""

    name: str
    distribution: str
    version: str | None
    help: str
    parameters: int
    trainable: bool
    output: str
    context: Context
    size: str | None
    options: list[OptionDescription]
    recipes: list[RecipeDescription]


def models(check: bool = False) -> InstalledModels:
    """Every installed model with the reason of a broken one.

    The models of each package are imported in a process of their own, never in this one. One that loaded is
    remembered until its files change; check: import all of them again.
    """
    listing = list_models()
    keys = {entry: _state(entry) for entry in listing.entries}
    known = set() if check else _remembered()
    doubtful = [entry for entry in listing.entries if keys[entry] not in known]
    reasons = dict(zip(doubtful, check_models(doubtful), strict=True))
    _remember({keys[entry] for entry in listing.entries if reasons.get(entry) is None})
    return InstalledModels(
        [InstalledModel(e.name, e.distribution, e.version, reasons.get(e)) for e in listing.entries],
        list(listing.problems),
    )


def describe(name: str) -> ModelDescription:
    """Options and parameters of one model, which is imported for it.

    Raises:
        PluginError: unknown or broken.
    """
    model, entry = load_model(name)
    config = MemberConfig(name=entry.name, model=name)
    with calling(model, config, "be described"):
        parameters = configured(model, config).count_parameters()
    hints: dict[str, object] = {}
    for base in model.Options.__mro__:
        hints = {**inspect.get_annotations(base, eval_str=False), **hints}
    return ModelDescription(
        name=entry.name,
        distribution=entry.distribution,
        version=entry.version,
        help=inspect.cleandoc(model.__doc__ or "").partition("\n\n")[0],
        parameters=parameters,
        trainable=model.trainable,
        output=model.output,
        context=model.context,
        size=None if model.size is None else str(model.size),
        options=[
            OptionDescription(field.name, str(hints[field.name]), field.default, field.metadata.get("help", ""))
            for field in dataclasses.fields(model.Options)
        ],
        recipes=[_described(name, recipe) for name, recipe in recipes_of(model).items()],
    )


def describe_recipe(name: str, recipe: str) -> RecipeDescription:
    """One recipe of a model, which is imported for it.

    Raises:
        PluginError: unknown or broken model.
        UsageError: the model has no such recipe.
    """
    return _described(recipe, find_recipe(load_model(name)[0], recipe))


def _described(name: str, recipe: Recipe) -> RecipeDescription:
    size = None if recipe.size is None else str(recipe.size)
    return RecipeDescription(name, recipe.help, size, list(recipe.tta), dict(recipe.options))


def _memory() -> Path:
    return Path(platformdirs.user_cache_dir("carvana-ens")) / "models-that-loaded.json"


def _remembered() -> set[str]:
    try:
        return set(json.loads(_memory().read_text()))
    except (OSError, ValueError, TypeError):
        return set()


def _remember(states: Sequence[str] | set[str]) -> None:
    if set(states) == _remembered():
        return
    try:
        write_json(_memory(), sorted(states))
    except CarvanaEnsError:
        return  # a cache that cannot be written costs time, nothing else


def _state(entry: Entry) -> str:
    """A hash of the entry, this Python, and the times of the plugin's files; found without importing it."""
    files: list[list[Json]] = []
    top = entry.target.partition(":")[0].partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.origin is not None:
        origin = Path(spec.origin)
        sources = sorted(origin.parent.rglob("*.py")) if spec.submodule_search_locations else [origin]
        files = [[str(path), path.stat().st_mtime_ns] for path in sources]
    return digest([dataclasses.astuple(entry), sys.prefix, sys.version, files])
