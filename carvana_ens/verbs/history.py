"""history: how members were trained, epoch by epoch, as numbers and as a picture."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carvana_ens.errors import ProjectError
from carvana_ens.learn.history import HISTORY, read_history
from carvana_ens.output.drawing import check_suffix
from carvana_ens.project import Project
from carvana_ens.report.training import Course, Trained, draw_training
from carvana_ens.types import Json

PICTURE = "history.png"
"""What training draws of a member, beside the folders of its folds."""


@dataclass(frozen=True)
class FoldHistory:
    """rows: an epoch each; see ``learn.history.COLUMNS``."""

    member: str
    fold: int
    rows: Sequence[Mapping[str, Json]]

    @property
    def best(self) -> Mapping[str, Json] | None:
        """The epoch of the highest Dice of the last stage; None before its first validation."""
        last = [row for row in self.rows if row["stage"] == self.rows[-1]["stage"] and row["dice"] is not None]
        return max(last, key=lambda row: float(row["dice"]), default=None)

    @property
    def seconds(self) -> float:
        """Of all epochs."""
        return sum(float(row["seconds"]) for row in self.rows)


def history(project: Project, members: Sequence[str] = (), output: Path | None = None) -> list[FoldHistory]:
    """The epochs of every fold that the named members (default: all) have trained; drawn into ``output`` if given.

    Folds in training are among them, as far as they are.

    Raises:
        UsageError: an unknown member, or a picture that is neither ``.png`` nor ``.jpg``.
        ProjectError: none of them has trained for an epoch, or a named one has not.
        TrainingError: a history cannot be read.
    """
    if output is not None:
        check_suffix(output)
    found: list[FoldHistory] = []
    for config in project.select(members):
        own = _folds(project, config.name)
        if members and not own:
            raise ProjectError(f"{config.name} has no history of training: carvana-ens train {config.name} makes one")
        found += own
    if not found:
        raise ProjectError(f"no member of {project.root} has a history of training: carvana-ens train makes one")
    if output is not None:
        _draw(found, output)
    return found


def draw_member(project: Project, member: str) -> None:
    """Draws what there is of a member's history into its folder of checkpoints; nothing if there is none.

    Raises:
        TrainingError: a history cannot be read; a model that trains itself may keep one in a form of its own.
    """
    folds = _folds(project, member)
    if folds:
        _draw(folds, project.root / "checkpoints" / member / PICTURE)


def _folds(project: Project, member: str) -> list[FoldHistory]:
    numbers: dict[int, Path] = {}
    for path in (project.root / "checkpoints" / member).glob(f"fold*/{HISTORY}"):
        number = path.parent.name.removeprefix("fold")
        if number.isdecimal():
            numbers[int(number)] = path
    read = [FoldHistory(member, number, read_history(numbers[number])) for number in sorted(numbers)]
    return [fold for fold in read if fold.rows]


def _draw(folds: Sequence[FoldHistory], output: Path) -> None:
    members = dict.fromkeys(fold.member for fold in folds)
    draw_training([_trained([fold for fold in folds if fold.member == member]) for member in members], output)


def _trained(folds: Sequence[FoldHistory]) -> Trained:
    courses = []
    for fold in folds:
        loss, held_out_loss, dice, rate = (_points(fold, name) for name in ("loss", "valid_loss", "dice", "rate"))
        best = None if fold.best is None else (int(fold.best["epoch"]), float(fold.best["dice"]))
        courses.append(Course(fold.fold, loss, held_out_loss, dice, rate, best))
    return Trained(folds[0].member, courses, _stages(folds))


def _points(fold: FoldHistory, name: str) -> list[tuple[float, float]]:
    return [(int(row["epoch"]), float(row[name])) for row in fold.rows if row[name] is not None]


def _stages(folds: Sequence[FoldHistory]) -> list[tuple[int, str]]:
    """First epochs of the stages after the first, of the fold that has the most epochs, and what they train at."""
    rows: Sequence[Mapping[str, Any]] = max((fold.rows for fold in folds), key=len)
    return [(int(b["epoch"]), str(b["size"])) for a, b in itertools.pairwise(rows) if a["stage"] != b["stage"]]
