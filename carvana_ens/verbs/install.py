"""install and uninstall: pip in the environment that runs, and which models and steps are there afterwards."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from carvana_ens.errors import PluginError, UsageError
from carvana_ens.registry import (
    KNOWN_PACKAGES,
    KNOWN_STEPS,
    Entry,
    check_models,
    check_steps,
    list_models,
    list_steps,
)

TOLD = 3
"""Lines of pip that an error repeats: the last ones, which say why."""


@dataclass(frozen=True)
class ChangedPlugin:
    """A model or step that came or went. kind: "model" or "step". reason: why a new one is broken; None: it loads."""

    name: str
    kind: str
    distribution: str
    version: str | None
    reason: str | None = None


@dataclass(frozen=True)
class Changes:
    """packages: as pip was given them. new, gone: one whose version or package changed is in both."""

    packages: list[str]
    new: list[ChangedPlugin]
    gone: list[ChangedPlugin]


def install(
    packages: Sequence[str],
    *,
    editable: bool = False,
    upgrade: bool = False,
    on_line: Callable[[str], None] = lambda _: None,
) -> Changes:
    """Installs packages, files or folders with pip; a name of one of our models or steps stands for its package.

    Args:
        packages: as pip takes them, or names of models or steps.
        editable: folders are linked, so that edits of them take effect.
        upgrade: newer versions are fetched of what is installed already.
        on_line: called with each line that pip prints.

    Raises:
        UsageError: a name that pip would take for an option, or editable without a folder.
        PluginError: pip is missing, or failed; the message has its last lines.
    """
    chosen = [_package(name) for name in packages]
    for asked, name in zip(packages, chosen, strict=True):
        if asked != name:
            on_line(f"{asked} comes with {name}")
        if editable and not Path(name).is_dir():
            raise UsageError(f"-e links a folder, and {name} is none: name the folder that holds pyproject.toml")
    options = ["--upgrade"] * upgrade
    words = [word for name in chosen for word in (["-e", name] if editable else [name])]
    return _changed("install", chosen, [*options, *words], on_line)


def uninstall(packages: Sequence[str], *, on_line: Callable[[str], None] = lambda _: None) -> Changes:
    """Removes packages with pip; the name of an installed model or step stands for its package.

    Raises:
        UsageError: it is not installed, or is carvana-ens itself.
        PluginError: pip is missing, or failed; the message has its last lines.
    """
    owners = {entry.name: entry.distribution for entry in (*list_steps().entries, *list_models().entries)}
    chosen = [owners.get(name, name) for name in packages]
    for name in chosen:
        if name.replace("_", "-").lower() == "carvana-ens":
            raise UsageError("carvana-ens does not remove itself: python -m pip uninstall carvana-ens")
        try:
            importlib.metadata.version(name)
        except (importlib.metadata.PackageNotFoundError, ValueError):
            raise UsageError(
                f"{name} is neither an installed package nor a model or step of one: carvana-ens models lists them"
            ) from None
    return _changed("uninstall", chosen, ["--yes", *chosen], on_line)


def _package(name: str) -> str:
    if not name or name.startswith("-"):
        raise UsageError(f"{name!r} is no package: name packages, files or folders")
    return {**KNOWN_STEPS, **KNOWN_PACKAGES}.get(name, name)


def _changed(verb: str, packages: list[str], words: list[str], on_line: Callable[[str], None]) -> Changes:
    before = _plugins()
    _pip(verb, packages, words, on_line)
    importlib.invalidate_caches()
    after = _plugins()
    fresh = [plugin for plugin in after if plugin not in before]
    reasons: dict[tuple[str, Entry], str | None] = {}
    for kind, check in (("model", check_models), ("step", check_steps)):
        entries = [entry for found, entry in fresh if found == kind]
        reasons |= {(kind, entry): reason for entry, reason in zip(entries, check(entries), strict=True)}
    return Changes(
        packages,
        [_described(plugin, reasons[plugin]) for plugin in fresh],
        [_described(plugin) for plugin in before if plugin not in after],
    )


def _plugins() -> list[tuple[str, Entry]]:
    models = [("model", entry) for entry in list_models().entries]
    return models + [("step", entry) for entry in list_steps().entries]


def _described(plugin: tuple[str, Entry], reason: str | None = None) -> ChangedPlugin:
    kind, entry = plugin
    return ChangedPlugin(entry.name, kind, entry.distribution, entry.version, reason)


def _pip(verb: str, packages: list[str], words: list[str], on_line: Callable[[str], None]) -> None:
    if importlib.util.find_spec("pip") is None:
        raise PluginError(
            f"pip is not in this environment (uv makes such ones): uv pip {verb} --python {sys.executable} "
            f"{' '.join(packages)}, or once {sys.executable} -m ensurepip"
        )
    command = [sys.executable, "-m", "pip", verb, "--disable-pip-version-check", *words]
    lines: list[str] = []
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, encoding="utf-8", errors="replace", **pipes) as process:  # type: ignore[call-overload]
        for line in process.stdout:
            lines.append(line.strip())
            on_line(line.rstrip())
    if process.returncode != 0:
        told = " | ".join([line for line in lines if line][-TOLD:])
        raise PluginError(f"pip {verb} {' '.join(packages)} failed with exit code {process.returncode}: {told}")
