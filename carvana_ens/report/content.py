"""What a report shows, as plain values: whoever makes one fills this in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

Curve: TypeAlias = Sequence[tuple[float, float]]
"""(x, y) points, x rising."""


@dataclass(frozen=True)
class Estimate:
    """A number, and between what it lies with confidence ``level``; None where nobody can say."""

    mean: float
    low: float | None = None
    high: float | None = None
    level: float = 0.95


@dataclass(frozen=True)
class Fact:
    """A number worth large letters. note: what it means, in a line."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class MemberRow:
    """A member of the ensemble.

    weight: integer. share: of the sum of weights, 0..1. fold_shares: the same as searched without each fold. alone: its
    score at its own best threshold. buys: gain in honest Dice beside all others. could_go: that it and the others named
    so could all go. seconds: a photo; megabytes: of a map.
    """

    name: str
    model: str
    weight: int
    share: float
    alone: float
    fold_shares: Sequence[float] = ()
    buys: Estimate | None = None
    could_go: bool = False
    seconds: float | None = None
    megabytes: float | None = None


@dataclass(frozen=True)
class Candidate:
    """An ensemble of some members. dice: honest."""

    members: Sequence[str]
    dice: float
    seconds: float
    on_front: bool


@dataclass(frozen=True)
class TrainingFold:
    """Numbers by epoch of one fold; empty where there are none."""

    fold: int
    loss: Curve
    valid_loss: Curve
    dice: Curve


@dataclass(frozen=True)
class Tried:
    """Something that was tried beside what stands. gain: in honest Dice."""

    name: str
    gain: Estimate
    kept: bool
    reason: str = ""


@dataclass(frozen=True)
class Picture:
    """An image to look at. image: encoded, of type ``mime``. caption: beside its id."""

    image_id: str
    caption: str
    image: bytes
    mime: str = "image/jpeg"


@dataclass(frozen=True)
class Report:
    """Everything on the page; what is empty is left out.

    title, subtitle: of the page. facts: the numbers at its top. remarks: sentences below them. metric: what tuning made
    large. members: in order. curves: Dice by threshold, by name. threshold: the one that was chosen. agreement: share
    of the pixels that one of two members gets wrong which both do, members in the order of ``members``. ensembles:
    of some of the members. tried: blending spaces, steps of post-processing. tta: gains of test-time augmentation.
    histories: of trained members. worst: out-of-fold photos with truth. odd: photos without, worth a look.
    sources: name and hash or version of what it was made from.
    """

    title: str
    subtitle: str
    facts: Sequence[Fact]
    metric: str
    threshold: float
    remarks: Sequence[str] = ()
    members: Sequence[MemberRow] = ()
    curves: Mapping[str, Curve] = field(default_factory=dict)
    agreement: Sequence[Sequence[float]] = ()
    ensembles: Sequence[Candidate] = ()
    tried: Sequence[Tried] = ()
    tta: Sequence[Tried] = ()
    histories: Mapping[str, Sequence[TrainingFold]] = field(default_factory=dict)
    worst: Sequence[Picture] = ()
    odd: Sequence[Picture] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
