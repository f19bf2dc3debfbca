"""Outcomes of finished searches in a file, so that tuning that was stopped goes on where it was."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path

from carvana_ens import __version__, core
from carvana_ens.ensemble.search import Found, Setting
from carvana_ens.files import digest, write_json
from carvana_ens.types import Json

SCHEMA = 2

ROOMS = (Path(core.__path__[0]), Path(__file__).parent)
"""The code that decides what a search finds."""


@cache
def search_code() -> str:
    """Names the state of that code by its text, as ``core.jit`` names that of kernels: a version has many states."""
    return code_of(ROOMS)


def code_of(rooms: Sequence[Path]) -> str:
    """The version, and sha256 (hex) over the modules in these folders."""
    text = b"".join(path.read_bytes() for room in rooms for path in sorted(room.glob("*.py")))
    return f"{__version__}-{hashlib.sha256(text).hexdigest()}"


class KeptSearches:
    """path: of the file, which is replaced as a whole. source: digest of all that the outcome of a search depends on
    beside its images: maps, masks, thresholds, options. A file of another source or of other code (``search_code``),
    or one that cannot be read, is begun anew.
    """

    def __init__(self, path: Path, source: str) -> None:
        self._path = path
        self._head = {"schema": SCHEMA, "code": search_code(), "source": source}
        self._found: dict[str, Json] = {}
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if self._head.items() <= document.items():
                self._found = {key: _written(_read(value)) for key, value in document["found"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
            self._found = {}  # a cache: what cannot be read is searched again

    def get(self, ids: Sequence[str]) -> Found | None:
        """The outcome of the search on these images, in this order; None: not searched yet."""
        value = self._found.get(digest(list(ids)))
        return None if value is None else _read(value)

    def put(self, ids: Sequence[str], found: Found) -> None:
        """Keeps an outcome, unless the time was up before the search was."""
        if found.in_time:
            self._found[digest(list(ids))] = _written(found)
            write_json(self._path, {**self._head, "found": self._found})


def _written(found: Found) -> Json:
    return {
        "how": found.how,
        "settings": {name: _setting(setting) for name, setting in found.settings.items()},
        "singles": [_setting(setting) for setting in found.singles],
        "path": list(found.path),
    }


def _setting(setting: Setting) -> Json:
    return {**dataclasses.asdict(setting), "weights": list(setting.weights), "threshold": str(setting.threshold)}


def _read(value: Json) -> Found:
    settings = {name: _read_setting(setting) for name, setting in value["settings"].items()}
    singles = tuple(_read_setting(setting) for setting in value["singles"])
    return Found(settings[value["how"]], value["how"], settings, singles, tuple(value["path"]), in_time=True)


def _read_setting(value: Json) -> Setting:
    weights = tuple(int(weight) for weight in value["weights"])
    return Setting(weights, Fraction(value["threshold"]), float(value["score"]))
