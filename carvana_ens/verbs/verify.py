"""verify: every map of every store against its checksum; damaged ones marked, and what stops left behind removed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

from carvana_ens.engine import default_threads, ordered_map
from carvana_ens.engine.cluster import Cluster, Workers, connected
from carvana_ens.engine.tasks import ordered
from carvana_ens.engine.worker import alive, kept, threads_here
from carvana_ens.errors import StoreError, UsageError
from carvana_ens.files import left_behind
from carvana_ens.model import MemberConfig
from carvana_ens.project import Project
from carvana_ens.store.documents import altered
from carvana_ens.store.place import Where, absolute, below, place_of
from carvana_ens.store.prints import prints_damage
from carvana_ens.store.remove import take_lock
from carvana_ens.store.repair import forget_maps, remove_leftovers, restore_documents
from carvana_ens.store.store import ProbabilityStore, open_store
from carvana_ens.types import Say, Track, unsaid, untracked
from carvana_ens.verbs.versions import installed

_TASK = 256
"""Images that a worker is given at once."""
_ALTERED = "is not what carvana-ens wrote there: it is damaged, or another program changed it"
_LEFT = ".*.partial"
"""Names of files while they are written."""


@dataclass(frozen=True)
class Verified:
    """One store: maps read and found right, ids without a map, and what is wrong (one line each).

    repaired: damaged maps that were marked as missing. restored: things beside the maps that were mended. removed,
    freed: things that stops had left, and their bytes.
    """

    path: str
    right: int
    missing: int
    damage: list[str]
    repaired: int = 0
    restored: int = 0
    removed: int = 0
    freed: int = 0


def verify(
    project: Project,
    members: Sequence[str] = (),
    threads: int | None = None,
    workers: Workers | None = None,
    repair: bool = False,
    gc: bool = False,
    break_lock: bool = False,
    say: Say = unsaid,
    track: Track = untracked,
) -> list[Verified]:
    """Reads every chunk of the named members' stores (default: all), and compares it with its done record.

    Each zarr.json is compared with what the store's writer wrote. repair: mend these, and mark damaged maps as missing,
    so that predict or import makes them again. gc: remove what killed writers left in stores, beside them and
    elsewhere in the project; of what somebody writes nothing is removed. workers: other processes that read in place
    of this one; they have threads of their own. break_lock: takes the locks that killed writers left on these stores.

    Raises:
        UsageError: unknown member, or there are no stores.
        StoreError: a damaged store is being written by another process.
        CarvanaEnsError: no workers, or the scheduler was lost.
    """
    if workers is not None and threads is not None:
        raise UsageError("workers have threads of their own: leave out --threads")
    if break_lock and not (repair or gc):
        raise UsageError("--break-lock goes with --repair or --gc: without them verify takes no lock")
    configs = project.select(members)
    if break_lock:
        for place in (place_of(project.member_stores(config.name)) for config in configs):
            for path in dict.fromkeys([*place.stores(), *place.begun()]):
                take_lock(path, say)
    results = []
    with nullcontext() if workers is None else connected(workers, installed) as cluster:
        for config in configs:
            for path in place_of(project.member_stores(config.name)).stores():
                try:
                    store = open_store(path)
                    changed = [f"{below(path, key)} {_ALTERED}" for key in altered(store)]
                    changed += prints_damage(place_of(path), len(store.ids))
                    restored = restore_documents(path) if repair and changed else []
                    store = open_store(path) if restored else store
                    missing = store.missing()
                except StoreError as error:
                    results.append(Verified(str(path), 0, 0, [str(error)]))
                    continue
                there = sorted(set(store.ids) - set(missing), key=store.index.__getitem__)
                found = _found(store, there, threads, cluster)
                tracked = track(found, len(there), f"{config.name} {Path(path).stem}")
                damage = {i: line for i, line in zip(there, tracked, strict=True) if line is not None}
                lines = [*damage.values(), *changed]
                done = Verified(str(path), len(there) - len(damage), len(missing), lines, restored=len(restored))
                # also a packed store whose repair was stopped: maps are missing, and nobody could write them there
                if repair and (damage or (missing and store.packed is not None)):
                    forget_maps(path, damage)
                    done = replace(done, repaired=len(damage))
                results.append(done)
    if gc:
        results = _cleaned(project, configs, results)
    if not results:
        raise UsageError("there are no stores to verify: run predict or import first")
    return results


def _cleaned(project: Project, configs: Sequence[MemberConfig], results: Sequence[Verified]) -> list[Verified]:
    """Also stores of which nothing is there but what a stop left."""
    found = {result.path: result for result in results}
    for config in configs:
        for path in place_of(project.member_stores(config.name)).begun():
            found.setdefault(str(path), Verified(str(path), 0, 0, []))
    cleaned = []
    for result in found.values():
        removed, freed = remove_leftovers(result.path)
        cleaned.append(replace(result, removed=removed, freed=freed))
    stores = Path(project.stores)
    others = [folder for folder in project.root.iterdir() if folder.is_dir() and not stores.is_relative_to(folder)]
    hidden = chain(project.root.glob(_LEFT), *(folder.rglob(_LEFT) for folder in others))
    left = {path: path.stat().st_size for path in left_behind(hidden)}
    for path in left:
        path.unlink()
    if left:
        cleaned.append(Verified(str(project.root), 0, 0, [], removed=len(left), freed=sum(left.values())))
    return cleaned


@dataclass(frozen=True)
class _Order:
    """Images for a worker to read. key: the same for all of a store."""

    key: str
    path: Where
    ids: tuple[str, ...]


def _found(
    store: ProbabilityStore, ids: Sequence[str], threads: int | None, cluster: Cluster | None
) -> Iterator[str | None]:
    """What is wrong with each image, in order."""
    if cluster is None:
        return ordered_map(store.damage, ids, threads or default_threads())
    order = partial(_Order, uuid.uuid4().hex, absolute(store.path))
    orders = (order(tuple(ids[first : first + _TASK])) for first in range(0, len(ids), _TASK))
    return chain.from_iterable(ordered(cluster, _verify_order, orders))


def _verify_order(order: _Order) -> list[str | None]:
    """On a worker: what is wrong with each of its images."""
    store = kept(order.key, partial(open_store, order.path))
    found = []
    for line in ordered_map(store.damage, order.ids, threads_here()):
        found.append(line)
        alive()
    return found
