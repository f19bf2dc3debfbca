"""Fold tables: which groups each fold model must not see.

A table is made once, kept as a file, and is the only truth about who has seen what; nothing is drawn again later.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from carvana_ens.data.stratify import dealt, shuffled
from carvana_ens.errors import DataError, ProjectError, UsageError
from carvana_ens.files import digest as json_digest
from carvana_ens.files import write_json
from carvana_ens.types import Json

SCHEMA = 1
NEVER = -1
"""The fold of a group that is always trained on and never held out."""

Rule: TypeAlias = Literal["rank", "histogram"]
"""How groups go to folds by their mask area; see ``make_folds``."""
RULES = get_args(Rule)


@dataclass(frozen=True)
class FoldTable:
    """Assigns each group to the fold that holds it out.

    name: as the project calls it. folds: their number K. holdout: the share of groups held out when K is 1, else
    None. seed: what the table was drawn with. assignment: fold 0..K-1 of each group, or ``NEVER``. rule: of the
    drawing. by_view: the view whose mask area it went by; None: all views. group_pattern: by which ids have their
    group; None: the default one, or a table from before patterns were kept.
    """

    name: str
    folds: int
    holdout: float | None
    seed: int
    assignment: Mapping[str, int]
    rule: Rule = "rank"
    by_view: str | None = None
    group_pattern: str | None = None

    @property
    def digest(self) -> str:
        """sha256 (hex) of everything that the table says."""
        return json_digest(self._content())

    def held_out(self, fold: int, groups: Mapping[str, str]) -> tuple[str, ...]:
        """The ids that a fold holds out, sorted.

        Args:
            fold: 0..K-1.
            groups: the group of each id, see :func:`carvana_ens.data.ids.groups`.

        Raises:
            DataError: a group that the table does not have.
            UsageError: no such fold.
        """
        return self._select(fold, groups, held_out=True)

    def trained_on(self, fold: int, groups: Mapping[str, str]) -> tuple[str, ...]:
        """The ids that a fold's model is trained on, sorted: all that the fold does not hold out.

        Raises:
            DataError, UsageError: as for :meth:`held_out`.
        """
        return self._select(fold, groups, held_out=False)

    def check(self, groups: Mapping[str, str], pattern: str | None = None) -> None:
        """Refuses images of groups that the table does not have.

        Args:
            groups: the group of each id.
            pattern: by which they were found, as for :func:`carvana_ens.data.ids.groups`.

        Raises:
            DataError: names the first, and whether the pattern is another than the table was made with.
        """
        unknown = {group: image_id for image_id, group in groups.items() if group not in self.assignment}
        if not unknown:
            return
        first = min(unknown)
        if pattern == self.group_pattern:
            reason = "photos were added after it was made; remove it to make it anew (and train again)"
        else:
            was, now = (_named(one) for one in (self.group_pattern, pattern))
            reason = f"it was made with {was}, now there is {now}; change it back, or remove the table to make it anew"
        raise DataError(
            f"fold table {self.name!r} does not know group {first!r} (image {unknown[first]!r}; {len(unknown)} groups "
            f"in all): {reason}"
        )

    def to_json(self) -> dict[str, Json]:
        """Plain JSON values with a schema number and the digest; ``from_json`` gives the same table back."""
        return {"schema": SCHEMA, **self._content(), "digest": self.digest}

    @classmethod
    def from_json(cls, document: Json) -> FoldTable:
        """The table that ``to_json`` described.

        Raises:
            ProjectError: another schema, a missing or impossible value, or a digest that is not the content's.
        """
        schema = document.get("schema") if isinstance(document, dict) else None
        if schema != SCHEMA:
            raise ProjectError(
                f"a fold table of schema {schema!r} cannot be read by this version, which knows {SCHEMA}"
            )
        table = _from_content(document)
        if document.get("digest") != table.digest:
            raise ProjectError(
                f"the fold table {table.name!r} was edited after it was made (its digest does not fit): models trained "
                f"with it may have seen other groups than it says; restore the file, or make a new table"
            )
        return table

    def _content(self) -> dict[str, Json]:
        # left out as long as they say nothing new, so that tables from before they existed keep their digest
        later: dict[str, Json] = {"rule": self.rule} if self.rule != "rank" else {}
        later |= {"by_view": self.by_view} if self.by_view is not None else {}
        later |= {"group_pattern": self.group_pattern} if self.group_pattern is not None else {}
        return {
            **later,
            "name": self.name,
            "folds": self.folds,
            "holdout": self.holdout,
            "seed": self.seed,
            "assignment": {group: self.assignment[group] for group in sorted(self.assignment)},
        }

    def _select(self, fold: int, groups: Mapping[str, str], *, held_out: bool) -> tuple[str, ...]:
        if not 0 <= fold < self.folds:
            raise UsageError(f"fold table {self.name!r} has no fold {fold}: it has 0..{self.folds - 1}")
        for image_id, group in groups.items():
            if group not in self.assignment:
                raise DataError(
                    f"group {group!r} (image {image_id!r}) is not in fold table {self.name!r}: photos were added or "
                    f"the group pattern was changed after it was made; make a new fold table under another name"
                )
        return tuple(sorted(i for i, group in groups.items() if (self.assignment[group] == fold) is held_out))


def make_folds(
    name: str,
    areas: Mapping[str, float],
    folds: int,
    holdout: float | None = None,
    seed: int = 0,
    *,
    rule: Rule = "rank",
    by_view: str | None = None,
    group_pattern: str | None = None,
) -> FoldTable:
    """Draws a fold table in which every fold has small and large objects alike.

    Both rules are of winners of the Carvana challenge (asanakoy/kaggle_carvana_segmentation). ``rank``, albu's: the
    groups in the order of their mask area, ties by name, go to the folds in turn, fold = rank % K. With a seed other
    than 0, each run of K neighbours in that order is shuffled first. One fold with a hold-out takes one group out of
    each of n equal stretches of that order. ``histogram``, asanakoy's: see :func:`carvana_ens.data.stratify.dealt`.

    Args:
        name: of the table.
        areas: mask area of each group, in any one unit.
        folds: K, from 1 to the number of groups.
        holdout: for K = 1, and only then: the share of the groups to hold out, in (0, 1). At least one group is held
            out and at least one is not.
        seed: the same on every machine.
        rule: how groups go to folds; ``histogram`` for two folds or more.
        by_view: whose areas these are, for the record; None: of all views together.
        group_pattern: by which ids have their group, for the record; None: the default one.

    Raises:
        UsageError: no such rule, or folds and holdout that cannot be meant together or for so few groups.
        DataError: no groups, or an area that is negative or not finite.
    """
    for group, area in areas.items():
        if not (math.isfinite(area) and area >= 0):
            raise DataError(f"the mask area of group {group!r} is {area}: it must be a finite number from 0")
    if not areas:
        raise DataError(f"fold table {name!r} cannot be made: there are no groups")
    if folds < 1 or folds > len(areas):
        raise UsageError(f"{folds} folds cannot be made of {len(areas)} groups: ask for 1..{len(areas)}")
    check_rule(rule, folds)
    ranked = sorted(areas, key=lambda group: (areas[group], group))
    if folds == 1:
        return FoldTable(
            name, 1, holdout, seed, _hold_out(ranked, holdout, seed), by_view=by_view, group_pattern=group_pattern
        )
    if holdout is not None:
        raise UsageError(f"{folds} folds and a hold-out of {holdout} cannot be meant together: give one of them")
    if rule == "histogram":
        return FoldTable(name, folds, None, seed, dealt(areas, folds, seed), rule, by_view, group_pattern)
    assignment = {
        group: fold
        for start in range(0, len(ranked), folds)
        for fold, group in enumerate(_shuffled(ranked[start : start + folds], seed))
    }
    return FoldTable(name, folds, None, seed, assignment, rule, by_view, group_pattern)


def check_rule(rule: str, folds: int | None) -> None:
    """Refuses a rule that is none, or that does not go with the number of folds (None: not yet known).

    Raises:
        UsageError: the same.
    """
    if rule not in RULES:
        raise UsageError(f"{rule!r} is no rule to make folds by: take one of {', '.join(RULES)}")
    if rule == "histogram" and folds == 1:
        raise UsageError("rule histogram deals groups to two folds or more: take rule rank for one hold-out")


def write_folds(path: Path, table: FoldTable) -> None:
    """Writes the table as JSON; a stop leaves the old file or the new.

    Raises:
        CarvanaEnsError: the file cannot be written.
    """
    write_json(path, table.to_json())


def read_folds(path: Path) -> FoldTable:
    """Reads and checks a table.

    Raises:
        ProjectError: no such file, no JSON, or see :meth:`FoldTable.from_json`.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ProjectError(f"the fold table {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ProjectError(f"the fold table {path} is no JSON file: {error}; restore it") from error
    try:
        return FoldTable.from_json(document)
    except ProjectError as error:
        raise ProjectError(f"{path}: {error}") from error


def _hold_out(ranked: list[str], holdout: float | None, seed: int) -> dict[str, int]:
    if len(ranked) < 2:
        raise UsageError(
            "all photos are of one group, so none can be held out: add photos of others, or say with data.group in "
            "ensemble.toml what a group is"
        )
    if holdout is None:
        raise UsageError("one fold needs a hold-out: give its share of the groups, --holdout 0.2 or holdout = 0.2")
    if not 0 < holdout < 1:
        raise UsageError(f"a hold-out of {holdout} is no share of the groups: give a number between 0 and 1")
    count = min(max(round(holdout * len(ranked)), 1), len(ranked) - 1)
    assignment = dict.fromkeys(ranked, NEVER)
    for index in range(count):
        stretch = ranked[index * len(ranked) // count : (index + 1) * len(ranked) // count]
        middle = len(stretch) // 2 if seed == 0 else 0
        assignment[_shuffled(stretch, seed)[middle]] = 0
    return assignment


def _named(pattern: str | None) -> str:
    return "the default group pattern" if pattern is None else f"the group pattern {pattern!r}"


def _shuffled(groups: list[str], seed: int) -> list[str]:
    """The groups in an order that the seed draws; seed 0: as they are."""
    return groups if seed == 0 else shuffled(groups, seed)


def _from_content(document: dict[str, Json]) -> FoldTable:
    name, folds, holdout, seed = (document.get(key) for key in ("name", "folds", "holdout", "seed"))
    assignment = document.get("assignment")
    if not isinstance(name, str) or type(folds) is not int or folds < 1 or type(seed) is not int:
        raise ProjectError("a fold table needs name, folds (from 1) and seed: restore the file")
    if holdout is not None and type(holdout) is not float:
        raise ProjectError(f"fold table {name!r} has a hold-out of {holdout!r}, which is no share: restore the file")
    if not isinstance(assignment, dict) or not all(
        type(fold) is int and NEVER <= fold < folds for fold in assignment.values()
    ):
        raise ProjectError(f"fold table {name!r} needs an assignment of each group to 0..{folds - 1}: restore the file")
    rule, by_view, pattern = document.get("rule", "rank"), document.get("by_view"), document.get("group_pattern")
    if rule not in RULES or not (by_view is None or isinstance(by_view, str)):
        raise ProjectError(
            f"fold table {name!r} was made by rule {rule!r} of view {by_view!r}, which this version does not know: "
            f"restore the file, or upgrade carvana-ens"
        )
    if not (pattern is None or isinstance(pattern, str)):
        raise ProjectError(
            f"fold table {name!r} has a group pattern of {pattern!r}, which is no text: restore the file"
        )
    return FoldTable(name, folds, holdout, seed, assignment, rule, by_view, pattern)
