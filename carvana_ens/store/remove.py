"""What is removed on the user's word: stores, and the locks of killed writers."""

from __future__ import annotations

from carvana_ens.store.place import Where, place_of
from carvana_ens.types import Say


def remove_store(path: Where) -> None:
    """Removes the store at ``path``, if there is one; a stop leaves a whole one, or none that can be opened.

    Raises:
        StoreError: another process writes it.
    """
    place = place_of(path)
    if place.exists():
        with place.lock():
            place.remove()


def take_lock(path: Where, say: Say) -> None:
    """Breaks the lock that a killed writer left on the store at ``path``, if there is one; says whose it was.

    Raises:
        StoreError: the writer is at work, as far as this machine can know.
    """
    holder = place_of(path).break_lock()
    say(f"{path}: no lock is left to break" if holder is None else f"{path}: broke the lock of {holder}")
