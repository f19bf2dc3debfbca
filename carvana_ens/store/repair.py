"""Mending stores: damaged maps are marked as missing, to be made again, and what stops left behind is removed."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from carvana_ens.errors import StoreError
from carvana_ens.files import replacing
from carvana_ens.store.documents import altered, as_written
from carvana_ens.store.lock import WriterLock, note_beside
from carvana_ens.store.packed_reader import SEPARATOR
from carvana_ens.store.place import Place, Where, is_address, is_made, place_of
from carvana_ens.store.prints import mend_prints
from carvana_ens.store.store import ProbabilityStore, open_store
from carvana_ens.store.writer import StoreWriter

_PLAIN = "plain"


def forget_maps(path: Where, damaged: Collection[str]) -> None:
    """Marks maps as missing, so that predict or import makes them again; all others stay as they are.

    A packed store becomes a plain one, since packed stores are not written; pack it again when it is whole. A stop at
    any moment leaves a store that reads as before, or as after.

    Raises:
        StoreError: the store cannot be opened, is a packed one at an address, or another process writes it.
    """
    store = open_store(path)
    if store.packed is not None and is_address(path):
        raise StoreError(
            f"{path} is packed and at an address: mend the folder that it was copied from, and copy it there again"
        )
    with _writer(path, store) as writer:
        writer.forget(damaged)
    if store.packed is not None:
        _unpack(Path(path))


def restore_documents(path: Where) -> list[str]:
    """Writes each zarr.json of a store that can be opened as its writer did; the keys of what differed.

    Fingerprints of photos that are damaged are forgotten, too.

    Raises:
        StoreError: the store cannot be opened, or another process writes it.
    """
    place = place_of(path)
    with place.lock():
        store = open_store(path)
        found = altered(store)
        for key in found:
            place.put(key, as_written(store)[key])
        return found + ["photos"] * mend_prints(place, len(store.ids))


def leftovers(path: Path) -> list[Path]:
    """What killed writers and packers left in a store at a folder, and beside it; nobody may be writing it.

    Files and folders under temporary names, the note of a writer that is gone, and the chunks of the layout that the
    store is not in.
    """
    found = sorted(path.parent.glob(f".{path.name}.*.partial*"))
    if path.is_dir():
        found += sorted(file for file in path.rglob("*.partial") if file.is_file())
        with suppress(StoreError):
            packed = open_store(path).packed is not None
            other = path / "prob" / "c" if packed else None
            chunks = [] if packed else sorted((path / "prob").glob(f"c{SEPARATOR}*"))
            found += [other] if other is not None and other.exists() else []
            found += [file for file in chunks if file not in found]
    note = note_beside(path)
    return [*found, note] if note.is_file() else found


def remove_leftovers(where: Where) -> tuple[int, int]:
    """Removes ``leftovers`` under the store's lock, at an address one that is unfinished; (how many things, bytes).

    Raises:
        StoreError: another process writes the store.
    """
    if is_address(where):
        return _remove_unfinished(place_of(where))
    path = Path(where)
    old = leftovers(path)
    if not old:
        return 0, 0
    with WriterLock(path):
        old = [left for left in leftovers(path) if left != note_beside(path)]
        size = 0
        for left in old:
            size += sum(file.stat().st_size for file in _files(left))
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return max(len(old), 1), size


def _remove_unfinished(place: Place) -> tuple[int, int]:
    with place.lock():
        about = place.get("zarr.json")
        if about is None or is_made(about):
            return 0, 0
        size = place.size()
        place.remove()
    return 1, size


def _files(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]


def _writer(path: Where, store: ProbabilityStore) -> StoreWriter:
    return StoreWriter(path, store.ids, store.sizes, store.provenance, store.dtype)


def _unpack(path: Path) -> None:
    """Turns a packed store into a plain one: plain chunks first, then ``prob/zarr.json`` in one step, then the rest.

    Maps without a done record are left out.
    """
    plain = path.with_name(f".{path.name}.{_PLAIN}.partial")
    shutil.rmtree(plain, ignore_errors=True)
    with WriterLock(path):
        store = open_store(path)
        shutil.rmtree(path / "prob" / "c", ignore_errors=True)
        missing = set(store.missing())
        with _writer(plain, store) as writer:
            for image_id in store.ids:
                if image_id not in missing:
                    writer.write_codes(image_id, store.read(image_id))
        if (plain / "prob" / "c").exists():
            (plain / "prob" / "c").rename(path / "prob" / "c")
        with replacing(path / "prob" / "zarr.json") as temporary:
            temporary.write_bytes((plain / "prob" / "zarr.json").read_bytes())
        for chunk in (path / "prob").glob(f"c{SEPARATOR}*"):
            chunk.unlink()
    shutil.rmtree(plain)
    plain.with_name(f"{plain.name}.lock").unlink(missing_ok=True)
