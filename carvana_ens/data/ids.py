"""Image ids and groups.

An image id is the file stem of a photo; a group is what must not be split across folds (the car of the photo).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from carvana_ens.errors import DataError, UsageError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif")
"""What the name of a picture file ends in, whatever the case of its letters."""

DEFAULT_GROUP = r"(.+?)(?:_[^_]*)?"
"""The id up to its last ``_`` (car id + ``_`` + view); the id itself where it has no ``_``."""

# Control characters, halves of surrogate pairs (file names that are no UTF-8), line and paragraph separators.
_UNUSABLE = ("Cc", "Cs", "Zl", "Zp")


def check_id(text: str) -> str:
    r"""The text itself, if it can be an image id: ids become file names, CSV fields and JSON keys.

    Raises:
        DataError: an empty text, a leading ``.``, or ``/``, ``\``, ``..`` or a control character anywhere.
    """
    if not text:
        raise DataError("an image id is empty: give every picture a name before its extension")
    if text.startswith("."):
        raise DataError(f"image id {text!r} begins with a dot: rename the picture")
    if "/" in text or "\\" in text or ".." in text:
        raise DataError(f"image id {text!r} holds '/', '\\' or '..': rename the picture")
    # isprintable is fast and true of nearly every id; what it refuses is looked at one character at a time.
    if not text.isprintable() and any(unicodedata.category(character) in _UNUSABLE for character in text):
        raise DataError(f"image id {text!r} holds a control character: rename the picture")
    return text


def id_of(name: str | Path) -> str:
    """The image id of a picture's file name: without its folders, and without its extension if that is a picture's.

    ``train_hq/a_01.jpg`` gives ``a_01``, and so does ``a_01``.

    Raises:
        DataError: what remains cannot be an image id.
    """
    text = name.name if isinstance(name, Path) else name.rpartition("/")[2]
    stem, dot, extension = text.rpartition(".")
    return check_id(stem if (dot + extension).lower() in EXTENSIONS else text)


def groups(ids: Iterable[str], pattern: str | None = None) -> dict[str, str]:
    """The group of each id.

    Args:
        ids: image ids.
        pattern: a regular expression that matches the whole id; its one capture group, or the one named ``group``,
            is the group. None: ``DEFAULT_GROUP``.

    Raises:
        UsageError: no regular expression, or one that does not say which capture group is meant.
        DataError: an id that the pattern does not match, or whose group would be empty.
    """
    return {image_id: match[which] for image_id, match, which in _matches(ids, pattern)}


def views(ids: Iterable[str], pattern: str | None = None) -> dict[str, str]:
    """The view of each id: what stands behind its group, without ``_``, ``-``, ``.`` or blanks before it.

    ``a_01`` gives ``01``; an id that is all group gives an empty text. Arguments and errors as for ``groups``.
    """
    return {image_id: image_id[match.end(which) :].lstrip("_-. ") for image_id, match, which in _matches(ids, pattern)}


def photos_of_view(view: str, groups: Mapping[str, str], views: Mapping[str, str]) -> dict[str, str]:
    """The id of the one photo that each group has of a view.

    Args:
        view: as ``views`` gives it.
        groups: the group of each id.
        views: the view of each id.

    Raises:
        DataError: a group that has no such photo, or several; names it and what views there are.
    """
    found: dict[str, str] = {}
    for image_id, group in groups.items():
        if views[image_id] == view:
            if group in found:
                raise DataError(f"group {group!r} has two photos of view {view!r}: {found[group]!r} and {image_id!r}")
            found[group] = image_id
    missing = sorted(set(groups.values()) - found.keys())
    if missing:
        raise DataError(
            f"{len(missing)} groups have no photo of view {view!r}, first {missing[0]!r}: a view is what an id has "
            f"behind its group, here {listed(views.values())}"
        )
    return found


def listed(texts: Iterable[str], most: int = 5) -> str:
    """Different texts for a message, the first few of them."""
    distinct = sorted(set(texts))
    return ", ".join(map(repr, distinct[:most])) + (", ..." if len(distinct) > most else "")


def _matches(ids: Iterable[str], pattern: str | None) -> Iterator[tuple[str, re.Match[str], str | int]]:
    """Each id with the match of the pattern and the capture group that is its group."""
    expression = _compile(DEFAULT_GROUP if pattern is None else pattern)
    which: str | int = "group" if "group" in expression.groupindex else 1
    for image_id in ids:
        match = expression.fullmatch(image_id)
        if match is None or not match[which]:
            raise DataError(
                f"the group pattern {expression.pattern!r} finds no group in image id {image_id!r}: it must match "
                f"the whole id of every photo"
            )
        yield image_id, match, which


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"the group pattern {pattern!r} is not a regular expression: {error}") from error
    if expression.groups != 1 and "group" not in expression.groupindex:
        raise UsageError(
            f"the group pattern {pattern!r} has {expression.groups} capture groups: put one around what makes the "
            f"group, as in (.+)_[0-9]+, or name it (?P<group>...)"
        )
    return expression
