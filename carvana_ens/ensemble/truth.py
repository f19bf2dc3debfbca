"""True masks, decoded once: a file of packed bit words, made anew when the masks change.

Reading a GIF of 1280x1918 takes several milliseconds, a packed mask a tenth of one. The file: masks one after the
other, each the little-endian bit words as an LZ4 block; a JSON document (schema, hash of the source, and by image id
height, width, place, length and crc32 of the block); its length (8 octets, little-endian) and ``MAGIC``.
"""

from __future__ import annotations

import json
import mmap
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import lz4.block
import numpy as np

from carvana_ens.core.rle import mask_bits
from carvana_ens.data.mask_source import MaskSource
from carvana_ens.engine import default_threads, ordered_map
from carvana_ens.errors import DataError
from carvana_ens.files import digest, replacing, sha256_file
from carvana_ens.types import Bits, Json, Size, Track, untracked

Truth = Callable[[str, Size], Bits]
"""Gives the true mask of an image id, at the image's size, as bit words; called from threads. Such as a TruthCache."""

SCHEMA = 1
MAGIC = b"cve-tr01"


@dataclass(frozen=True)
class _Entry:
    height: int
    width: int
    place: int
    length: int
    crc: int


class TruthCache:
    """Masks of a cache file; calling it gives one. Safe in threads.

    source: the hash of what the masks were decoded from (see ``source_hash``).
    """

    def __init__(self, path: Path) -> None:
        """Reads the table of a file that ``cached_truth`` wrote.

        Raises:
            DataError: there is none, or it is damaged or of another schema.
        """
        self.path = path
        try:
            with open(path, "rb") as file:
                self._octets = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            end = len(self._octets) - 16
            table = end - int.from_bytes(self._octets[end : end + 8], "little")
            if table < 0 or self._octets[end + 8 :] != MAGIC:
                raise ValueError("it does not end as such a file does")
            document: Json = json.loads(self._octets[table:end])
            if document["schema"] != SCHEMA:
                raise ValueError(f"it has schema {document['schema']!r}, this version reads {SCHEMA}")
            self.source: str = document["source"]
            self._entries = {image_id: _Entry(*numbers) for image_id, numbers in document["images"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"the cache of masks {path} cannot be read ({error}): remove it to make it anew") from error

    @property
    def sizes(self) -> Mapping[str, Size]:
        """Of all masks that are there, by image id."""
        return {image_id: Size(entry.height, entry.width) for image_id, entry in self._entries.items()}

    def __call__(self, image_id: str, size: Size) -> Bits:
        """The mask as (ceil(H W / 64),) bit words, as ``mask_bits`` gives them.

        Raises:
            DataError: no such mask, one of another size, or a damaged file.
        """
        entry = self._entries.get(image_id)
        if entry is None or (entry.height, entry.width) != tuple(size):
            raise DataError(f"the cache of masks {self.path} has no image {image_id!r} of {size}: remove the file")
        block = self._octets[entry.place : entry.place + entry.length]
        if zlib.crc32(block) != entry.crc:
            raise DataError(f"the cache of masks {self.path} is damaged at image {image_id!r}: remove it and go on")
        octets = lz4.block.decompress(block, -(-size.height * size.width // 64) * 8, return_bytearray=True)
        return np.frombuffer(octets, "<u8")

    def blocks(self, wanted: Mapping[str, Size]) -> dict[str, bytes]:
        """Undecoded, those of the wanted images that are there at this size and undamaged."""
        found = {}
        for image_id, size in wanted.items():
            entry = self._entries.get(image_id)
            if entry is not None and (entry.height, entry.width) == tuple(size):
                block = self._octets[entry.place : entry.place + entry.length]
                if zlib.crc32(block) == entry.crc:
                    found[image_id] = block
        return found


def source_hash(source: Path, categories: Sequence[str] = (), threads: int | None = None) -> str:
    """sha256 (hex) of a file of masks, or of the names and contents of all files in a folder; and of
    ``categories``, what else decides the masks.

    Raises:
        DataError: there is nothing that can be read.
    """
    try:
        files = sorted(path for path in source.iterdir() if path.is_file()) if source.is_dir() else [source]
        hashes = ordered_map(sha256_file, files, threads or default_threads(), batch=16)
        return digest([[path.name, found] for path, found in zip(files, hashes, strict=True)] + [sorted(categories)])
    except OSError as error:
        raise DataError(f"the masks at {source} cannot be read: {error.strerror or error}") from error


def cached_truth(
    path: Path,
    masks: MaskSource,
    source: str,
    sizes: Mapping[str, Size],
    *,
    threads: int | None = None,
    track: Track = untracked,
) -> TruthCache:
    """The cache at a path, with all these masks; decoded anew is only what it lacks, or all where the source changed.

    masks: where they come from. source: its hash, see ``source_hash``. sizes: of each image. The file is replaced as a
    whole: a stop leaves the old one or the new.

    Raises:
        DataError: a mask that is missing, damaged or of another size.
        CarvanaEnsError: the file cannot be written.
    """
    old = _fresh(path, source)
    if old is not None and sizes.items() <= old.sizes.items():
        return old
    all_sizes = dict(sizes) if old is None else {**old.sizes, **sizes}
    blocks = {} if old is None else old.blocks(all_sizes)

    def block(image_id: str) -> bytes:
        if image_id in blocks:
            return blocks[image_id]
        bits = mask_bits(masks.read(image_id, all_sizes[image_id]))
        return lz4.block.compress(bits.astype("<u8").tobytes(), store_size=False)  # type: ignore[no-any-return]

    made = ordered_map(block, all_sizes, threads or default_threads())
    with replacing(path) as temporary:
        _write(temporary, source, all_sizes, track(made, len(all_sizes), "masks"))
    return TruthCache(path)


def _fresh(path: Path, source: str) -> TruthCache | None:
    """What is there, if it can be read and comes from this source."""
    try:
        found = TruthCache(path)
    except DataError:
        return None
    return found if found.source == source else None


def _write(path: Path, source: str, sizes: Mapping[str, Size], blocks: Iterable[bytes]) -> None:
    images: dict[str, list[int]] = {}
    place = 0
    with open(path, "wb") as file:
        for (image_id, size), block in zip(sizes.items(), blocks, strict=True):
            images[image_id] = [*size, place, len(block), zlib.crc32(block)]
            place += file.write(block)
        document = json.dumps({"schema": SCHEMA, "source": source, "images": images}).encode()
        file.write(document + len(document).to_bytes(8, "little") + MAGIC)
