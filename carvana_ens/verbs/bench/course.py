"""What all parts share: what was asked for, the peers, the folder to work in, and how a contest is held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from carvana_ens.types import Say, Size
from carvana_ens.verbs.bench import COUNTS, KINDS, PARTS
from carvana_ens.verbs.bench.machine import cache_bytes
from carvana_ens.verbs.bench.peers import Peers
from carvana_ens.verbs.bench.race import Clock, Contest, Contestant, Heading, race

DISTINCT = 8
"""Pictures that are made; more images are these, moved."""
PEER_IMAGES = 8
"""Images a round for roads that take a tenth of a second an image."""
MEMBER_IMAGES = 64
"""Images in the part "members", at most."""
LEAST_MEMORY, MOST_MEMORY = 160 << 20, 640 << 20


@dataclass(frozen=True)
class Options:
    """What is asked for.

    parts: names of PARTS. kinds: names of KINDS, and "stored" where a project is given. size: HxW; None: the masks'
    own, or Carvana's. masks: where masks are. members, images: how many. counts: members in the part "members".
    rounds: how often each contestant has its turn; slow peers have half as many. threads: beside as many processes.
    clock: "wall", or "cpu" (CPU time of this process) for what runs in one thread.
    """

    parts: tuple[str, ...] = tuple(PARTS)
    kinds: tuple[str, ...] = tuple(KINDS)
    size: Size | None = None
    masks: Path | None = None
    members: int = 8
    counts: tuple[int, ...] = COUNTS
    images: int = 256
    rounds: int = 9
    threads: int = 2
    clock: Clock = "wall"

    @property
    def few_rounds(self) -> int:
        """Rounds where a slow peer takes part."""
        return (self.rounds + 1) // 2


@dataclass
class Course:
    """One run of bench. folder: for what must lie on the disk."""

    options: Options
    peers: Peers
    folder: Path
    say: Say

    def many(self, items: Sequence[Any], copy: Callable[[Any], Any], size: int) -> list[Any]:
        """The items again and again in fresh memory, more of it than the last-level cache (at most 640 MB).

        copy: of one item. size: its bytes.
        """
        wanted = min(max(LEAST_MEMORY, cache_bytes() * 5 // 4), MOST_MEMORY)
        return [copy(items[number % len(items)]) for number in range(max(len(items), -(-wanted // size)))]


@dataclass
class Field:
    """The contestants of one contest, as they come in; peers that are not installed are written down."""

    course: Course
    heading: Heading
    contestants: list[Contestant] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, *contestants: Contestant) -> None:
        """Takes contestants in."""
        self.contestants += contestants

    def invite(self, *modules: str, make: Callable[..., Sequence[Contestant]]) -> None:
        """Takes in what ``make`` gives for the modules, or notes what is not installed."""
        missing = self.course.peers.missing(*modules)
        self.left_out += [name for name in missing if name not in self.left_out]
        if not missing:
            self.add(*make(*(self.course.peers.find(module) for module in modules)))

    def race(
        self,
        items: Sequence[Any],
        twin: Callable[[Any], Any],
        *,
        rounds: int | None = None,
        clock: Clock | None = None,
        checked: int = 2,
    ) -> Contest:
        """Holds the contest; see ``race``."""
        self.course.say(f"racing: {self.heading.title} ({self.heading.kind})")
        return race(
            self.heading,
            self.contestants,
            items,
            twin,
            rounds=rounds or self.course.options.rounds,
            clock=clock or self.course.options.clock,
            checked=checked,
            left_out=self.left_out,
        )
