"""pack: finished stores, in place, into the layout of which a blend reads a small part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from carvana_ens.engine import default_threads, ordered_map
from carvana_ens.errors import StoreError, UsageError
from carvana_ens.project import FILE, Project
from carvana_ens.store.packed_chunk import Part
from carvana_ens.store.packing import maps_size, pack_store, require_packable
from carvana_ens.store.place import is_address, place_of
from carvana_ens.store.store import open_store
from carvana_ens.types import Track, untracked
from carvana_ens.verbs.runs import recorded


@dataclass(frozen=True)
class Packed:
    """One store, of so many maps. ready: whether it was packed before. before, after: bytes of its maps' files."""

    path: Path
    maps: int
    ready: bool
    before: int
    after: int


def pack(
    project: Project,
    members: Sequence[str] = (),
    splits: Sequence[str] = (),
    *,
    threads: int | None = None,
    dry_run: bool = False,
    track: Track = untracked,
) -> list[Packed]:
    """Packs the stores of the named members and splits (default: all) in place; a stopped packing goes on.

    dry_run: only looks; what the stores would be afterwards is then not known, and said to be what they are.

    Raises:
        UsageError: unknown member, or there are no stores.
        StoreError: some are not there, not finished or in a foreign layout: names all of them, and packs none. One is
            damaged, or being written by another process: it stays as it was, those before it are packed.
    """
    found = _looked_at(_paths(project, members, splits))
    return found if dry_run else [_packed(project, store, threads or default_threads(), track) for store in found]


def _paths(project: Project, members: Sequence[str], splits: Sequence[str]) -> list[Path]:
    if is_address(project.stores):
        raise UsageError(
            f"the stores of this project are at {project.stores}, and stores are packed in a folder only: copy them to "
            f"one, name it as stores in {FILE}, pack, and copy them back"
        )
    paths: list[Path] = []
    for config in project.select(members):
        named = [project.store_path(config.name, split) for split in dict.fromkeys(splits)]
        paths += map(Path, named or place_of(project.member_stores(config.name)).stores())
    if not paths:
        raise UsageError("there are no stores to pack: run predict or import first")
    return paths


def _looked_at(paths: Sequence[Path]) -> list[Packed]:
    found, problems = [], []
    for path in paths:
        try:
            store = open_store(path)
            require_packable(store)
        except StoreError as error:
            problems.append(str(error))
        else:
            ready = store.packed is not None
            size = maps_size(path, packed=ready)
            found.append(Packed(path, len(store.ids), ready, size, size))
    if problems:
        raise StoreError("; ".join(problems))
    return found


def _packed(project: Project, store: Packed, threads: int, track: Track) -> Packed:
    member, split = store.path.parent.name, store.path.stem

    def each(one: Callable[[str], Part], ids: Sequence[str]) -> Iterator[Part]:
        return iter(track(ordered_map(one, ids, threads), len(ids), f"{member} {split}"))

    with recorded(project, "pack", member=member, split=split) as run:
        run |= {"images": pack_store(store.path, each)}
    return replace(store, after=maps_size(store.path, packed=True))
