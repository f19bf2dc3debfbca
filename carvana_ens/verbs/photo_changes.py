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
    """Fingerprints of what maps are made of, a folder's photos: the first 64 bits of the sha256 of their bytes.

    They are kept in a file of the project's cache, with what the file system says of each photo: size, times of the
    last change of its contents and of anything, and number. A photo is read again when any of these is another, later
    or not: clocks may be set back, and tools keep the time of what they copy. Safe in threads.
    """

    def __init__(self, photos: ImageFolder, cache: Path, groups: Mapping[str, str] | None = None) -> None:
        """cache: the folder of the file, which is named by the folder of the photos. groups: of the images, where a map
        is made of all photos of its group.
        """
        self._photos = photos
        name = hashlib.sha256(str(photos.folder.absolute()).encode()).hexdigest()[:16]
        self._file = cache / "photos" / f"{name}.json"
        self._kept = _read(self._file)
        self._new: dict[str, list[int]] = {}
        self._before: dict[str, list[int]] = {}
        self._groups = groups
        self._views: dict[str, list[str]] = {}
        for image_id, group in (groups or {}).items():
            self._views.setdefault(group, []).append(image_id)
        self.kind = "photos" if groups is None else "groups of photos"

    def source(self, image_id: str) -> str:
        """What the map of an image is made of: its photo, or the group of that."""
        return image_id if self._groups is None else self._groups[image_id]

    def begin(self, ids: Iterable[str]) -> None:
        """Remembers how the photos are before the maps of these images are made of them."""
        sources = dict.fromkeys(map(self.source, ids))
        self._before = {photo: self._state(photo) for source in sources for photo in self._photos_of(source)}

    def of_map(self, image_id: str) -> int:
        """The fingerprint of what a map has just been made of; ``CHANGING`` if nobody can say which."""
        source = self.source(image_id)
        value = self(source)
        still = all(self._before.get(photo) == self._state(photo) for photo in self._photos_of(source))
        return value if still else CHANGING

    def __call__(self, source: str) -> int:
        """The fingerprint of a source as it is now: of a photo, or of the fingerprints of a group's."""
        if self._groups is None:
            return self._of_photo(source)
        return _fingerprint(b"".join(self._of_photo(photo).to_bytes(8, "little") for photo in self._views[source]))

    def _photos_of(self, source: str) -> Sequence[str]:
        return (source,) if self._groups is None else self._views[source]

    def _of_photo(self, image_id: str) -> int:
        state = self._state(image_id)
        kept = self._kept.get(image_id)
        if kept is not None and kept[:-1] == state:
            return kept[-1]
        value = _fingerprint(self._photos.path(image_id).read_bytes())
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
    say: Say = unsaid,
    track: Track = untracked,
) -> Iterator[StoreWriter]:
    """The writer of a store, of which maps of photos that changed were forgotten; it notes the photos of new maps.

    opened: opens it. what: of the maps, for the user.

    Raises:
        StoreError: what opening it raises.
    """
    try:
        with opened() as writer:
            stale = _stale(writer.prints(), prints, what, say, track)
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


def _stale(made_of: Mapping[str, int], prints: PhotoPrints, what: str, say: Say, track: Track) -> list[str]:
    sources = list(dict.fromkeys(map(prints.source, made_of)))
    values = track(ordered_map(prints, sources, default_threads()), len(sources), prints.kind)
    now = dict(zip(sources, values, strict=True))
    stale = [image_id for image_id, value in made_of.items() if value != now[prints.source(image_id)]]
    if stale:
        changed = list(dict.fromkeys(map(prints.source, stale)))
        say(
            f"{what}: {len(changed)} {prints.kind} changed since their maps were made ({listed(changed)}): "
            f"{len(stale)} maps are made anew"
        )
    return stale


def _fingerprint(content: bytes) -> int:
    return max(int.from_bytes(hashlib.sha256(content).digest()[:8], "little"), LEAST)


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
