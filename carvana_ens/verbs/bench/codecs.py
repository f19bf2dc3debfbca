"""The part "stores": one map through every codec, and one image's maps through every layout."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from carvana_ens.store.schema import Provenance
from carvana_ens.store.store import ProbabilityStore, open_store
from carvana_ens.store.writer import StoreWriter
from carvana_ens.verbs.bench.course import PEER_IMAGES, Course, Field
from carvana_ens.verbs.bench.disk import LAYOUTS, bytes_of, copied, image_ids, laid_out, write_stores
from carvana_ens.verbs.bench.maps import Maps
from carvana_ens.verbs.bench.numpy_ways import CodesOf
from carvana_ens.verbs.bench.race import Contest, Contestant, Heading

Encode = Callable[[CodesOf], Any]
Decode = Callable[[Any, CodesOf], CodesOf]
"""Of one (H, W) map; decoding may use the buffer that it is given."""

MOST_IMAGES = 24
"""Images in the stores of this part: 24 of 8 members are 470 MB decoded."""


def stores(course: Course, maps: Maps) -> Iterator[Contest]:
    """Encoding and decoding one map; writing stores; reading one image's maps from them."""
    yield from _codecs(course, maps)
    yield _writing(course, maps)
    yield _reading(course, maps)


def _codecs(course: Course, maps: Maps) -> Iterator[Contest]:
    ways = _numcodecs_ways(course.peers.need("numcodecs", "reading stores"), course.peers.find("numcodecs.blosc"))
    ways["PNG, Pillow"] = _pillow_encode, _pillow_decode
    cv2 = course.peers.find("cv2")
    if cv2 is not None:
        ways["PNG, OpenCV"] = partial(_opencv_encode, cv2), partial(_opencv_decode, cv2)
    left_out = course.peers.missing("cv2")
    distinct = [maps.one(image, member) for image in range(maps.distinct) for member in range(len(maps.bases[image]))]
    encoded = {name: [encode(codes) for codes in distinct] for name, (encode, _) in ways.items()}
    mean_bytes = {name: float(np.mean([len(chunk) for chunk in chunks])) for name, chunks in encoded.items()}
    into = np.empty_like(distinct[0])

    def copy(number: int) -> CodesOf:
        np.copyto(into, distinct[number])
        return into

    def encoder(name: str) -> Contestant:
        encode, decode = ways[name]
        return Contestant(
            name,
            lambda number: encode(distinct[number]),
            result=lambda chunk: decode(chunk, into),
            bytes_a_map=mean_bytes[name],
        )

    def decoder(name: str) -> Contestant:
        decode = ways[name][1]
        return Contestant(name, lambda number: decode(encoded[name][number], into), bytes_a_map=mean_bytes[name])

    limit = Contestant("limit: memcpy", copy, "limit", bytes_a_map=float(into.nbytes))
    for name, what, make in (("stores.encode", "encoded", encoder), ("stores.decode", "decoded", decoder)):
        field = Field(course, Heading("stores", name, f"one map of {maps.size} {what}", maps.kind), left_out=left_out)
        field.add(limit, *(make(way) for way in ways))
        yield field.race(range(len(distinct)), distinct.__getitem__, rounds=course.options.few_rounds)


def _numcodecs_ways(numcodecs: Any, blosc: Any) -> dict[str, tuple[Encode, Decode]]:
    codecs: dict[str, Any] = {
        "LZ4": numcodecs.LZ4(),
        "zstd 1": numcodecs.Zstd(1),
        "zstd 3": numcodecs.Zstd(3),
        "gzip 1": numcodecs.GZip(1),
        "gzip 6": numcodecs.GZip(6),
    }
    if blosc is not None:  # numcodecs is built without it where it is not supported
        for inner in ("lz4", "zstd"):
            for shuffle, name in ((blosc.NOSHUFFLE, "no shuffle"), (blosc.BITSHUFFLE, "bit shuffle")):
                codecs[f"blosc {inner} 5, {name}"] = blosc.Blosc(inner, 5, shuffle)

    def ways(codec: Any) -> tuple[Encode, Decode]:
        def decode(chunk: Any, into: CodesOf) -> CodesOf:
            codec.decode(chunk, out=into)
            return into

        return codec.encode, decode

    return {name: ways(codec) for name, codec in codecs.items()}


