"""doctor: what is installed, what would not work, and why."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from carvana_ens import __version__
from carvana_ens.errors import CarvanaEnsError, ProjectError
from carvana_ens.project import Project, find_project
from carvana_ens.verbs.doctor_probe import LIBRARIES, State, Tried, probe
from carvana_ens.verbs.doctor_project import examine_project
from carvana_ens.verbs.models import models, steps

SECONDS = 300.0
"""What a process of its own may take; torch alone takes minutes to import on a machine that is busy."""
FOR_AUTHORS = ("bench", "dev")
"""Extras that a user has no need of."""


@dataclass(frozen=True)
class Finding:
    """area: "system", "libraries", "extras", "kernels", "torch", "plugins" or "project". state: "ok", "note" (works,
    but worth knowing) or "broken". text: what was found and, unless ok, what to do.
    """

    area: str
    name: str
    state: State
    text: str


@dataclass(frozen=True)
class Diagnosis:
    """All findings, area by area."""

    findings: list[Finding]

    @property
    def sound(self) -> bool:
        """Whether nothing is broken."""
        return all(finding.state != "broken" for finding in self.findings)


def doctor(folder: Path | None = None, seconds: float = SECONDS) -> Diagnosis:
    """Examines everything, and raises for nothing.

    Args:
        folder: the project's; None: the nearest one from here upward, if there is one.
        seconds: what importing the libraries, compiling a kernel, or asking torch for its devices may take each.
    """
    areas: dict[str, Callable[[], Iterator[Tried]]] = {
        "system": _system,
        "libraries": lambda: _libraries(seconds),
        "extras": _extras,
        "kernels": lambda: iter(probe(["kernels"], seconds)),
        "torch": lambda: _torch(seconds),
        "plugins": _plugins,
        "project": lambda: _project(folder),
    }
    return Diagnosis([Finding(area, *tried) for area, examine in areas.items() for tried in _safely(area, examine)])


def _safely(area: str, examine: Callable[[], Iterator[Tried]]) -> Iterator[Tried]:
    try:
        yield from examine()
    except CarvanaEnsError as error:
        yield area, "broken", str(error)
    except Exception as error:  # noqa: BLE001 (where something is broken, anything may happen)
        yield area, "broken", " ".join(f"this could not be examined: {type(error).__name__}: {error}".split())


def _system() -> Iterator[Tried]:
    yield "carvana-ens", "ok", f"{__version__} in {Path(__file__).parents[1]}"
    yield "python", "ok", f"{platform.python_version()}, {sys.executable}"
    yield "system", "ok", f"{platform.platform()}, {os.cpu_count()} processors"


def _requirements(extra: str = "") -> dict[str, Requirement]:
    """What the installed carvana-ens asks for, by name: always, or with an extra."""
    found = map(Requirement, importlib.metadata.requires("carvana-ens") or ())
    return {r.name: r for r in found if (r.marker is None) != bool(extra) and _asked(r, extra)}


def _asked(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _fault(requirement: Requirement) -> str | None:
    """Why what is installed does not do; None where it does."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{version} is installed, which is not {requirement.specifier}"
    return None


def _libraries(seconds: float) -> Iterator[Tried]:
    asked = _requirements()
    faults = {name: fault for name, requirement in asked.items() if (fault := _fault(requirement))}
    for name, fault in faults.items():
        yield name, "broken", f"{fault}: pip install '{asked[name]}'"
    for name, state, text in probe([name for name in LIBRARIES if name not in faults], seconds):
        advice = f"; pip install --force-reinstall {name}" if state == "broken" else ""
        yield name, state, text + advice if text else importlib.metadata.version(name)


def _extras() -> Iterator[Tried]:
    names = importlib.metadata.metadata("carvana-ens").get_all("Provides-Extra") or []
    for extra in sorted(set(names) - set(FOR_AUTHORS)):
        asked = _requirements(extra)
        faults = {name: fault for name, requirement in asked.items() if (fault := _fault(requirement))}
        told = ", ".join(f"{name} ({fault})" for name, fault in faults.items())
        if faults:
            yield extra, "note", f"{told}: pip install 'carvana-ens[{extra}]'"
        else:
            yield extra, "ok", ", ".join(f"{name} {importlib.metadata.version(name)}" for name in asked)


def _torch(seconds: float) -> Iterator[Tried]:
    if _fault(Requirement("torch")) is not None:
        yield "torch", "note", "not installed: networks need it, blending does not; pip install 'carvana-ens[torch]'"
        return
    yield from probe(["torch"], seconds)


def _plugins() -> Iterator[Tried]:
    found, mending = models(), steps()
    for kind, listed in (("model", found.models), ("step", mending.steps)):
        packages: dict[str, list[str]] = {}
        for plugin in listed:
            if plugin.reason is None:
                packages.setdefault(f"{plugin.distribution} {plugin.version or '?'}", []).append(plugin.name)
            else:
                yield f"{kind} {plugin.name}", "broken", f"{plugin.reason} ({plugin.distribution} {plugin.version})"
        for package, names in packages.items():
            yield package, "ok", f"{kind}s {', '.join(names)}"
        names = [plugin.name for plugin in listed]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"{kind} {name}", "note", "two packages have it: write package:name"
    for problem in dict.fromkeys([*found.problems, *mending.problems]):
        yield "entry points", "note", problem
    if not found.models:
        yield "models", "note", "none: pip install 'carvana-ens[models]', or import maps made elsewhere"


def _project(folder: Path | None) -> Iterator[Tried]:
    if folder is None:
        try:
            project = find_project()
        except ProjectError as error:
            if any((parent / "ensemble.toml").is_file() for parent in (Path.cwd(), *Path.cwd().parents)):
                raise
            yield "project", "note", str(error)
            return
    else:
        project = Project(folder.absolute())
    yield from examine_project(project)
