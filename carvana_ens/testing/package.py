"""The models that a package registers, read from its pyproject.toml: what is written there, not what is installed."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

from carvana_ens.errors import PluginError, first_line
from carvana_ens.model import Model
from carvana_ens.registry import GROUP


def declared_models(pyproject: Path) -> dict[str, type[Model]]:
    """The model classes by name, imported from where the entry points say.

    Raises:
        PluginError: the file registers no model, or an entry point leads to no class derived from Model.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("project", {})
    targets = project.get("entry-points", {}).get(GROUP, {})
    if not targets:
        raise PluginError(f'{pyproject} registers no model: add [project.entry-points."{GROUP}"] with a line for each')
    return {name: _imported(name, target) for name, target in targets.items()}


def _imported(name: str, target: str) -> type[Model]:
    module, _, attribute = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        told = first_line(error)
        raise PluginError(f"entry point {name} = {target} leads nowhere ({told}): name module:Class") from error
    if not (isinstance(found, type) and issubclass(found, Model)):
        raise PluginError(f"entry point {name} = {target} is no class derived from carvana_ens.Model: name one that is")
    return found
