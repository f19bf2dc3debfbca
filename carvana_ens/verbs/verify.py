"""verify: every map of every store against its checksum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from carvana_ens.engine import default_threads, ordered_map
from carvana_ens.errors import StoreError, UsageError
from carvana_ens.project import Project
from carvana_ens.store.store import open_store
from carvana_ens.types import Track, untracked


@dataclass(frozen=True)
class Verified:
    """One store: maps read and found right, ids without a map, and what is wrong (one line each)."""

    path: str
    right: int
    missing: int
    damage: list[str]


def verify(
    project: Project, members: Sequence[str] = (), threads: int | None = None, track: Track = untracked
) -> list[Verified]:
    """Reads every chunk of the named members' stores (default: all), and compares it with its done record.

    Raises:
        UsageError: unknown member, or there are no stores.
    """
    results = []
    for config in project.select(members):
        for path in sorted((project.root / "stores" / config.name).glob("*.zarr")):
            try:
                store = open_store(path)
            except StoreError as error:
                results.append(Verified(str(path), 0, 0, [str(error)]))
                continue
            missing = store.missing()
            there = sorted(set(store.ids) - set(missing), key=store.index.__getitem__)
            found = ordered_map(store.damage, there, threads or default_threads())
            damage = [line for line in track(found, len(there), f"{config.name} {path.stem}") if line is not None]
            results.append(Verified(str(path), len(there) - len(damage), len(missing), damage))
    if not results:
        raise UsageError("there are no stores to verify: run predict or import first")
    return results
