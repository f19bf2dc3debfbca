"""ensemble.toml: the data, the members and the fold tables of a project.

The file is the user's: it is read strictly, and a verb that edits it changes only what was asked. A member is added
at the end and taken out by its lines, so that everything else stays byte for byte.
Paths in it are relative to it. What the verbs make lies beside it::

    ensemble.toml  folds/<name>.json  checkpoints/<member>/fold<k>/  stores/<member>/<split>.zarr  tuning.json  runs/
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError

from carvana_ens.errors import ProjectError, UsageError
from carvana_ens.model import TTA, MemberConfig
from carvana_ens.types import Json, Size

FILE = "ensemble.toml"
SCHEMA = 1
IMPORTED = ""
"""``model`` of a member whose maps were imported."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
RESERVED = ("equal", "tuned")


@dataclass(frozen=True)
class DataConfig:
    """Where the data lies (absolute paths, None where not given), and what must not be split across folds.

    group: a regular expression with one capture group on the image id; None for the default rule. categories: the
    COCO categories that together are the object; empty for all.
    """

    images: Path | None = None
    masks: Path | None = None
    test: Path | None = None
    group: str | None = None
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoldsConfig:
    """A fold table to make: folds (None: min(5, groups)), or one hold-out of a share of the groups."""

    folds: int | None = None
    holdout: float | None = None
    seed: int = 0


class Project:
    """A project folder with its ensemble.toml, as it was when it was opened."""

    def __init__(self, root: Path, text: str | None = None) -> None:
        """Reads and checks ``root/ensemble.toml``; text: what it is about to hold, in place of what it holds.

        Raises:
            ProjectError: there is none, or it is not valid; names the key.
        """
        self.root = root
        self.file = root / FILE
        document = parse(self.file, read_text(self.file) if text is None else text)
        _check_keys(self.file, "", document, ("schema", "data", "folds", "members"))
        if document.get("schema") != SCHEMA:
            got = document.get("schema")
            raise ProjectError(f"{self.file}: schema is {got!r}, this version reads {SCHEMA}: upgrade carvana-ens")
        self.data = self._data(_table(self.file, document, "data"))
        self.folds = {name: self._folds(name, table) for name, table in _tables(self.file, document, "folds")}
        self.folds.setdefault("default", FoldsConfig())
        self.members = {name: self._member(name, table) for name, table in _tables(self.file, document, "members")}
        for member in self.members.values():
            self._check_member(member)

    def _data(self, table: Mapping[str, Json]) -> DataConfig:
        _check_keys(self.file, "data", table, [f.name for f in dataclasses.fields(DataConfig)])
        paths = {}
        for key in ("images", "masks", "test"):
            if key in table:
                paths[key] = Path(os.path.normpath(self.root / _text(self.file, f"data.{key}", table[key])))
        group = table.get("group")
        categories = table.get("categories", [])
        if not isinstance(categories, list):
            raise ProjectError(f"{self.file}: data.categories takes a list of texts, got {categories!r}")
        return DataConfig(
            **paths,
            group=None if group is None else _text(self.file, "data.group", group),
            categories=tuple(_text(self.file, "data.categories", name) for name in categories),
        )

    def _folds(self, name: str, table: Mapping[str, Json]) -> FoldsConfig:
        where = f"folds.{name}"
        if NAME.fullmatch(name) is None:  # it becomes a file name
            raise ProjectError(f"{self.file}: {name!r} cannot name a fold table: {_LETTERS}")
        _check_keys(self.file, where, table, [f.name for f in dataclasses.fields(FoldsConfig)])
        folds, holdout, seed = table.get("folds"), table.get("holdout"), table.get("seed", 0)
        if not (folds is None or (type(folds) is int and folds >= 1)):
            raise ProjectError(f"{self.file}: {where}.folds takes a whole number from 1, got {folds!r}")
        if not (holdout is None or (type(holdout) is float and 0 < holdout < 1)):
            raise ProjectError(f"{self.file}: {where}.holdout takes a number between 0 and 1, got {holdout!r}")
        if (folds == 1) != (holdout is not None):
            raise ProjectError(
                f"{self.file}: {where} has folds {folds} and holdout {holdout}: a hold-out goes with folds = 1, and "
                f"one fold with a hold-out"
            )
        return FoldsConfig(folds, holdout, _seed(self.file, f"{where}.seed", seed))

    def _member(self, name: str, table: Mapping[str, Json]) -> MemberConfig:
        where = f"members.{name}"
        if NAME.fullmatch(name) is None or name in RESERVED:
            raise ProjectError(f"{self.file}: {name!r} cannot name a member: {NAME_RULE}")
        if table.get("imported") is True:
            _check_keys(self.file, where, table, ("imported",))
            return MemberConfig(name=name, model=IMPORTED)
        keys = [f.name for f in dataclasses.fields(MemberConfig) if f.name != "name"]
        _check_keys(self.file, where, table, keys)
        if "model" not in table:
            raise ProjectError(f'{self.file}: {where} has no model: write model = "NAME", or add it with add-model')
        values: dict[str, Json] = {"name": name}
        for key, value in table.items():
            if key in ("model", "folds", "checkpoint", "sha256", "like"):
                values[key] = _text(self.file, f"{where}.{key}", value)
            elif key == "size":
                values[key] = _size(self.file, f"{where}.size", value)
            elif key == "tta":
                values[key] = _tta(self.file, f"{where}.tta", value)
            elif key == "options":
                if not isinstance(value, dict):
                    raise ProjectError(f"{self.file}: {where}.options takes a table, got {value!r}")
                values[key] = value
            elif key == "seed":
                values[key] = _seed(self.file, f"{where}.seed", value)
            elif type(value) is not bool:
                raise ProjectError(f"{self.file}: {where}.{key} takes true or false, got {value!r}")
            else:
                values[key] = value
        return MemberConfig(**values)

    def _check_member(self, member: MemberConfig) -> None:
        if member.folds not in self.folds:
            raise ProjectError(
                f"{self.file}: members.{member.name}.folds is {member.folds!r}, but there is no such table"
            )
        if member.like is not None:
            like = self.members.get(member.like)
            if like is None or like.like is not None or like.model != member.model or member.options or like is member:
                raise ProjectError(
                    f"{self.file}: members.{member.name}.like is {member.like!r}: it must name another member of the "
                    f"same model that is not itself like one, and this one must have no options of its own"
                )

    def member(self, name: str) -> MemberConfig:
        """A member as it takes effect: one that is ``like`` another has that one's options and fold table.

        Raises:
            UsageError: there is no such member.
        """
        if name not in self.members:
            near = difflib.get_close_matches(name, self.members, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(self.members) or 'none'}"
            raise UsageError(f"member {name!r} is unknown to {self.file}: {hint}")
        config = self.members[name]
        if config.like is None:
            return config
        like = self.members[config.like]
        return dataclasses.replace(
            config,
            options=like.options,
            folds=like.folds,
            checkpoint=like.checkpoint,
            sha256=like.sha256,
            out_of_fold=like.out_of_fold,
        )

    def select(self, names: Sequence[str]) -> list[MemberConfig]:
        """The named members, or all where none is named, in the order of the file.

        Raises:
            UsageError: there is no such member, or there are none at all.
        """
        if not self.members:
            raise UsageError(f"{self.file} has no members: add one with carvana-ens add-model or carvana-ens import")
        chosen = {self.member(name).name for name in names or self.members}
        return [self.member(name) for name in self.members if name in chosen]

    def fold_file(self, name: str) -> Path:
        """Where the fold table of that name is kept."""
        return self.root / "folds" / f"{name}.json"

    def checkpoint_folder(self, member: MemberConfig, fold: int) -> Path:
        """Where one fold model of a member (or of the member it is like) is kept."""
        return self.root / "checkpoints" / (member.like or member.name) / f"fold{fold}"

    def store_path(self, member: str, split: str) -> Path:
        """Where the maps of a member and split are kept."""
        return self.root / "stores" / member / f"{split}.zarr"

    @property
    def tuning_file(self) -> Path:
        """Where tuned weights and threshold are kept."""
        return self.root / "tuning.json"


