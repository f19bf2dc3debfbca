"""models: which models and post-processing steps are installed, and what one of them is."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from carvana_ens.errors import CarvanaEnsError
from carvana_ens.files import digest, write_json
from carvana_ens.model import Context, MemberConfig, Recipe, find_recipe, recipes_of
from carvana_ens.registry import (
    Entry,
    Listing,
    check_models,
    check_steps,
    list_models,
    list_steps,
    load_model,
    load_step,
)
from carvana_ens.types import Json
from carvana_ens.verbs.plugin_calls import calling, configured


@dataclass(frozen=True)
class InstalledModel:
    """A model or a step. reason: why it is broken, in one line; None when it loads."""

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
class InstalledSteps:
    """problems: what of other packages could not be read, one line each."""

    steps: list[InstalledModel]
    problems: list[str]


@dataclass(frozen=True)
class OptionDescription:
    """One option of a model or step. type: its values in words."""

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


@dataclass(frozen=True)
class StepDescription:
    """tried: by option, the values that tuning tries where the option is left at its default."""

    name: str
    distribution: str
    version: str | None
    help: str
    options: list[OptionDescription]
    tried: dict[str, list[Json]]


def models(check: bool = False) -> InstalledModels:
    """Every installed model with the reason of a broken one.

    The models of each package are imported in a process of their own, never in this one. One that loaded is
    remembered until its files change; check: import all of them again.
    """
    return InstalledModels(*_installed(list_models(), check_models, _memory(), check))


def steps(check: bool = False) -> InstalledSteps:
    """Every installed post-processing step with the reason of a broken one; see ``models``."""
    memory = _memory().with_name("steps-that-loaded.json")
    return InstalledSteps(*_installed(list_steps(), check_steps, memory, check))


def _installed(
    listing: Listing, check_all: Callable[[Sequence[Entry]], list[str | None]], memory: Path, check: bool
) -> tuple[list[InstalledModel], list[str]]:
    keys = {entry: _state(entry) for entry in listing.entries}
    known = set() if check else _remembered(memory)
    doubtful = [entry for entry in listing.entries if keys[entry] not in known]
    reasons = dict(zip(doubtful, check_all(doubtful), strict=True))
    _remember(memory, {keys[entry] for entry in listing.entries if reasons.get(entry) is None})
    found = [InstalledModel(e.name, e.distribution, e.version, reasons.get(e)) for e in listing.entries]
    return found, list(listing.problems)


def describe(name: str) -> ModelDescription:
    """Options and parameters of one model, which is imported for it.

    Raises:
        PluginError: unknown or broken.
    """
    model, entry = load_model(name)
    config = MemberConfig(name=entry.name, model=name)
    with calling(model, config, "be described"):
        parameters = configured(model, config).count_parameters()
    return ModelDescription(
        name=entry.name,
        distribution=entry.distribution,
        version=entry.version,
        help=_summary(model),
        parameters=parameters,
        trainable=model.trainable,
        output=model.output,
        context=model.context,
        size=None if model.size is None else str(model.size),
        options=_options(model.Options),
        recipes=[_described(name, recipe) for name, recipe in recipes_of(model).items()],
    )


def describe_step(name: str) -> StepDescription:
    """Options of one post-processing step, which is imported for it.

    Raises:
        PluginError: unknown or broken.
    """
    step, entry = load_step(name)
    return StepDescription(
        name=entry.name,
        distribution=entry.distribution,
        version=entry.version,
        help=_summary(step),
        options=_options(step),
        tried={option: list(values) for option, values in step.tried.items()},
    )


def _summary(kind: type) -> str:
    """The first paragraph of a docstring."""
    return inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0]


def _options(cls: type) -> list[OptionDescription]:
    """The fields of an options dataclass."""
    hints: dict[str, object] = {}
    for base in cls.__mro__:
        hints = {**inspect.get_annotations(base, eval_str=False), **hints}
    return [
        OptionDescription(field.name, _type(hints[field.name]), field.default, field.metadata.get("help", ""))
        for field in dataclasses.fields(cls)
    ]


def _type(hint: object) -> str:
    """An annotation as it is written; it is a text where its module postpones annotations."""
    return hint if isinstance(hint, str) else inspect.formatannotation(hint)


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


def _remembered(memory: Path) -> set[str]:
    try:
        return set(json.loads(memory.read_text()))
    except (OSError, ValueError, TypeError):
        return set()


def _remember(memory: Path, states: set[str]) -> None:
    if states == _remembered(memory):
        return
    try:
        write_json(memory, sorted(states))
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
