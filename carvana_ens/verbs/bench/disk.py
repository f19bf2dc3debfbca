"""What lies on the disk while we race: stores in every layout, the PNG way's pictures; and the page cache."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from carvana_ens.engine import default_threads, ordered_map
from carvana_ens.store.packing import pack_store
from carvana_ens.store.schema import Provenance
from carvana_ens.store.writer import StoreWriter
from carvana_ens.verbs.bench.maps import Maps

LAYOUTS: dict[str, Callable[[Path], object] | None] = {"plain": None, "packed": pack_store}
"""What turns a store as predictions leave it into each layout, in place; the last one is to be the fastest."""


def image_ids(count: int) -> list[str]:
    """Ids of the images that are raced on."""
    return [f"{number:06d}_01" for number in range(count)]


def write_stores(maps: Maps, members: int, images: int, folder: Path) -> dict[str, Path]:
    """Plain stores by member name."""
    names = [f"member{number:02d}" for number in range(members)]
    paths = ordered_map(
        lambda number: _write_store(maps, number, images, folder / f"{names[number]}.zarr"),
        range(members),
        default_threads(),
    )
    return dict(zip(names, paths, strict=True))


def _write_store(maps: Maps, member: int, images: int, path: Path) -> Path:
    provenance = Provenance(member={"name": path.stem}, split="bench", seen="none", source=maps.source)
    ids = image_ids(images)
    with StoreWriter(path, ids, [maps.size] * images, provenance) as writer:
        for number, image_id in enumerate(ids):
            writer.write_codes(image_id, maps.one(number, member))
    return path


def laid_out(layout: str, stores: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """The same stores in another layout; the plain ones stay as they are."""
    turn = LAYOUTS[layout]
    if turn is None:
        return dict(stores)
    turned = {name: copied(path, folder / layout / path.name) for name, path in stores.items()}
    for path in turned.values():
        turn(path)
    return turned


def copied(store: Path, destination: Path) -> Path:
    """A copy of a store at the destination."""
    shutil.copytree(store, destination)
    return destination


def write_pngs(cv2: Any, maps: Maps, members: int, images: int, folder: Path) -> dict[str, list[Path]]:
    """One 8-bit PNG a map, as OpenCV writes them; the members' files by image id."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, list[Path]] = {}
    for number, image_id in enumerate(image_ids(images)):
        files[image_id] = [folder / f"{image_id}.{member:02d}.png" for member in range(members)]
        for member, path in enumerate(files[image_id]):
            cv2.imwrite(str(path), maps.one(number, member))
    return files


def bytes_of(paths: Iterable[Path]) -> int:
    """Bytes of all files at and under these paths."""
    return sum(file.stat().st_size for file in files_of(paths))


def files_of(paths: Iterable[Path]) -> list[Path]:
    """All files at and under these paths."""
    return [file for path in paths for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]


def can_drop() -> bool:
    """Whether the system lets a file's pages be dropped from its cache."""
    return hasattr(os, "posix_fadvise")


def drop(files: Sequence[Path]) -> None:
    """Drops the files' pages from the page cache. What was just written must be on the disk first, see ``settle``."""
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def settle(files: Sequence[Path]) -> None:
    """Waits until the files are on the disk, so that writing them disturbs no time."""
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
