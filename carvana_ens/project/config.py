"""ensemble.toml: the data, the members and the fold tables of a project.

The file is the user's: it is read strictly, and a verb that edits it changes only what was asked. A member is added
at the end and taken out by its lines, so that everything else stays byte for byte.
Paths in it are relative to it. What the verbs make lies beside it::

    ensemble.toml  folds/<name>.json  checkpoints/<member>/fold<k>/  pseudo/<name>/  stores/<member>/<split>.zarr
    tuning.json  runs/  cache/masks

The stores may lie elsewhere (``stores``), in another folder or at an address.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from carvana_ens.data.folds import Rule, check_rule
from carvana_ens.errors import ProjectError, UsageError
from carvana_ens.model import PSEUDO_SHARE, MemberConfig
from carvana_ens.project.values import (
    check_keys,
    check_shares,
    parse,
    read_text,
    share_of,
    size_of,
    stores_of,
    table_of,
    tables_of,
    text_of,
    tta_of,
    views_of,
    whole_number_of,
)
from carvana_ens.store.place import Where, below
from carvana_ens.types import Json

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
    COCO categories that together are the object; empty for all. dialect: of masks in an RLE table, None for carvana.
    extra: more photos with masks, for training alone.
    """

    images: Path | None = None
    masks: Path | None = None
    test: Path | None = None
    group: str | None = None
    categories: tuple[str, ...] = ()
    extra: tuple[ExtraConfig, ...] = ()
    dialect: str | None = None


@dataclass(frozen=True)
class ExtraConfig:
    """A second data set that every fold is trained on and none holds out (absolute paths).

    share: of each mini-batch that is drawn from it, in (0, 1); None: each of its photos once an epoch.
    """

    images: Path
    masks: Path
    share: float | None = None


