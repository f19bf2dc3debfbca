"""verify: every map of every store against its checksum."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from carvana_ens.engine import default_threads, ordered_map
from carvana_ens.engine.cluster import Cluster, Workers, connected
from carvana_ens.engine.tasks import ordered
from carvana_ens.engine.worker import alive, kept, threads_here
from carvana_ens.errors import StoreError, UsageError
from carvana_ens.project import Project
from carvana_ens.store.store import ProbabilityStore, open_store
from carvana_ens.types import Track, untracked
from carvana_ens.verbs.versions import installed

_TASK = 256
"""Images that a worker is given at once."""


@dataclass(frozen=True)
class Verified:
    """One store: maps read and found right, ids without a map, and what is wrong (one line each)."""

    path: str
    right: int
    missing: int
    damage: list[str]


def verify(
    project: Project,
    members: Sequence[str] = (),
    threads: int | None = None,
    workers: Workers | None = None,
    track: Track = untracked,
) -> list[Verified]:
    """Reads every chunk of the named members' stores (default: all), and compares it with its done record.

    workers: other processes that read in place of this one; they have threads of their own.

    Raises:
        UsageError: unknown member, or there are no stores.
        CarvanaEnsError: no workers, or the scheduler was lost.
    """
    if workers is not None and threads is not None:
        raise UsageError("workers have threads of their own: leave out --threads")
    configs = project.select(members)
    results = []
    with nullcontext() if workers is None else connected(workers, installed) as cluster:
        for config in configs:
            for path in sorted((project.root / "stores" / config.name).glob("*.zarr")):
                try:
                    store = open_store(path)
                except StoreError as error:
                    results.append(Verified(str(path), 0, 0, [str(error)]))
                    continue
                missing = store.missing()
                there = sorted(set(store.ids) - set(missing), key=store.index.__getitem__)
                found = _found(store, there, threads, cluster)
                damage = [line for line in track(found, len(there), f"{config.name} {path.stem}") if line is not None]
                results.append(Verified(str(path), len(there) - len(damage), len(missing), damage))
    if not results:
        raise UsageError("there are no stores to verify: run predict or import first")
    return results


@dataclass(frozen=True)
class _Order:
    """Images for a worker to read. key: the same for all of a store."""

    key: str
    path: Path
    ids: tuple[str, ...]


def _found(
    store: ProbabilityStore, ids: Sequence[str], threads: int | None, cluster: Cluster | None
) -> Iterator[str | None]:
    """What is wrong with each image, in order."""
    if cluster is None:
        return ordered_map(store.damage, ids, threads or default_threads())
    order = partial(_Order, uuid.uuid4().hex, Path(store.path).absolute())
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
