"""import: makes a member of probability maps that were made elsewhere."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carvana_ens.data.images import ImageFolder
from carvana_ens.data.map_source import Kind, MapSource, Values, kind_of
from carvana_ens.engine import ordered_map
from carvana_ens.errors import DataError, StoreError, UsageError
from carvana_ens.model import MemberConfig
from carvana_ens.project import IMPORTED, Project, add_member
from carvana_ens.store.hand import StoreHand, quantise
from carvana_ens.store.place import Where, place_of
from carvana_ens.store.remove import remove_store, take_lock
from carvana_ens.store.schema import DType, Provenance
from carvana_ens.store.store import open_store
from carvana_ens.store.writer import StoreWriter
from carvana_ens.types import Codes, Say, Size, Track, unsaid, untracked
from carvana_ens.verbs.map_sources import MapOptions, open_maps
from carvana_ens.verbs.workspace import Workspace

_RECORDED = 1.0
"""Seconds whose maps are recorded as done at a time: one by one they cost a third of the writing."""


@dataclass(frozen=True)
class Imported:
    """path: the store. images: maps in it. new: maps that were read just now, or with ``dry_run`` would be."""

    member: str
    split: str
    path: Where
    images: int
    new: int


def import_maps(
    project: Project,
    name: str,
    source: Path,
    *,
    split: str,
    options: MapOptions | None = None,
    dtype: DType | None = None,
    size: Size | None = None,
    out_of_fold: bool = False,
    fresh: bool = False,
    break_lock: bool = False,
    threads: int = 1,
    dry_run: bool = False,
    say: Say = unsaid,
    track: Track = untracked,
) -> Imported:
    """Copies the maps of ``source`` into a store; see ``map_sources.FORMATS`` for what they may be.

    Codes (uint8 with 255, uint16 with 65535 for certainly the object) are kept as they are. Probabilities, which must
    lie in [0, 1], become rint(S p) in float32, half to even, and votes 0 and S.

    Where the project knows the photos of the split, there must be one map a photo, of the photo's size; otherwise
    the maps say which images there are. out_of_fold: the user's word that each map was made by a model that had not
    seen its image's group; without it ``tune`` refuses the maps. A stopped import goes on where it was.

    options: how to read the maps. dtype: of the store, where the maps are no codes; None: uint8. size: of every image
    of a submission, where the photos are not known. break_lock: takes the lock that a killed writer left on the store.
    dry_run: checks ids, sizes and options, and writes nothing.

    Raises:
        UsageError: the name belongs to a member that is not imported, the split is unknown, or an option that cannot be
            meant.
        DataError: maps without photo, photos without map, a size, value or file that does not fit.
        StoreError: a zarr that cannot be read, or what is in the store is of other maps.
    """
    if split not in ("oof", "test"):
        raise UsageError(f"split {split!r} is unknown to import: use oof or test")
    if out_of_fold and split != "oof":
        raise UsageError("--out-of-fold says something of --split oof only: leave it out")
    if name in project.members and project.members[name].model != IMPORTED:
        raise UsageError(f"member {name!r} has a model of its own: import under another name")
    options = options or MapOptions()
    maps = open_maps(source, options)
    workspace = Workspace(project, say, track)
    photos = _photos(workspace, split)
    sizes = _sizes(maps, photos, size, source)
    kind = maps.kind
    chosen = _dtype(kind, dtype, source)
    if dry_run:
        path = project.store_path(name, split)
        there = 0 if fresh or not place_of(path).exists() else int(np.count_nonzero(open_store(path).records))
        return Imported(name, split, path, len(maps.ids), len(maps.ids) - there)
    if name not in project.members:
        # refuses a bad name before anything is written
        project = add_member(project, MemberConfig(name=name, model=IMPORTED))
    path = project.store_path(name, split)
    if break_lock:
        take_lock(path, say)
    if fresh:
        remove_store(path)
    provenance = Provenance(
        member={"name": name, "imported": True, **options.said()},
        split=split,
        seen="declared out-of-fold" if out_of_fold else "unknown",
        source=str(source.absolute()),
    )

    with StoreWriter(path, maps.ids, [sizes[image_id] for image_id in maps.ids], provenance, chosen) as writer:
        missing = writer.missing()

        hand = StoreHand(open_store(path))

        def one(map_of: tuple[str, Callable[[], Values]]) -> tuple[str, int]:
            """Reads and writes one map: both on the threads, so that a slow disk keeps none of them waiting."""
            image_id, read = map_of
            values = read()
            _check_size(image_id, Size(*values.shape), sizes[image_id], source, what="expected")
            codes = _codes(values, kind, chosen, f"the map of {image_id} in {source}")
            hand.check(image_id, codes)
            return image_id, hand.put(image_id, codes)

        written = ordered_map(one, maps.each({image_id: sizes[image_id] for image_id in missing}), threads)
        unrecorded: list[tuple[str, int]] = []
        recorded = time.monotonic()
        try:
            for done in track(written, len(missing), f"{name} {split}"):
                unrecorded.append(done)
                if time.monotonic() >= recorded + _RECORDED:
                    writer.record(unrecorded)
                    unrecorded, recorded = [], time.monotonic()
        finally:
            writer.record(unrecorded)
    return Imported(name, split, path, len(maps.ids), len(missing))


def _dtype(kind: Kind, asked: DType | None, source: Path) -> DType:
    """The dtype of the store."""
    if kind in ("uint8", "uint16"):
        if asked not in (None, kind):
            raise UsageError(f"the maps of {source} are {kind} codes, which are kept as they are: leave out --dtype")
        return kind
    return asked or "uint8"


def _codes(values: Values, kind: Kind, dtype: DType, where: str) -> Codes:
    """The codes of a map."""
    found = kind_of(values.dtype, where)
    if found != kind:
        raise DataError(f"{where} holds {found} values, but the first map {kind}: save all of them alike")
    if kind == "bool":
        return quantise(values.astype(np.float32), dtype)
    if kind != "float":
        return values
    # of the values as they came: float32 could move 1 + 1e-9 into the range
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):
        raise DataError(
            f"{where} has values from {low} to {high}, probabilities lie in [0, 1]: are they logits, or is one missing?"
        )
    try:
        return quantise(values.astype(np.float32), dtype)
    except StoreError as error:
        raise DataError(f"{where}: {error}") from error


def _photos(workspace: Workspace, split: str) -> ImageFolder | None:
    data = workspace.project.data
    if split == "oof":
        return workspace.images if data.images is not None else None
    return workspace.test if data.test is not None else None


def _sizes(maps: MapSource, photos: ImageFolder | None, size: Size | None, source: Path) -> dict[str, Size]:
    """The size of each map, checked against its photo."""
    sizes: dict[str, Size] = {}
    if photos is not None:
        if size is not None:
            raise UsageError("--size is for maps of which the photos are not known: leave it out")
        for ids, others, what in (
            (photos.ids, maps.ids, "has no map of"),
            (maps.ids, photos.ids, "has a map, but no photo, of"),
        ):
            lost = sorted(set(ids) - set(others))
            if lost:
                near = difflib.get_close_matches(lost[0], sorted(set(others) - set(ids)), 1)
                hint = f": {near[0]} is on the other side, and ids must be equal" if near else ""
                raise DataError(
                    f"{source} {what} {', '.join(lost[:3])} ({len(lost)} in all, photos in {photos.folder}){hint}"
                )
    for image_id in maps.ids:
        own = maps.size(image_id)
        if photos is not None:
            sizes[image_id] = photos.size(image_id)
            if own is not None:
                _check_size(image_id, own, sizes[image_id], source, what="its photo is")
        elif own is not None and size is not None:
            raise UsageError(f"the maps of {source} say how large they are: leave out --size")
        elif own is None and size is None:
            raise UsageError(f"{source} does not say how large the images are: give --size HxW")
        else:
            sizes[image_id] = own or size or Size(0, 0)
        if 0 in sizes[image_id]:
            raise DataError(f"the map of {image_id} in {source} is {sizes[image_id]}: it has no pixel")
    if not sizes:
        raise DataError(f"{source} holds no map")
    return sizes


def _check_size(image_id: str, size: Size, wanted: Size, source: Path, *, what: str) -> None:
    if size != wanted:
        raise DataError(f"the map of {image_id} in {source} is {size}, {what} {wanted}: resize the map first")
