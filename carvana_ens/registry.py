"""Which models and post-processing steps are installed: entry points of two groups.

Listing imports no plugin. What is asked for by name is imported then; what cannot be imported is an error of its own
and stops nothing else. The ``entrypoints`` package is used here and nowhere else, so that it can be swapped in this
file.
"""

from __future__ import annotations

import configparser
import contextlib
import difflib
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import entrypoints

from carvana_ens.errors import PluginError
from carvana_ens.model import Model
from carvana_ens.postprocess import Step

GROUP = "carvana_ens.models"
STEPS = "carvana_ens.postprocess"
_OURS = {
    "carvana-ens-command": "command",
    "carvana-ens-difference": "difference",
    "carvana-ens-enet": "enet",
    "carvana-ens-linknet": "linknet18 linknet34 linknet50",
    "carvana-ens-onnx": "onnx",
    "carvana-ens-refinenet": "refinenet-v1 refinenet-v2 refinenet-v3 refinenet-v4 refinenet-v5 refinenet-v6",
    "carvana-ens-smp": "smp-deeplabv3 smp-deeplabv3plus smp-dpt smp-fpn smp-linknet smp-manet smp-pan smp-pspnet "
    "smp-segformer smp-unet smp-unetplusplus smp-upernet",
    "carvana-ens-timm": "timm-fpn timm-linknet timm-unet",
    "carvana-ens-unet": "unet-128 unet-256 unet-512 unet-1024 myunet-128-2 myunet-256-2 myunet-512-2 myunet-1024-5 "
    "myunet-double-1024-5 myunet-128 myunet-128-1 myunet-256 myunet-256-1 myunet-512 myunet-v3 unet-scratch "
    "unet-scratch-4 unet-scratch-5 unet-scratch-7 unet-scratch-narrow unet-gray segnet-gray unet-roi",
    "carvana-ens-vgg-unet": "unet11 unet-vgg11-v1 unet-vgg11-v2 unet-vgg11-a",
}
KNOWN_PACKAGES = {model: package for package, models in _OURS.items() for model in models.split()}
"""Our own models by the package that has them, so that an unknown name can be answered with it."""
KNOWN_STEPS = dict.fromkeys(
    ("closing", "fill-holes", "largest", "remove-islands", "roof-repair"), "carvana-ens-postprocess"
)
"""Our own steps, likewise."""
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
CHECK_SECONDS = 300.0
"""A package that takes longer to import is called broken; torch alone takes minutes on a machine that is busy."""


@dataclass(frozen=True)
class _Kind:
    """What a group of entry points registers. word: for messages. base: of the classes. listing: the command for it."""

    group: str
    word: str
    base: type
    known: Mapping[str, str]
    listing: str


_MODELS = _Kind(GROUP, "model", Model, KNOWN_PACKAGES, "carvana-ens models")
_STEPS = _Kind(STEPS, "step", Step, KNOWN_STEPS, "carvana-ens models --steps")


@dataclass(frozen=True)
class Entry:
    """One registered model or step: its name, and the distribution, version and ``module:object`` behind it."""

    name: str
    distribution: str
    version: str | None
    target: str

    @property
    def source(self) -> str:
        """Distribution and version, for messages."""
        return f"{self.distribution} {self.version or '(unknown version)'}"


@dataclass(frozen=True)
class Listing:
    """What is registered, sorted by name, and what could not be read (one line each)."""

    entries: tuple[Entry, ...]
    problems: tuple[str, ...]


def list_models(path: Sequence[str] | None = None) -> Listing:
    """The registered models, found without importing any of them. path: folders to search instead of sys.path."""
    return _list(_MODELS, path)


def list_steps(path: Sequence[str] | None = None) -> Listing:
    """The registered post-processing steps, like ``list_models``."""
    return _list(_STEPS, path)


