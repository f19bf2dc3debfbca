"""Photos that are not those any more that maps were made of: their maps are stale, and are made anew."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from carvana_ens.data.ids import listed
from carvana_ens.data.images import ImageFolder
from carvana_ens.engine import default_threads, ordered_map
from carvana_ens.errors import CarvanaEnsError
from carvana_ens.files import write_json
from carvana_ens.store.prints import LEAST
from carvana_ens.store.repair import forget_maps
from carvana_ens.store.writer import StoreWriter
from carvana_ens.types import Json, Say, Track, unsaid, untracked

CHANGING = LEAST - 1
"""Of a photo that was another before its map was made than after: equal to no fingerprint."""


class PhotoPrints:
    """Fingerprints of a folder's photos: the first 64 bits of the sha256 of their bytes.

    They are kept in a file of the project's cache, with what the file system says of each photo: size, times of the
    last change of its contents and of anything, and number. A photo is read again when any of these is another, later
    or not: clocks may be set back, and tools keep the time of what they copy. Safe in threads.
    """

    def __init__(self, photos: ImageFolder, cache: Path) -> None:
        """cache: the folder of the file, which is named by the folder of the photos."""
        self._photos = photos
        name = hashlib.sha256(str(photos.folder.absolute()).encode()).hexdigest()[:16]
        self._file = cache / "photos" / f"{name}.json"
        self._kept = _read(self._file)
        self._new: dict[str, list[int]] = {}
        self._before: dict[str, list[int]] = {}

    def begin(self, ids: Iterable[str]) -> None:
        """Remembers how these photos are before maps are made of them."""
        self._before = {image_id: self._state(image_id) for image_id in ids}

    def of_map(self, image_id: str) -> int:
        """The fingerprint of the photo that a map has just been made of; ``CHANGING`` if nobody can say which."""
        value = self(image_id)
        return value if self._before.get(image_id) == self._state(image_id) else CHANGING

    def __call__(self, image_id: str) -> int:
        """The fingerprint of a photo as it is now."""
        state = self._state(image_id)
        kept = self._kept.get(image_id)
        if kept is not None and kept[:-1] == state:
            return kept[-1]
        found = hashlib.sha256(self._photos.path(image_id).read_bytes()).digest()
        value = max(int.from_bytes(found[:8], "little"), LEAST)
        self._kept[image_id] = self._new[image_id] = [*state, value]
        return value

    def keep(self) -> None:
        """Writes what is new into the cache; one that cannot be written costs time, nothing else."""
        if self._new:
            with suppress(CarvanaEnsError):
                write_json(self._file, _read(self._file) | self._new)
            self._new = {}

    def _state(self, image_id: str) -> list[int]:
        state = self._photos.path(image_id).stat()
        return [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]


@contextmanager
def current_maps(
    opened: Callable[[], StoreWriter],
    prints: PhotoPrints,
    what: str,
    groups: Mapping[str, str] | None = None,
    say: Say = unsaid,
    track: Track = untracked,
) -> Iterator[StoreWriter]:
    """The writer of a store, of which maps of photos that changed were forgotten; it notes the photos of new maps.

    opened: opens it. what: of the maps, for the user. groups: of the images, where a map is made of all photos of its
    group.

    Raises:
        StoreError: what opening it raises.
    """
    try:
        with opened() as writer:
            stale = _stale(writer.prints(), prints, what, groups, say, track)
            packed = writer.packed
            if not (stale and packed):
                if stale:
                    writer.forget(stale)
                yield _noting(writer, prints)
                return
        forget_maps(writer.path, stale)  # packed stores are not written: it is a plain one from here
        with opened() as writer:
            yield _noting(writer, prints)
    finally:
        prints.keep()


def _stale(
    made_of: Mapping[str, int],
    prints: PhotoPrints,
    what: str,
    groups: Mapping[str, str] | None,
    say: Say,
    track: Track,
) -> list[str]:
    ids = list(made_of)
    now = track(ordered_map(prints, ids, default_threads()), len(ids), "photos")
    changed = [image_id for image_id, value in zip(ids, now, strict=True) if value != made_of[image_id]]
    if not changed:
        return []
    stale: Sequence[str] = changed
    if groups is not None:
        touched = {groups[image_id] for image_id in changed}
        stale = [image_id for image_id in ids if groups[image_id] in touched]
    say(
        f"{what}: {len(changed)} photos changed since their maps were made ({listed(changed)}): {len(stale)} maps are "
        f"made anew"
    )
    return list(stale)


def _noting(writer: StoreWriter, prints: PhotoPrints) -> StoreWriter:
    prints.begin(writer.missing())
    writer.photo = prints.of_map
    return writer


def _read(file: Path) -> dict[str, list[int]]:
    try:
        found: Json = json.loads(file.read_bytes())
        return {name: values for name, values in found.items() if len(values) == 5}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
