"""The edits of ensemble.toml that verbs make, and nothing else in it: what the user wrote stays byte for byte.

A member is added at the end of the file and taken out by its lines. What would be refused when read is never written.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import tomlkit

from carvana_ens.errors import ProjectError, UsageError
from carvana_ens.files import write_text
from carvana_ens.model import MemberConfig
from carvana_ens.project.config import (
    FILE,
    IMPORTED,
    NAME,
    NAME_RULE,
    RESERVED,
    SCHEMA,
    DataConfig,
    FoldsConfig,
    Project,
)
from carvana_ens.project.values import parse, read_text
from carvana_ens.store.place import is_address
from carvana_ens.types import Json


def create_project(root: Path, data: DataConfig, folds: FoldsConfig, stores: str | None = None) -> Project:
    """Writes ``root/ensemble.toml``. stores: a folder or an address; None: ``stores`` beside the file.

    Raises:
        ProjectError: there is one already, or the settings cannot be meant.
    """
    file = root / FILE
    if file.exists():
        raise ProjectError(f"{file} is there already: edit it, or choose another folder")
    document = tomlkit.document()
    document.add(tomlkit.comment("A carvana-ens project: edit freely; verbs keep what you write. Paths are relative."))
    document["schema"] = SCHEMA
    if stores is not None:
        document["stores"] = stores if is_address(stores) else _beside(Path(stores), root)
    table = tomlkit.table()
    for key in ("images", "masks", "test"):
        path: Path | None = getattr(data, key)
        if path is not None:
            table[key] = _beside(path, root)
    if data.group is not None:
        table["group"] = tomlkit.string(data.group, literal="'" not in data.group)
    else:
        table.add(
            tomlkit.comment("group = '(.*)_.*'  # what no fold may split: capture group of a regex on the image id")
        )
    if data.categories:
        table["categories"] = list(data.categories)
    if data.dialect is not None:
        table["dialect"] = data.dialect
    if data.extra:
        table["extra"] = tomlkit.aot()
    for extra in data.extra:
        item = tomlkit.table()
        item["images"], item["masks"] = _beside(extra.images, root), _beside(extra.masks, root)
        if extra.share is not None:
            item["share"] = extra.share
        table["extra"].append(item)
    document["data"] = table
    default = tomlkit.table()
    _fill_folds(default, folds)
    if not default.value:
        default.add(tomlkit.comment("folds = 5  # default: 5, or the number of groups where that is less"))
    document["folds"] = tomlkit.table(is_super_table=True)
    document["folds"]["default"] = default
    return _write(root, tomlkit.dumps(document))


def add_member(project: Project, config: MemberConfig, folds: FoldsConfig | None = None) -> Project:
    """Adds a member to ensemble.toml; ``folds`` makes the fold table that the config names, if there is none.

    Raises:
        UsageError: the name is taken or cannot name a member.
    """
    if NAME.fullmatch(config.name) is None or config.name in RESERVED:
        raise UsageError(f"{config.name!r} cannot name a member: {NAME_RULE}")
    if config.name in project.members:
        raise UsageError(
            f"member {config.name!r} is there already: choose another with --name, or remove-model it first"
        )
    added = tomlkit.document()
    if folds is not None and config.folds not in project.folds:
        table = tomlkit.table()
        _fill_folds(table, folds)
        added["folds"] = tomlkit.table(is_super_table=True)
        added["folds"][config.folds] = table
    table = tomlkit.table()
    if config.model == IMPORTED:
        table["imported"] = True
    else:
        defaults = MemberConfig(name=config.name, model=config.model)
        for key, value in config.to_json().items():
            if key not in ("name", "options") and (key == "model" or value != defaults.to_json().get(key)):
                table[key] = value
        if config.options:
            options = tomlkit.table()
            for key, value in config.options.items():
                options[key] = value
            table["options"] = options
    added["members"] = tomlkit.table(is_super_table=True)
    added["members"][config.name] = table
    text = read_text(project.file)
    newline = "\r\n" if "\r\n" in text else "\n"
    gap = newline if text.endswith("\n") else 2 * newline
    try:
        return _write(project.root, text + gap + tomlkit.dumps(added).replace("\n", newline))
    except ProjectError as error:
        raise ProjectError(f"member {config.name} cannot be added, nothing was written: {error}") from error


def drop_member(project: Project, name: str) -> Project:
    """Takes a member out of ensemble.toml; its checkpoints and stores stay.

    Raises:
        UsageError: there is no such member, or another one is like it.
    """
    project.member(name)
    users = [member.name for member in project.members.values() if member.like == name]
    if users:
        raise UsageError(f"member {users[0]!r} is like {name!r}: remove {users[0]!r} first")
    text = read_text(project.file)
    meant = parse(project.file, text)
    del meant["members"][name]
    left = _without_table(text, name)
    if not _says(left, meant):  # no [members.NAME] of its own: an inline table, dotted keys
        document = tomlkit.parse(text)
        del document["members"][name]
        left = tomlkit.dumps(document)
    if not _says(left, meant):
        raise ProjectError(f"{project.file}: members.{name} cannot be told from the rest: take it out by hand")
    return _write(project.root, left)


def _without_table(text: str, name: str) -> str:
    """The text without the lines of [members.NAME] and its subtables; comments after their last key stay."""
    bare = "" if "." in name else f"|{re.escape(name)}"
    own = re.compile(rf"""\s*\[\s*members\s*\.\s*("{re.escape(name)}"|'{re.escape(name)}'{bare})\s*[.\]]""")
    kept: list[str] = []
    after: list[str] = []  # blank lines and comments since the last key of the member's table
    inside = False
    for line in re.split(r"(?<=\n)", text):
        if line.lstrip().startswith("["):
            inside = own.match(line) is not None
        if not inside:
            _put_back(kept, after)
            after = []
            kept.append(line)
        elif not line.strip() or line.lstrip().startswith("#"):
            after.append(line)
        else:
            after = []
    if inside and not "".join(after).strip():  # it was the last table: the blank line that set it off goes too
        after = []
        if kept and not kept[-1].strip():
            kept.pop()
    _put_back(kept, after)
    return "".join(kept)


def _put_back(kept: list[str], after: list[str]) -> None:
    while after and not after[0].strip() and not "".join(kept[-1:]).strip():
        after.pop(0)  # no two blank lines where there was one before the table and one behind it
    kept += after


def _says(text: str, meant: Mapping[str, Json]) -> bool:
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return {"members": {}, **found} == {"members": {}, **meant}


def table_name(project: Project, folds: FoldsConfig) -> str:
    """The name of the project's fold table with these settings, or a new name for it."""
    for name, config in project.folds.items():
        if config == folds:
            return name
    stem = f"k{folds.folds}" if folds.holdout is None else f"holdout{round(100 * folds.holdout)}"
    stem += "-histogram" if folds.rule == "histogram" else ""
    name, number = stem, 2
    while name in project.folds:
        name, number = f"{stem}-{number}", number + 1
    return name


def _fill_folds(table: tomlkit.items.Table, folds: FoldsConfig) -> None:
    for key, value in dataclasses.asdict(folds).items():
        if value is not None and (key, value) not in (("seed", 0), ("rule", "rank")):
            table[key] = value


def _beside(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path.absolute(), root.absolute())).as_posix()


def _write(root: Path, text: str) -> Project:
    project = Project(root, text)  # never put a file in place that we would refuse to read
    write_text(project.file, text)
    return project
