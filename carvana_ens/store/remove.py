"""Removing a store on the user's word."""

from __future__ import annotations

import shutil
from pathlib import Path

from carvana_ens.store.lock import WriterLock


def remove_store(path: Path) -> None:
    """Removes the store at ``path``, if there is one; renamed first, so that a stop leaves no half store there.

    Raises:
        StoreError: another process writes it.
    """
    if not path.exists():
        return
    with WriterLock(path):
        gone = path.with_name(f".{path.name}.removed.partial")
        shutil.rmtree(gone, ignore_errors=True)
        path.rename(gone)
        shutil.rmtree(gone)
