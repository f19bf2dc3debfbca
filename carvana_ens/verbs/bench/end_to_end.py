"""The parts "submission" and "members": from stores on disk to a .csv.gz, everything included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from carvana_ens.ensemble.blending import Blend
from carvana_ens.output.submission import write_submission
from carvana_ens.store.store import open_store
from carvana_ens.verbs.bench.course import MEMBER_IMAGES, PEER_IMAGES, Course, Field
from carvana_ens.verbs.bench.disk import (
    LAYOUTS,
    bytes_of,
    can_drop,
    drop,
    files_of,
    image_ids,
    laid_out,
    settle,
    write_pngs,
    write_stores,
)
from carvana_ens.verbs.bench.maps import Maps
from carvana_ens.verbs.bench.numpy_ways import exact_mask, usual_text
from carvana_ens.verbs.bench.processes import SideBySide
from carvana_ens.verbs.bench.race import Contest, Contestant, Heading
from carvana_ens.verbs.bench.roads import our_road, png_road, read_rows, zarr_road

Stores = Mapping[str, Path]
Row = tuple[str, str]

PNG, ZARR = "the PNG way", "zarr's indexing, numpy, pandas"
CODEC = "limit: decoding the chunks, LZ4"


def one_thread(layout: str) -> str:
    """The name of our road in one thread."""
    return f"ours, {layout}, 1 thread"


def in_threads(layout: str, threads: int) -> str:
    """The name of our road in some threads."""
    return f"ours, {layout}, {threads} threads"


def in_processes(layout: str, count: int) -> str:
    """The name of our road in processes of one thread."""
    return f"ours, {layout}, {count} processes side by side"


class Laid:
    """One set of stores on the disk in every layout, and the PNGs of its first images."""

    def __init__(self, course: Course, maps: Maps, members: int, images: int) -> None:
        self.course, self.maps, self.members, self.images = course, maps, members, images
        self.folder = course.folder
        self.plain = write_stores(maps, members, images, self.folder)
        self.layouts = {layout: laid_out(layout, self.plain, self.folder) for layout in LAYOUTS}
        self.some = min(PEER_IMAGES, images)
        cv2 = course.peers.find("cv2")
        self.pngs = {} if cv2 is None else write_pngs(cv2, maps, members, self.some, self.folder / "png")
        settle(files_of([self.folder]))

    def of(self, members: int) -> dict[str, dict[str, Path]]:
        """Layouts of the first members only."""
        return {layout: dict(list(stores.items())[:members]) for layout, stores in self.layouts.items()}

    def twin(self, members: int) -> list[Row]:
        """The first rows of the submission, in int64."""
        masks = [exact_mask(self.maps.stack(image, members)).reshape(self.maps.size) for image in range(self.some)]
        return [(f"{at}.jpg", usual_text(mask)) for at, mask in zip(image_ids(self.some), masks, strict=True)]

    def first_rows(self, output: Path) -> list[Row]:
        """The rows of a written submission that the slow roads also write."""
        return read_rows(output)[: self.some]

    def per_map(self, stores: Stores) -> float:
        """Bytes a map on the disk."""
        return bytes_of(stores.values()) / (self.images * len(stores))


def submission(course: Course, maps: Maps) -> Iterator[Contest]:
    """One thread beside the peers; threads beside processes; a cold page cache beside a warm one."""
    laid = Laid(course, maps, course.options.members, course.options.images)
    yield _single(course, laid, course.options.members, "submission", "submission.one")
    yield _side_by_side(course, laid)
    if can_drop():
        yield _cold(course, laid)
    else:
        course.say("this system does not let go of its page cache when asked: cold reading is left out")


def members(course: Course, maps: Maps) -> Iterator[Contest]:
    """The one-thread contest at several counts of members, on fewer images."""
    counts = course.options.counts
    laid = Laid(course, maps, max(counts), min(MEMBER_IMAGES, course.options.images))
    for count in counts:
        yield _single(course, laid, count, "members", f"members.{count}")


def _single(course: Course, laid: Laid, members: int, part: str, name: str) -> Contest:
    maps, images = laid.maps, laid.images
    output = laid.folder / "out.csv.gz"
    title = f"{images} images of {maps.size}, {members} members -> .csv.gz, one thread"
    field = Field(course, Heading(part, name, title, maps.kind))
    field.add(_limit(course, maps, members))
    zarr = course.peers.need("zarr", "reading stores")
    some, plain = image_ids(laid.some), laid.of(members)["plain"]
    pngs = {image_id: files[:members] for image_id, files in laid.pngs.items()}

    def peer(road: str, run: Any, bytes_a_map: float, files: list[Path]) -> Contestant:
        before = partial(_fill, files)
        return Contestant(road, run, result=laid.first_rows, images=laid.some, bytes_a_map=bytes_a_map, before=before)

    pictures = [path for files in pngs.values() for path in files]
    png_bytes = bytes_of(pictures) / max(1, len(pictures))

    field.invite(
        "cv2",
        "pandas",
        make=lambda cv2, pandas: [peer(PNG, lambda _: png_road(cv2, pandas, pngs, output), png_bytes, pictures)],
    )
    field.invite(
        "pandas",
        make=lambda pandas: [
            peer(
                ZARR,
                lambda _: zarr_road(zarr, pandas, plain, some, output),
                laid.per_map(plain),
                files_of(plain.values()),
            ),
        ],
    )
    for layout, stores in laid.of(members).items():
        run = partial(_ours, stores, output, 1)
        field.add(
            Contestant(
                one_thread(layout),
                run,
                "ours",
                laid.first_rows,
                images=images,
                bytes_a_map=laid.per_map(stores),
                before=partial(_fill, files_of(stores.values())),
            )
        )
        opening = partial(_open, stores)
        field.add(Contestant(f"of that, opening the stores, {layout}", opening, result=None, images=images))
    rows = [(name.removesuffix(".jpg"), rle.encode()) for name, rle in read_rows(_ours(plain, output, 1, None))]
    writing = partial(_write, rows, output)
    field.add(Contestant("of that, writing the rows", writing, result=laid.first_rows, images=images))
    return field.race([None], lambda _: laid.twin(members), rounds=course.options.few_rounds, checked=1)


def _limit(course: Course, maps: Maps, members: int) -> Contestant:
    """Decoding the maps of all distinct images out of memory, with the codec that decodes fastest."""
    codec = course.peers.need("numcodecs", "reading stores").LZ4()
    chunks = [[codec.encode(row) for row in maps.stack(image, members)] for image in range(maps.distinct)]
    into = np.empty(maps.size.height * maps.size.width, np.uint8)

    def decode(_: Any) -> None:
        for image in chunks:
            for chunk in image:
                codec.decode(chunk, out=into)

    return Contestant(CODEC, decode, "limit", None, images=maps.distinct)


def _side_by_side(course: Course, laid: Laid) -> Contest:
    """Our road in one process, with one thread and with several, beside as many processes; by wall-clock time."""
    threads, maps = course.options.threads, laid.maps
    title = f"{laid.images} images of {maps.size} -> .csv.gz, {threads} threads beside {threads} processes"
    field = Field(course, Heading("submission", "submission.threads", title, maps.kind))
    output = laid.folder / "threads.csv.gz"
    with SideBySide(threads, laid.folder) as processes:
        for layout, stores in laid.layouts.items():
            alone, together = partial(_ours, stores, output, 1), partial(_together, processes, stores)
            at_once = partial(_ours, stores, output, threads)
            images, before = laid.images, partial(_fill, files_of(stores.values()))
            several = images * threads
            field.add(
                Contestant(one_thread(layout), alone, "peer", read_rows, images=images, before=before),
                Contestant(in_processes(layout, threads), together, "peer", _one_text, images=several, before=before),
                Contestant(in_threads(layout, threads), at_once, "ours", read_rows, images=images, before=before),
            )
        whole = read_rows(_ours(laid.plain, output, 1, None))
        return field.race([None], lambda _: whole, rounds=course.options.few_rounds, clock="wall", checked=1)


def _cold(course: Course, laid: Laid) -> Contest:
    """Our road with everything in the page cache, and with nothing there before each run; by wall-clock time."""
    threads, maps = course.options.threads, laid.maps
    title = f"{laid.images} images of {maps.size} -> .csv.gz, page cache warm and cold, {threads} threads"
    field = Field(course, Heading("submission", "submission.cold", title, maps.kind))
    output = laid.folder / "cold.csv.gz"
    for layout, stores in laid.layouts.items():
        files = files_of(stores.values())
        run = partial(_ours, stores, output, threads)
        size = laid.per_map(stores)
        for state, before in (("warm", partial(_fill, files)), ("cold", partial(drop, files))):
            field.add(
                Contestant(
                    f"ours, {layout}, {state}",
                    run,
                    "ours" if state == "warm" else "peer",
                    laid.first_rows,
                    images=laid.images,
                    bytes_a_map=size,
                    before=before,
                )
            )
    return field.race(
        [None], lambda _: laid.twin(laid.members), rounds=course.options.few_rounds, clock="wall", checked=1
    )


def _fill(files: list[Path]) -> None:
    """Brings the files into the page cache, from which some systems take what nobody has asked for lately."""
    for file in files:
        file.read_bytes()


def _ours(stores: Stores, output: Path, threads: int, _: Any) -> Path:
    return our_road(stores, output, threads)


def _open(stores: Stores, _: Any) -> None:
    Blend({name: open_store(path) for name, path in stores.items()})


def _write(rows: list[tuple[str, bytes]], output: Path, _: Any) -> Path:
    write_submission(output, rows)
    return output


def _together(processes: SideBySide, stores: Stores, _: Any) -> list[Path]:
    return processes.run(stores)


def _one_text(outputs: list[Path]) -> Any:
    """The rows that all processes wrote, or all of them where they differ."""
    first, *others = [read_rows(output) for output in outputs]
    return first if all(other == first for other in others) else [first, *others]
