"""Masks from a COCO annotation file: the union of an image's annotations of the chosen categories.

Outlines are filled exactly as pycocotools fills them, so that a mask is the one that every other COCO tool sees.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from carvana_ens.data.coco_shapes import fill_polygon, fill_rle
from carvana_ens.data.ids import id_of
from carvana_ens.data.mask_source import check_mask_size, unknown_id
from carvana_ens.errors import DataError, UsageError
from carvana_ens.types import Json, Mask, Size

_BACKGROUND = ("background", "_background_")


class CocoMasks:
    """The masks of a COCO file by image id, the stem of ``file_name``; drawn when read.

    An image of the file without an annotation of the chosen categories has an empty mask.
    """

    def __init__(self, path: Path, categories: Sequence[str] = ()) -> None:
        """Reads and checks the whole file.

        Args:
            path: the JSON file; ``images``, ``annotations`` and ``categories`` are used.
            categories: names of what is the object; none: all categories but the background.

        Raises:
            UsageError: a category that the file does not have.
            DataError: no JSON, a field missing or of another type, two images of one stem, an annotation of an image
                or a category that is not there, or a chosen one without an outline.
        """
        self.path = path
        self._categories = tuple(categories)
        document = _load(path)
        chosen = self._choose(_entries(document, "categories", path))
        self._sizes: dict[str, Size] = {}
        by_number: dict[Json, str] = {}
        for index, entry in enumerate(_entries(document, "images", path)):
            where = f"images[{index}]"
            number = self._number(entry, "id", where)
            image_id = self._image_id(entry, where)
            if number in by_number or image_id in self._sizes:
                raise DataError(f"{path}: {where} ({image_id!r}, id {number!r}) is listed twice: keep one")
            by_number[number] = image_id
            self._sizes[image_id] = Size(self._side(entry, "height", where), self._side(entry, "width", where))
        self._shapes: dict[str, list[tuple[str, Json]]] = {image_id: [] for image_id in sorted(self._sizes)}
        for index, entry in enumerate(_entries(document, "annotations", path)):
            where = f"annotations[{index}] (id {entry.get('id')!r})"
            number, category = self._number(entry, "image_id", where), self._number(entry, "category_id", where)
            if number not in by_number:
                raise DataError(f"{path}: {where} has image_id {number!r}, which is not among its images")
            if category not in chosen:
                raise DataError(f"{path}: {where} has category_id {category!r}, which is not among its categories")
            if chosen[category]:
                self._shapes[by_number[number]].append((where, self._segmentation(entry, where)))

    @property
    def ids(self) -> tuple[str, ...]:
        """All image ids of the file, sorted."""
        return tuple(self._shapes)

    @property
    def describe(self) -> str:
        """The file, the number of its images and the categories."""
        what = ", ".join(self._categories) or "all categories but the background"
        return f"{len(self._shapes)} COCO images in {self.path}: {what}"

    def own_size(self, image_id: str) -> Size | None:
        """The size of an image as the file gives it; see :class:`MaskSource`."""
        if image_id not in self._shapes:
            raise unknown_id(image_id, str(self.path), self._shapes)
        return self._sizes[image_id]

    def read(self, image_id: str, size: Size) -> Mask:
        """(H, W) bool, True = object.

        Raises:
            DataError: no such image, its size in the file is not the photo's, or an outline that cannot be drawn.
        """
        if image_id not in self._shapes:
            raise unknown_id(image_id, str(self.path), self._shapes)
        check_mask_size(image_id, self._sizes[image_id], size, str(self.path))
        mask = np.zeros(size, np.bool_)
        for where, segmentation in self._shapes[image_id]:
            try:
                if isinstance(segmentation, dict):
                    fill_rle(mask, segmentation)
                else:
                    for polygon in segmentation:
                        fill_polygon(mask, polygon)
            except DataError as error:
                raise DataError(f"{self.path}: {where} of image {image_id!r}: {error}") from error
        return mask

    def _choose(self, entries: list[dict[str, Json]]) -> dict[Json, bool]:
        """Whether each category of the file, by its number, is part of the object."""
        names: dict[Json, str] = {}
        for index, entry in enumerate(entries):
            where = f"categories[{index}]"
            number, name = self._number(entry, "id", where), entry.get("name")
            if number in names:
                raise DataError(f"{self.path}: {where} has id {number!r}, which another category has: number them anew")
            if not isinstance(name, str):
                raise DataError(f"{self.path}: {where} has no text as its name")
            names[number] = name
        for name in self._categories:
            if name not in names.values():
                near = difflib.get_close_matches(name, names.values(), 1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names.values())}"
                raise UsageError(f"{self.path} has no category {name!r}: {hint}")
        if self._categories:
            return {number: name in self._categories for number, name in names.items()}
        return {number: name.lower() not in _BACKGROUND for number, name in names.items()}

    def _number(self, entry: dict[str, Json], key: str, where: str) -> Json:
        value = entry.get(key)
        if type(value) not in (int, str):  # some tools number with texts; true is an int to isinstance
            raise DataError(f"{self.path}: {where} needs {key}, a whole number, and has {value!r}")
        return value

    def _side(self, entry: dict[str, Json], key: str, where: str) -> int:
        value = entry.get(key)
        if type(value) is not int or value < 1:
            raise DataError(f"{self.path}: {where} needs {key} in pixels, and has {value!r}")
        return value

    def _image_id(self, entry: dict[str, Json], where: str) -> str:
        name = entry.get("file_name")
        if not isinstance(name, str):
            raise DataError(f"{self.path}: {where} needs file_name, and has {name!r}")
        try:
            return id_of(name)
        except DataError as error:
            raise DataError(f"{self.path}: {where}: {error}") from error

    def _segmentation(self, entry: dict[str, Json], where: str) -> Json:
        value = entry.get("segmentation")
        if not value or not isinstance(value, (list, dict)):
            raise DataError(
                f"{self.path}: {where} has no outline (segmentation {value!r}): a box alone is no mask; draw it, or "
                f"leave its category out"
            )
        return value


def _load(path: Path) -> dict[str, Json]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # no JSON, or no UTF-8
        raise DataError(f"{path} is no JSON file: {error}; is it whole?") from error
    if not isinstance(document, dict):
        raise DataError(f"{path} is no COCO file: it holds a {type(document).__name__}, not an object of lists")
    return document


def _entries(document: dict[str, Json], key: str, path: Path) -> list[dict[str, Json]]:
    entries = document.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{path} is no COCO file: it needs {key!r}, a list of objects")
    if not entries and key != "annotations":
        raise DataError(f"{path} has no {key}: there is no mask in it")
    return entries
