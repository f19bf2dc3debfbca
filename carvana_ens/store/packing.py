"""Packing a finished store: the same maps, ordered so that a blend reads a small part of them.

Its new chunks lie under other names than the old ones. They are written first, then ``prob/zarr.json`` is replaced in
one step, then the old ones go. A stop at any moment leaves a whole store of one kind or the other, and packing again
goes on where it stopped. A reader that was opened before the step finds the old chunks gone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from carvana_ens.errors import StoreError
from carvana_ens.files import replacing
from carvana_ens.store.chunks import ChunkError, DirectReader
from carvana_ens.store.documents import packed_document
from carvana_ens.store.packed_chunk import Part, assemble, encode
from carvana_ens.store.packed_reader import PackedReader, chunk_key
from carvana_ens.store.place import Folder, place_of
from carvana_ens.store.store import ProbabilityStore, open_store
from carvana_ens.types import Size

IMAGES = 64
"""Images of a chunk: so many hot parts lie one after the other in a file, and so many cold ones wait in memory."""

Each = Callable[[Callable[[str], Part], Sequence[str]], Iterator[Part]]
"""Calls a function for each id, in order; ``map``, or one that works ahead in threads."""


def maps_size(path: Path, *, packed: bool) -> int:
    """Bytes of the files that hold the maps of a store at a folder; not what a stop left beside them."""
    prob = path / "prob"
    return sum(file.stat().st_size for file in (prob.glob("c.*") if packed else prob.glob("c/**/*")) if file.is_file())


def pack_store(path: str | Path, each: Each = map) -> int:
    """Packs the finished store at a folder in place, and returns how many maps it packed now (0: it was packed before).

    each: how the maps are worked on; ``map`` does it one by one.

    Raises:
        StoreError: no store, one at an address or in a layout that is not ours, not finished, damaged, or being
            written by another process.
    """
    place = place_of(path)
    if not isinstance(place, Folder):
        raise StoreError(f"{path} is at an address: pack the store in a folder, then copy it there")
    root = Path(path)
    open_store(path)  # says what is wrong before a lock is left beside what is no store
    with place.lock():
        store = open_store(path)
        packed = 0
        if store.packed is None:
            require_packable(store)
            packed = _write_chunks(store, root, place, each)
            with replacing(root / "prob" / "zarr.json") as temporary:
                temporary.write_bytes(packed_document(store.shape, store.dtype, IMAGES))
            _keep(root / "prob")
        # also what a stop left of an earlier packing
        for left in (root / "prob").glob(".*.partial"):
            left.unlink()
        with suppress(FileNotFoundError):
            shutil.rmtree(root / "prob" / "c")
        return packed


def require_packable(store: ProbabilityStore) -> None:
    """Refuses a store that is not packed and cannot be.

    Raises:
        StoreError: a map is missing, or the layout is not ours: its chunks may have the names of packed ones.
    """
    store.require_complete()
    if not (store.packed or isinstance(store._reader, DirectReader)):
        raise StoreError(f"{store.path} has a layout that is not ours: export it first, and pack what that writes")


def _keep(folder: Path) -> None:
    """Has the names in a folder on the disk, before what they replace is deleted; not every system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _write_chunks(store: ProbabilityStore, root: Path, place: Folder, each: Each) -> int:
    """Writes the chunks that are not there yet; returns their number of images."""
    batches = {first // IMAGES: store.ids[first : first + IMAGES] for first in range(0, len(store.ids), IMAGES)}
    batches = {at: ids for at, ids in batches.items() if not _is_there(store, place, ids)}
    itemsize, size = 1 if store.dtype == "uint8" else 2, Size(*store.shape[1:])

    def one(image_id: str) -> Part:
        part = encode(store.read(image_id))
        if part.codes_crc != store.record(image_id):
            raise StoreError(
                f"{store.path}: the map of {image_id} differs from its done record: see carvana-ens verify"
            )
        return part

    todo = [image_id for ids in batches.values() for image_id in ids]
    made = each(one, todo)
    for at, ids in batches.items():
        parts: list[Part | None] = [*islice(made, len(ids))]
        parts += [None] * (IMAGES - len(parts))
        with replacing(root / chunk_key(at)) as temporary, open(temporary, "xb") as file:
            file.writelines(assemble(parts, itemsize, size))
    return len(todo)


def _is_there(store: ProbabilityStore, place: Folder, ids: Sequence[str]) -> bool:
    """Whether an earlier packing that was stopped has written the chunk of these images, from the same maps."""
    reader = PackedReader(place, Size(*store.shape[1:]), IMAGES, store.dtype)
    try:
        for image_id in ids:
            number = store.index[image_id]
            _, entry = reader.find(number, store.sizes[number])
            if entry.codes_crc != store.record(image_id):
                return False
    except ChunkError:
        return False
    return True
