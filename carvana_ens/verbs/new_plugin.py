"""new-plugin: a pip project with one model, which passes its own tests as it is."""

from __future__ import annotations

import builtins
import importlib.resources
import keyword
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Literal

from carvana_ens.errors import UsageError
from carvana_ens.registry import KNOWN_PACKAGES, NAME, list_models

Kind = Literal["plain", "torch"]
DEPENDENCIES = {"plain": '"carvana-ens>=0.1", "numpy>=2.0"', "torch": '"carvana-ens[torch]>=0.1"'}


@dataclass(frozen=True)
class NewPlugin:
    """folder: of the project. files: in it, sorted. test: the file of its tests."""

    name: str
    package: str
    folder: str
    files: list[str]


def new_plugin(name: str, kind: Kind = "plain", folder: Path | None = None) -> NewPlugin:
    """Writes the project into a new folder; default: carvana-ens-NAME, here.

    Raises:
        UsageError: a name that no model can have, or that another one has; or the folder is there.
    """
    _check_name(name)
    package, module = f"carvana-ens-{name}", f"carvana_ens_{name.replace('-', '_')}"
    target = Path(package) if folder is None else folder
    if target.exists() or target.is_symlink():
        raise UsageError(f"{target} is there already, and is left alone: choose another folder with -o")
    places = {
        ".gitignore": "gitignore",
        "README.md": "README.md",
        "pyproject.toml": "pyproject.toml",
        f"{module}.py": f"{kind}.py",
        f"tests/test_{module.removeprefix('carvana_ens_')}.py": f"{kind}_test.py",
    }
    shelf = importlib.resources.files("carvana_ens.verbs") / "templates"
    templates = {place: (shelf / f"{name}.in").read_text(encoding="utf-8") for place, name in places.items()}
    values = {
        "name": name,
        "package": package,
        "module": module,
        "cls": _class_name(name, "".join(templates.values())),
        "dependencies": DEPENDENCIES[kind],
    }
    # written beside it and renamed: the folder is there with all of its files, or not at all
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        for place, template in templates.items():
            file = part / place
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(Template(template).substitute(values), encoding="utf-8", newline="\n")
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return NewPlugin(name, package, str(target), sorted(places))


def _check_name(name: str) -> None:
    if NAME.fullmatch(name) is None or not name[0].isalpha():
        raise UsageError(f"model name {name!r} cannot be: use lower-case words joined by -, a letter first")
    owners = {entry.name: entry.distribution for entry in list_models().entries} | KNOWN_PACKAGES
    if name in owners:
        raise UsageError(f"there is a model {name!r} already, in {owners[name]}: choose another name")
    if f"carvana-ens-{name}" in owners.values():
        raise UsageError(f"there is a package carvana-ens-{name} already: choose another name")


def _class_name(name: str, templates: str) -> str:
    """``dark-car`` -> ``DarkCar``; with Model behind it where Python or a template has the name already."""
    joined = "".join(word.capitalize() for word in name.split("-"))
    taken = keyword.iskeyword(joined) or hasattr(builtins, joined) or re.search(rf"\b{joined}\b", templates)
    return f"{joined}Model" if taken else joined