def _list(kind: _Kind, path: Sequence[str] | None = None) -> Listing:
    problems: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the package only warns of a malformed entry, and does not say whose it is
        try:
            found = entrypoints.get_group_all(kind.group, path=path)
        except (configparser.Error, UnicodeDecodeError, OSError, Warning):
            # one malformed file of any package, ours or not, stops the package's own search: read file by file
            found = _search_file_by_file(kind, sys.path if path is None else path, problems)
    entries = {
        Entry(
            name=point.name,
            distribution=point.distro.name.replace("_", "-") if point.distro else "(unknown)",
            version=point.distro.version if point.distro else None,
            target=f"{point.module_name}:{point.object_name}",
        )
        for point in found
    }
    ordered = sorted(entries, key=lambda entry: (entry.name, entry.distribution))
    problems += [
        f"{kind.word} {entry.name!r} of {entry.source} is ignored: a name is lower-case words joined by -"
        for entry in ordered
        if NAME.fullmatch(entry.name) is None
    ]
    return Listing(tuple(entry for entry in ordered if NAME.fullmatch(entry.name)), tuple(problems))


def _search_file_by_file(kind: _Kind, folders: Sequence[str], problems: list[str]) -> list[entrypoints.EntryPoint]:
    found: list[entrypoints.EntryPoint] = []
    seen: set[str] = set()
    for folder in folders:
        files = sorted(Path(folder or ".").glob("*.dist-info/entry_points.txt"))
        files += sorted(Path(folder or ".").glob("*.egg-info/entry_points.txt"))
        for file in files:
            distribution = entrypoints.Distribution.from_name_version(file.parent.stem)
            if distribution.name in seen:
                continue
            seen.add(distribution.name)
            parser = entrypoints.CaseSensitiveConfigParser(delimiters=("=",), interpolation=None)
            try:
                parser.read_string(file.read_text(encoding="utf-8"), source=str(file))
            except (configparser.Error, UnicodeDecodeError, OSError) as error:
                problems.append(f"{file} is malformed and was left out: {_one_line(error)}")
                continue
            if parser.has_section(kind.group):
                for name, target in parser.items(kind.group):
                    try:
                        found.append(entrypoints.EntryPoint.from_string(target, name, distribution))
                    except entrypoints.BadEntryPoint as error:
                        problems.append(f"{file}: {kind.word} {name!r} is left out: {_one_line(error)}")
    return found


def find_model(name: str) -> Entry:
    """The entry of a model by its name, or by ``distribution:name`` where two packages give one name.

    Raises:
        PluginError: unknown (with the nearest name, or the package that has it), or given by two packages.
    """
    return _find(_MODELS, name)


def find_step(name: str) -> Entry:
    """The entry of a post-processing step, like ``find_model``."""
    return _find(_STEPS, name)


def _find(kind: _Kind, name: str) -> Entry:
    distribution, _, plain = name.rpartition(":")
    listing = _list(kind)
    entries = listing.entries
    found = [e for e in entries if e.name == plain and distribution in ("", e.distribution)]
    if len(found) == 1:
        return found[0]
    if found:
        sources = " and ".join(e.source for e in found)
        choices = " or ".join(f"{e.distribution}:{e.name}" for e in found)
        raise PluginError(f"{kind.word} {name!r} is given by {sources}: write {choices}", name=name)
    names = [e.name for e in entries]
    unread = f" ({listing.problems[0]})" if listing.problems else ""  # it may be in what could not be read
    if plain in kind.known and plain not in names:
        raise PluginError(f"{kind.word} {name!r} is not installed: pip install {kind.known[plain]}{unread}", name=name)
    near = difflib.get_close_matches(plain, [*names, *kind.known], 1)
    hint = f"did you mean {near[0]!r}?" if near else f"{kind.listing} lists what is installed"
    raise PluginError(f"{kind.word} {name!r} is unknown: {hint}{unread}", name=name)