@dataclass(frozen=True)
class FoldsConfig:
    """A fold table to make: folds (None: min(5, groups)), or one hold-out of a share of the groups.

    rule: how groups go to folds, see ``data.folds.make_folds``. by_view: the view whose mask area the rule goes by, as
    ids have it behind the group; None: all views together.
    """

    folds: int | None = None
    holdout: float | None = None
    seed: int = 0
    rule: Rule = "rank"
    by_view: str | None = None


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
        check_keys(self.file, "", document, ("schema", "stores", "data", "folds", "members"))
        if document.get("schema") != SCHEMA:
            got = document.get("schema")
            raise ProjectError(f"{self.file}: schema is {got!r}, this version reads {SCHEMA}: upgrade carvana-ens")
        self.stores = stores_of(self.file, document.get("stores", "stores"), root)
        self.data = self._data(table_of(self.file, document, "data"))
        self.folds = {name: self._folds(name, table) for name, table in tables_of(self.file, document, "folds")}
        self.folds.setdefault("default", FoldsConfig())
        self.members = {name: self._member(name, table) for name, table in tables_of(self.file, document, "members")}
        for member in self.members.values():
            self._check_member(member)

    def _data(self, table: Mapping[str, Json]) -> DataConfig:
        check_keys(self.file, "data", table, [f.name for f in dataclasses.fields(DataConfig)])
        paths = {}
        for key in ("images", "masks", "test"):
            if key in table:
                paths[key] = Path(os.path.normpath(self.root / text_of(self.file, f"data.{key}", table[key])))
        group = table.get("group")
        dialect = table.get("dialect")
        categories = table.get("categories", [])
        if not isinstance(categories, list):
            raise ProjectError(f"{self.file}: data.categories takes a list of texts, got {categories!r}")
        return DataConfig(
            **paths,
            group=None if group is None else text_of(self.file, "data.group", group),
            categories=tuple(text_of(self.file, "data.categories", name) for name in categories),
            dialect=None if dialect is None else text_of(self.file, "data.dialect", dialect),
            extra=self._extra(table.get("extra", [])),
        )

    def _extra(self, tables: Json) -> tuple[ExtraConfig, ...]:
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise ProjectError(f"{self.file}: data.extra takes tables, each begun with [[data.extra]], got {tables!r}")
        found = []
        for number, table in enumerate(tables, 1):
            where = f"data.extra {number}"
            check_keys(self.file, where, table, [f.name for f in dataclasses.fields(ExtraConfig)])
            paths = {}
            for key in ("images", "masks"):
                if key not in table:
                    raise ProjectError(f'{self.file}: {where} has no {key}: write {key} = "FOLDER"')
                paths[key] = Path(os.path.normpath(self.root / text_of(self.file, f"{where}.{key}", table[key])))
            share = share_of(self.file, f"{where}.share", table["share"]) if "share" in table else None
            found.append(ExtraConfig(**paths, share=share))
        check_shares(f"{self.file}: data.extra", [extra.share for extra in found])
        return tuple(found)

    def _folds(self, name: str, table: Mapping[str, Json]) -> FoldsConfig:
        where = f"folds.{name}"
        if NAME.fullmatch(name) is None:  # it becomes a file name
            raise ProjectError(f"{self.file}: {name!r} cannot name a fold table: {_LETTERS}")
        check_keys(self.file, where, table, [f.name for f in dataclasses.fields(FoldsConfig)])
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
        rule, by_view = table.get("rule", "rank"), table.get("by_view")
        try:
            check_rule(rule, folds)
        except UsageError as error:
            raise ProjectError(f"{self.file}: {where}.rule: {error}") from error
        if by_view is not None:
            by_view = text_of(self.file, f"{where}.by_view", by_view)
        return FoldsConfig(folds, holdout, whole_number_of(self.file, f"{where}.seed", seed), rule, by_view)

    def _member(self, name: str, table: Mapping[str, Json]) -> MemberConfig:
        where = f"members.{name}"
        if NAME.fullmatch(name) is None or name in RESERVED:
            raise ProjectError(f"{self.file}: {name!r} cannot name a member: {NAME_RULE}")
        if table.get("imported") is True:
            check_keys(self.file, where, table, ("imported",))
            return MemberConfig(name=name, model=IMPORTED)
        keys = [f.name for f in dataclasses.fields(MemberConfig) if f.name != "name"]
        check_keys(self.file, where, table, keys)
        if "model" not in table:
            raise ProjectError(f'{self.file}: {where} has no model: write model = "NAME", or add it with add-model')
        values: dict[str, Json] = {"name": name}
        for key, value in table.items():
            if key in ("model", "folds", "checkpoint", "sha256", "like", "pseudo"):
                values[key] = text_of(self.file, f"{where}.{key}", value)
            elif key in ("size", "tile"):
                values[key] = size_of(self.file, f"{where}.{key}", value)
            elif key == "overlap":
                values[key] = whole_number_of(self.file, f"{where}.overlap", value)
            elif key == "tta":
                values[key] = tta_of(self.file, f"{where}.tta", value)
            elif key == "options":
                if not isinstance(value, dict):
                    raise ProjectError(f"{self.file}: {where}.options takes a table, got {value!r}")
                values[key] = value
            elif key == "views":
                values[key] = views_of(self.file, f"{where}.views", value)
            elif key == "pseudo_share":
                values[key] = share_of(self.file, f"{where}.pseudo_share", value)
            elif key == "seed":
                values[key] = whole_number_of(self.file, f"{where}.seed", value)
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
            own = member.options or member.views or member.pseudo
            if like is None or like.like is not None or like.model != member.model or own or like is member:
                raise ProjectError(
                    f"{self.file}: members.{member.name}.like is {member.like!r}: it must name another member of the "
                    f"same model that is not itself like one, and this one must have no options, views or pseudo of "
                    f"its own"
                )
        if member.overlap is not None and (member.tile is None or member.overlap >= min(member.tile)):
            raise ProjectError(
                f"{self.file}: members.{member.name}.overlap is {member.overlap}: it goes with a tile, and is less "
                f"than its sides"
            )
        if member.pseudo is None:
            if member.pseudo_share != PSEUDO_SHARE:
                raise ProjectError(
                    f"{self.file}: members.{member.name} has a pseudo_share and no pseudo: name the pseudo-labels, "
                    f"or leave it out"
                )
        else:
            check_pseudo_name(member.pseudo, f"{self.file}: members.{member.name}.pseudo: ")
            shares = [member.pseudo_share, *(extra.share for extra in self.data.extra)]
            check_shares(f"{self.file}: members.{member.name}.pseudo_share with those of data.extra", shares)

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
            views=like.views,
            pseudo=like.pseudo,
            pseudo_share=like.pseudo_share,
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

    def member_stores(self, member: str) -> Where:
        """Where the maps of a member are kept."""
        return below(self.stores, member)

    def store_path(self, member: str, split: str) -> Where:
        """Where the maps of a member and split are kept."""
        return below(self.member_stores(member), f"{split}.zarr")

    @property
    def cache(self) -> Path:
        """What can be made again."""
        return self.root / "cache"

    def pseudo_folder(self, name: str) -> Path:
        """Where the pseudo-labels of that name are kept."""
        return self.root / "pseudo" / name

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


def check_pseudo_name(name: str, where: str = "") -> None:
    """Refuses a name that pseudo-labels cannot have, for it names a folder. where: begins the message.

    Raises:
        ProjectError: the same.
    """
    if NAME.fullmatch(name) is None:
        raise ProjectError(f"{where}{name!r} cannot name pseudo-labels: {_LETTERS}")
