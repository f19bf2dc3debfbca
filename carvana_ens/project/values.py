"""Values of ensemble.toml, read strictly: each fault is one line that names the file and the key."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError

from carvana_ens.errors import ProjectError, UsageError
from carvana_ens.model import TTA, tta_fault
from carvana_ens.store.place import Where, is_address
from carvana_ens.types import Json, Size


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


def check_keys(file: Path, where: str, table: Mapping[str, Json], known: Sequence[str]) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it may hold: {', '.join(known)}"
            raise ProjectError(f"{file}: key {where + '.' if where else ''}{key} is unknown: {hint}")


def table_of(file: Path, document: Mapping[str, Json], key: str) -> Mapping[str, Json]:
    table = document.get(key, {})
    if not isinstance(table, dict):
        raise ProjectError(f"{file}: {key} takes a table, got {table!r}")
    return table


def check_shares(where: str, shares: Sequence[float | None]) -> None:
    total = sum(Fraction(str(share)) for share in shares if share is not None)
    if total >= 1:
        raise ProjectError(f"{where}: the shares come to {float(total)}, which leaves none for the photos themselves")


def share_of(file: Path, where: str, value: Json) -> float:
    if type(value) is not float or not 0 < value < 1:
        raise ProjectError(f"{file}: {where} takes a number between 0 and 1, got {value!r}")
    return value


def views_of(file: Path, where: str, value: Json) -> tuple[str, ...]:
    known = isinstance(value, list) and value and all(isinstance(v, str) and value.count(v) == 1 for v in value)
    if not known:
        raise ProjectError(f'{file}: {where} takes a list of views such as ["01", "09"], each once, got {value!r}')
    return tuple(value)


def tables_of(file: Path, document: Mapping[str, Json], key: str) -> list[tuple[str, Mapping[str, Json]]]:
    tables = table_of(file, document, key)
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ProjectError(f"{file}: {key}.{name} takes a table, got {table!r}")
    return list(tables.items())


def text_of(file: Path, where: str, value: Json) -> str:
    if not isinstance(value, str) or not value:
        raise ProjectError(f"{file}: {where} takes a text, got {value!r}")
    return value


def stores_of(file: Path, value: Json, root: Path) -> Where:
    """A folder, relative to ``root``, or an address."""
    text = text_of(file, "stores", value)
    if not is_address(text):
        return Path(os.path.normpath(root / text))
    if re.fullmatch(r"(s3|gs|az)://[^/?#\s]+(/[^/?#\s]+)*/?", text) is None or {".", ".."} & {*text.split("/")}:
        raise ProjectError(f'{file}: stores takes a folder or an address such as "s3://bucket/cars", got {text!r}')
    return text.rstrip("/")


def size_of(file: Path, where: str, value: Json) -> Size:
    try:
        return Size.parse(text_of(file, where, value))
    except UsageError as error:
        raise ProjectError(f"{file}: {where}: {error}") from error


def tta_of(file: Path, where: str, value: Json) -> tuple[str, ...]:
    if not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
        raise ProjectError(f"{file}: {where} takes a list of {', '.join(TTA)} and scales, got {value!r}")
    fault = tta_fault(value)
    if fault is not None:
        raise ProjectError(f"{file}: {where}: {fault}")
    return tuple(value)


def whole_number_of(file: Path, where: str, value: Json) -> int:
    if type(value) is not int or value < 0:
        raise ProjectError(f"{file}: {where} takes a whole number from 0, got {value!r}")
    return value