def load_model(name: str) -> tuple[type[Model], Entry]:
    """Imports a model's class. What the plugin prints meanwhile goes to standard error, so that no output is spoilt.

    Raises:
        PluginError: unknown name, or its plugin raises or exits at import, or registers something that is no Model.
    """
    return _load(_MODELS, name)


def load_step(name: str) -> tuple[type[Step], Entry]:
    """Imports a post-processing step's class, like ``load_model``.

    Raises:
        PluginError: as ``load_model``, or the class calls itself by another name than its entry point.
    """
    step, entry = _load(_STEPS, name)
    own = getattr(step, "name", None)
    if own != entry.name:
        raise _broken(_STEPS, entry, f"{entry.target} has the name {own!r}, not that of its entry point")
    return step, entry


def _load(kind: _Kind, name: str) -> tuple[type[Any], Entry]:
    entry = _find(kind, name)
    module, _, attribute = entry.target.partition(":")
    point = entrypoints.EntryPoint(entry.name, module, None if attribute == "None" else attribute)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            found = point.load()
    except (Exception, SystemExit) as error:
        raise _broken(kind, entry, f"{type(error).__name__}: {_one_line(error)}") from error
    if not (isinstance(found, type) and issubclass(found, kind.base)):
        base = f"carvana_ens.{kind.base.__name__}"
        raise _broken(kind, entry, f"{entry.target} is {type(found).__name__}, not a class derived from {base}")
    return found, entry


def check_models(entries: Sequence[Entry], seconds: float = CHECK_SECONDS) -> list[str | None]:
    """Imports the models of each package in a process of its own: the reason if one is broken, None if it loads.

    Where one of several ends or stops that process, those of its package that had not answered get one each.
    """
    return _check_all(_MODELS, entries, seconds)


def check_steps(entries: Sequence[Entry], seconds: float = CHECK_SECONDS) -> list[str | None]:
    """Imports post-processing steps, like ``check_models``."""
    return _check_all(_STEPS, entries, seconds)


def _check_all(kind: _Kind, entries: Sequence[Entry], seconds: float) -> list[str | None]:
    packages: dict[str, list[Entry]] = {}
    for entry in entries:
        packages.setdefault(entry.distribution, []).append(entry)
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda package: _check(kind, package, seconds), packages.values())
        reasons = {entry: reason for answers in found for entry, reason in answers.items()}
    return [reasons[entry] for entry in entries]


def _check(kind: _Kind, entries: Sequence[Entry], seconds: float) -> dict[Entry, str | None]:
    names = [f"{entry.distribution}:{entry.name}" for entry in entries]
    command = [sys.executable, "-m", "carvana_ens.registry", kind.group, *names]
    ended = f"its import took more than {seconds:g} s"
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
        output = done.stdout
        ended = f"its import ended Python with exit code {done.returncode}"
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
    # its answers are lines of bytes among others: a plugin may print anything while it is imported
    lines = [line for line in output.splitlines() if line.startswith(b'{"carvana_ens_check"')]
    answers = {name: reason for line in lines for name, reason in json.loads(line)["carvana_ens_check"].items()}
    reasons: dict[Entry, str | None] = {}
    for entry, name in zip(entries, names, strict=True):
        if name in answers:
            reasons[entry] = answers[name]
        else:
            reasons |= {entry: ended} if len(entries) == 1 else _check(kind, [entry], seconds)
    return reasons


def _broken(kind: _Kind, entry: Entry, reason: str) -> PluginError:
    return PluginError(
        f"{kind.word} {entry.name!r} of {entry.source} cannot be loaded: {reason}",
        name=entry.name,
        distribution=entry.distribution,
        version=entry.version,
        reason=reason,
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _main(group: str, names: Sequence[str]) -> None:
    load = load_step if group == STEPS else load_model
    for name in names:
        reason: str | None = None
        try:
            load(name)
        except PluginError as error:
            reason = error.reason
        sys.stdout.write("\n" + json.dumps({"carvana_ens_check": {name: reason}}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2:])
