"""export: the maps of a store, packed or not, as a plain store that every zarr reads, or as files of other tools."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carvana_ens.engine import default_threads, ordered_map
from carvana_ens.errors import StoreError, UsageError
from carvana_ens.output.maps import FILES, FOLDERS, check_maps_file, map_files
from carvana_ens.project import Project
from carvana_ens.store.store import ProbabilityStore, checksum, open_store
from carvana_ens.store.writer import StoreWriter
from carvana_ens.types import Codes, Track, untracked

FORMATS = ("zarr", *FOLDERS, *FILES)
"""What maps can be exported to."""


@dataclass(frozen=True)
class Exported:
    """path: what was written. images: maps in it. new: maps that were written just now."""

    path: Path
    images: int
    new: int


def export(
    project: Project,
    member: str,
    output: Path,
    *,
    split: str = "test",
    to: str = "zarr",
    threads: int | None = None,
    track: Track = untracked,
) -> Exported:
    """Writes a member's maps of a split to ``output``.

    zarr: a plain store (one image a chunk, zstd + crc32c). Ids, sizes, dtype, codes and provenance are the same, and so
    is the fingerprint; a stopped export goes on. Others: codes, see ``output.maps``; a stop leaves nothing.

    Raises:
        UsageError: unknown member or format, or ``output`` is there or cannot be meant.
        StoreError: the store is not there, not finished or damaged, or ``output`` is there and is no stopped export
            of it.
        DataError: maps of several sizes for one file.
    """
    if to not in FORMATS:
        raise UsageError(f"format {to!r} is unknown to export: use {', '.join(FORMATS)}")
    store = open_store(project.store_path(project.member(member).name, split))
    store.require_complete()
    threads = threads or default_threads()
    if to == "zarr":
        return _plain_store(store, output, threads, track, f"{member} {split}")
    check_maps_file(output, to, store.sizes)
    with map_files(output, to, store.ids, store.sizes[0], store.dtype) as put:

        def one(image_id: str) -> tuple[str, Codes]:
            codes = _checked(store, image_id)
            if to in FOLDERS:
                put(image_id, codes)
            return image_id, codes

        for image_id, codes in track(ordered_map(one, store.ids, threads), len(store.ids), f"{member} {split}"):
            if to not in FOLDERS:
                put(image_id, codes)
    return Exported(output, len(store.ids), len(store.ids))


def _plain_store(store: ProbabilityStore, output: Path, threads: int, track: Track, what: str) -> Exported:
    if output.is_file():
        raise UsageError(f"{output} is a file: name a folder to make")
    _check_free(output, store)
    with StoreWriter(output, store.ids, store.sizes, store.provenance, store.dtype) as writer:
        missing = writer.missing()
        read = ordered_map(lambda image_id: (image_id, _checked(store, image_id)), missing, threads)
        for image_id, codes in track(read, len(missing), what):
            writer.write_codes(image_id, codes)
    return Exported(output, len(store.ids), len(missing))


def _checked(store: ProbabilityStore, image_id: str) -> Codes:
    """The codes of a map, compared with its done record."""
    codes = store.read(image_id)
    if checksum(codes) != store.record(image_id):
        raise StoreError(f"{store.path}: the map of {image_id} differs from its done record: see carvana-ens verify")
    return codes


def _check_free(output: Path, store: ProbabilityStore) -> None:
    """Refuses what is there, unless it is a part of the same maps."""
    if not output.exists():
        return
    try:
        left = open_store(output)
        begun = left.records != 0
        ours = (
            not begun.all()
            and (left.ids, left.sizes, left.dtype) == (store.ids, store.sizes, store.dtype)
            and not left.provenance.differences(store.provenance)
            and np.array_equal(left.records[begun], store.records[begun])
        )
    except StoreError:
        ours = False
    if not ours:
        raise StoreError(f"{output} is there already: give another name, or remove it first")
