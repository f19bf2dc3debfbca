"""The verb: holds the contests that were asked for, and gathers what they gave."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from carvana_ens.errors import UsageError
from carvana_ens.project import Project
from carvana_ens.types import Json, Mask, Say, unsaid
from carvana_ens.verbs.bench import KINDS, PARTS, SCHEMA
from carvana_ens.verbs.bench.bars import Bar, bars
from carvana_ens.verbs.bench.codecs import stores
from carvana_ens.verbs.bench.course import DISTINCT, Course, Options
from carvana_ens.verbs.bench.end_to_end import members, submission
from carvana_ens.verbs.bench.in_memory import blend, curves, read, rle
from carvana_ens.verbs.bench.machine import Machine, machine
from carvana_ens.verbs.bench.maps import SIZE, Facts, Maps, drawn_masks, given_masks, made_maps, stored_maps
from carvana_ens.verbs.bench.peers import Peers
from carvana_ens.verbs.bench.race import Contest

RUN: Mapping[str, Callable[[Course, Maps], Iterator[Contest]]] = {
    "read": read,
    "rle": rle,
    "blend": blend,
    "curve": curves,
    "stores": stores,
    "submission": submission,
    "members": members,
}
"""What holds the contests of each part."""

Report = Callable[[Contest], None]
"""Receives every contest as soon as it is over."""


def unreported(contest: Contest) -> None:
    """A contest shown nowhere."""


@dataclass(frozen=True)
class Benched:
    """started: UTC. maps: what was raced on, by kind."""

    started: str
    machine: Machine
    options: Options
    maps: list[Facts]
    contests: list[Contest]
    bars: list[Bar]

    def to_json(self) -> Json:
        """Plain JSON values under SCHEMA; times in ms per image."""
        document = {"schema": SCHEMA, "unit": "ms per image", **dataclasses.asdict(self)}
        given = document["options"]
        given["size"] = None if self.options.size is None else str(self.options.size)
        given["masks"] = None if self.options.masks is None else str(self.options.masks)
        for facts, mine in zip(document["maps"], self.maps, strict=True):
            facts["size"] = str(mine.size)
        return document


def bench(
    options: Options,
    *,
    project: Project | None = None,
    work: Path | None = None,
    say: Say = unsaid,
    report: Report = unreported,
) -> Benched:
    """Times us beside the peers and the limits; see PARTS and Options.

    project: whose stores are raced on as a third kind. work: the folder for stores and PNGs (default: the system's
    temporary one), a few GB; all is removed at the end. say: told of each step.

    Raises:
        UsageError: unknown parts or kinds, numbers that cannot be meant, or no OpenCV to make maps with.
        DataError: masks or stores that cannot be used.
        CarvanaEnsError: a contestant gave a wrong result.
    """
    _check(options, project)
    started = datetime.now(UTC).isoformat("T", "seconds")
    contests: list[Contest] = []
    facts: list[Facts] = []
    with Peers() as peers:
        for maps in _kinds(options, peers, project, say):
            facts.append(maps.facts)
            say(facts[-1].line)
            for part in options.parts:
                if part == "rle" and maps.kind in KINDS and len(facts) > 1:
                    continue  # these masks have been raced on
                with _working(work) as folder:
                    for contest in RUN[part](Course(options, peers, Path(folder), say), maps):
                        contests.append(contest)
                        report(contest)
    return Benched(started, machine(), options, facts, contests, bars(contests, options, {fact.size for fact in facts}))


def _check(options: Options, project: Project | None) -> None:
    for what, given, known in (("part", options.parts, PARTS), ("kind", options.kinds, KINDS)):
        for name in given:
            if name not in known:
                raise UsageError(f"{what} {name!r} is unknown to bench: there are {', '.join(known)}")
    if not options.kinds and project is None:
        raise UsageError("bench has no maps to race on: name a kind, or a project")
    counts = (options.members, options.images, options.rounds, options.threads, *options.counts)
    if not options.parts or not options.counts or min(counts) < 1:
        raise UsageError("bench needs a part, and members, images, rounds and threads of at least 1")
    if max(options.members, *options.counts) > 256:
        raise UsageError("bench races up to 256 members: the numpy ways add in 16 bits")


def _working(work: Path | None) -> tempfile.TemporaryDirectory[str]:
    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix="carvana-ens-bench-", dir=work)


def _kinds(options: Options, peers: Peers, project: Project | None, say: Say) -> Iterator[Maps]:
    """The maps of one kind after the other, so that only one lies in memory."""
    distinct = min(DISTINCT, options.images)
    if options.kinds:
        cv2 = peers.need("cv2", "making maps from masks")
        masks, source = _masks(cv2, options, distinct)
        for kind in options.kinds:
            yield made_maps(cv2, kind, masks, source, max(options.members, *options.counts))
    if project is not None:
        yield stored_maps(project, distinct, say)


def _masks(cv2: Any, options: Options, count: int) -> tuple[list[Mask], str]:
    """The masks that were named, else Carvana's where CARVANA_ENS_DATA says that they are there, else drawn ones."""
    folder, data = options.masks, os.environ.get("CARVANA_ENS_DATA")
    if folder is None and data:
        folder = Path(data) / "carvana" / "train_masks"
    if folder is None:
        return drawn_masks(count, options.size or SIZE)
    return given_masks(cv2, folder, count, options.size)
