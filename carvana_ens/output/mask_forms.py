"""Masks as files of other tools: PNG, COCO, YOLO, and outlines as GeoJSON has them.

Each form makes a record of a mask, on any thread or in a worker process; forms of one file for all are put together
from the records, in the order of the images.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carvana_ens.core.coco_counts import coco_encode
from carvana_ens.errors import UsageError
from carvana_ens.files import replacing, write_text
from carvana_ens.output.contours import Ring, check_installed, polygons
from carvana_ens.output.masks import write_mask
from carvana_ens.types import Json, Mask, Say, Size, unsaid

FORMS = ("png", "coco", "yolo", "geojson")
_CATEGORY = "object"

Gather = Callable[[str, Size, bytes], None]
"""Takes id, size and record of each mask, in order."""


@dataclass(frozen=True)
class MaskFiles:
    """Where masks go, and as what.

    png: a folder of ``<id>.png``. yolo: a folder of ``<id>.txt``, one line an outline, ``0 x y x y ...`` in shares of
    width and height; without holes, which the format cannot hold. coco: one JSON file with compressed run lengths.
    geojson: one JSON file with a feature for each image, a MultiPolygon in pixels from the top left corner.
    """

    path: Path
    form: str

    @classmethod
    def named(cls, path: Path, form: str | None) -> MaskFiles:
        """The form that is asked for, or that the path's suffix says: .json COCO, .geojson outlines, else PNG.

        Raises:
            UsageError: an unknown form, a file where a folder is due, or a package that is missing.
        """
        suffix = path.suffix.lower()
        chosen = form or {".json": "coco", ".geojson": "geojson"}.get(suffix, "png")
        if chosen not in FORMS:
            raise UsageError(f"masks cannot be written as {chosen!r}: use {', '.join(FORMS)}")
        folder = chosen in ("png", "yolo")
        if path.exists() and path.is_dir() != folder:
            raise UsageError(f"masks as {chosen} need a {'folder' if folder else 'file'}, and {path} is none")
        if chosen in ("yolo", "geojson"):
            check_installed()
        return cls(path, chosen)

    def record(self, image_id: str, mask: Mask) -> bytes:
        """Writes the file of one mask, or gives what goes into the file of all; of YOLO, whether holes were filled."""
        if self.form == "png":
            write_mask(self.path, image_id, mask)
            return b""
        if self.form == "coco":
            return _coco(mask)
        shapes = polygons(mask)
        if self.form == "yolo":
            sides = np.array([mask.shape[1], mask.shape[0]])
            lines = [" ".join(["0", *(f"{share:.7g}" for share in (outer / sides).ravel())]) for outer, *_ in shapes]
            write_text(self.path / f"{image_id}.txt", "".join(f"{line}\n" for line in lines))
            return b"holes" if any(len(shape) > 1 for shape in shapes) else b""
        return _feature(image_id, Size(*mask.shape), shapes)

    @contextmanager
    def gathering(self, say: Say = unsaid) -> Iterator[Gather]:
        """What takes the records, and puts the file of all together; a stop leaves the old file."""
        if self.form == "coco":
            with _coco_file(self.path) as gather:
                yield gather
        elif self.form == "geojson":
            with _listing(self.path, b'{"type": "FeatureCollection", "features": [', b"]}\n") as add:
                yield lambda _id, _size, record: add(record)
        else:
            filled: list[str] = []

            def note(image_id: str, size: Size, record: bytes) -> None:  # noqa: ARG001
                if record:
                    filled.append(image_id)

            yield note
            if filled:
                say(f"warning: {len(filled)} masks have holes, which YOLO cannot hold: filled, first {filled[0]}")


def _coco(mask: Mask) -> bytes:
    """An annotation without its numbers; nothing for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return b""
    rle = coco_encode(mask)
    left, top = int(columns[0]), int(rows[0])
    return _json(
        {
            "category_id": 1,
            "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
            "area": int(np.count_nonzero(mask)),
            "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
            "iscrowd": 0,
        }
    )


@contextmanager
def _coco_file(path: Path) -> Iterator[Gather]:
    """Annotations go to the file as they come; images, which are small, are kept for its end."""
    images: list[bytes] = []
    begin = b'{"categories": [{"id": 1, "name": "%b"}],\n"annotations": [' % _CATEGORY.encode()
    ending = bytearray()
    with _listing(path, begin, ending) as add:

        def gather(image_id: str, size: Size, record: bytes) -> None:
            number = len(images) + 1
            about = {"id": number, "file_name": f"{image_id}.jpg", "height": size.height, "width": size.width}
            images.append(_json(about))
            if record:
                add(b'{"id": %d, "image_id": %d, %b' % (number, number, record[1:]))

        yield gather
        ending += b'],\n"images": [\n%b\n]}\n' % b",\n".join(images)


def _feature(image_id: str, size: Size, shapes: list[list[Ring]]) -> bytes:
    """A feature: rings closed, as GeoJSON asks; all numbers are halves of pixels and written exactly."""
    coordinates = [[[*ring.tolist(), ring[0].tolist()] for ring in shape] for shape in shapes]
    return _json(
        {
            "type": "Feature",
            "id": image_id,
            "properties": {"height": size.height, "width": size.width},
            "geometry": {"type": "MultiPolygon", "coordinates": coordinates},
        }
    )


@contextmanager
def _listing(path: Path, begin: bytes, ending: bytes | bytearray) -> Iterator[Callable[[bytes], None]]:
    """A file that begins and ends so; what adds an item to the list between."""
    with replacing(path) as temporary, open(temporary, "xb") as file:
        file.write(begin)
        before = b"\n"

        def add(item: bytes) -> None:
            nonlocal before
            file.write(before + item)
            before = b",\n"

        yield add
        file.write(ending)


def _json(document: Mapping[str, Json]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()