_LETTERS = "use letters, digits, _ . - (at most 64, a letter or digit first)"
NAME_RULE = f"{_LETTERS}, and neither equal nor tuned"


def find_project(start: Path | None = None) -> Project:
    """The project of the nearest ensemble.toml, from ``start`` (default: the current folder) upward.

    Raises:
        ProjectError: there is none.
    """
    here = (start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        if (folder / FILE).is_file():
            return Project(folder)
    raise ProjectError(f"{here} has no {FILE}, nor has a folder above it: make a project with carvana-ens init")


def read_text(file: Path) -> str:
    try:
        return file.read_bytes().decode()  # line ends as they are, so that an edit can keep them
    except FileNotFoundError:
        raise ProjectError(f"{file} is not there: make a project with carvana-ens init") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(f"{file} cannot be read: {error}") from error


def parse(file: Path, text: str) -> dict[str, Json]:
    try:
        tomlkit.parse(text)  # what cannot be edited later is refused now
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, TOMLKitError) as error:
        raise ProjectError(f"{file} is not valid TOML: {error}") from error


def _check_keys(file: Path, where: str, table: Mapping[str, Json], known: Sequence[str]) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it may hold: {', '.join(known)}"
            raise ProjectError(f"{file}: key {where + '.' if where else ''}{key} is unknown: {hint}")


def _table(file: Path, document: Mapping[str, Json], key: str) -> Mapping[str, Json]:
    table = document.get(key, {})
    if not isinstance(table, dict):
        raise ProjectError(f"{file}: {key} takes a table, got {table!r}")
    return table


def _tables(file: Path, document: Mapping[str, Json], key: str) -> list[tuple[str, Mapping[str, Json]]]:
    tables = _table(file, document, key)
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ProjectError(f"{file}: {key}.{name} takes a table, got {table!r}")
    return list(tables.items())


def _text(file: Path, where: str, value: Json) -> str:
    if not isinstance(value, str) or not value:
        raise ProjectError(f"{file}: {where} takes a text, got {value!r}")
    return value


def _size(file: Path, where: str, value: Json) -> Size:
    try:
        return Size.parse(_text(file, where, value))
    except UsageError as error:
        raise ProjectError(f"{file}: {where}: {error}") from error


def _tta(file: Path, where: str, value: Json) -> tuple[str, ...]:
    known = isinstance(value, list) and all(flip in TTA and value.count(flip) == 1 for flip in value)
    if not known:
        raise ProjectError(f"{file}: {where} takes a list of {', '.join(TTA)}, got {value!r}")
    return tuple(value)


def _seed(file: Path, where: str, value: Json) -> int:
    if type(value) is not int or value < 0:
        raise ProjectError(f"{file}: {where} takes a whole number from 0, got {value!r}")
    return value