def _pillow_encode(codes: CodesOf) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(codes).save(file, "PNG")
    return file.getvalue()


def _pillow_decode(chunk: bytes, into: CodesOf) -> CodesOf:  # noqa: ARG001
    with PIL.Image.open(io.BytesIO(chunk)) as picture:
        return np.asarray(picture)


def _opencv_encode(cv2: Any, codes: CodesOf) -> NDArray[np.uint8]:
    chunk: NDArray[np.uint8] = cv2.imencode(".png", codes)[1]
    return chunk


def _opencv_decode(cv2: Any, chunk: NDArray[np.uint8], into: CodesOf) -> CodesOf:  # noqa: ARG001
    codes: CodesOf = cv2.imdecode(chunk, cv2.IMREAD_GRAYSCALE)
    return codes


def _writing(course: Course, maps: Maps) -> Contest:
    """A store of a few maps made anew in every run: as predictions write it, and out of that in each other layout."""
    count = min(PEER_IMAGES, course.options.images)
    ids, numbers = image_ids(count), iter(range(10**9))
    provenance = Provenance(member={"name": "bench"}, split="bench", seen="none")
    fresh = [course.folder]

    def renew() -> None:
        fresh[0] = course.folder / "writing" / f"{next(numbers)}.zarr"

    def write(_: Any) -> Path:
        with StoreWriter(fresh[0], ids, [maps.size] * count, provenance) as writer:
            for number, image_id in enumerate(ids):
                writer.write_codes(image_id, maps.one(number, 0))
        return fresh[0]

    renew()
    source = write(None)

    def contestant(layout: str) -> Contestant:
        turn = LAYOUTS[layout]
        if turn is None:
            return Contestant("plain, map by map", write, "ours", before=renew)

        def copy() -> None:
            renew()
            copied(source, fresh[0])

        def run(_: Any) -> Path:
            turn(fresh[0])
            return fresh[0]

        return Contestant(f"{layout}, out of plain", run, "ours", before=copy)

    field = Field(course, Heading("stores", "stores.write", f"one map of {maps.size} written to a store", maps.kind))
    for layout in LAYOUTS:
        made = contestant(layout)
        made.before()
        size = bytes_of([made.run(None)]) / count
        field.add(replace(made, result=partial(_read_all, ids), images=count, bytes_a_map=size))
    return field.race(
        [None],
        lambda _: np.stack([maps.one(number, 0) for number in range(count)]),
        rounds=course.options.few_rounds,
        checked=1,
    )


def _reading(course: Course, maps: Maps) -> Contest:
    """One image's maps from warm stores: by us in every layout, and by zarr's public indexing."""
    members, count = course.options.members, min(MOST_IMAGES, course.options.images)
    plain = write_stores(maps, members, count, course.folder / "reading")
    zarr = course.peers.need("zarr", "reading stores")
    arrays = [zarr.open_group(path, mode="r")["prob"] for path in plain.values()]
    ids = image_ids(count)
    field = Field(course, Heading("stores", "stores.read", f"{members} maps of one image read from stores", maps.kind))
    field.add(Contestant("zarr's public indexing", lambda number: np.stack([array[number] for array in arrays])))
    for layout in LAYOUTS:
        paths = laid_out(layout, plain, course.folder / "reading")
        size = bytes_of(paths.values()) / (count * members)
        field.add(Contestant(f"read, {layout}", partial(_read_one, _opened(paths), ids), "ours", bytes_a_map=size))
    return field.race(range(count), lambda number: np.stack([maps.one(number, member) for member in range(members)]))


def _opened(paths: Mapping[str, Path]) -> list[ProbabilityStore]:
    return [open_store(path) for path in paths.values()]


def _read_one(stores: Sequence[ProbabilityStore], ids: Sequence[str], number: int) -> CodesOf:
    codes: Any = np.stack([store.read(ids[number]) for store in stores])
    return codes  # type: ignore[no-any-return]


def _read_all(ids: Sequence[str], path: Path) -> CodesOf:
    store = open_store(path)
    codes: Any = np.stack([store.read(image_id) for image_id in ids])
    return codes  # type: ignore[no-any-return]
