"""What training reports: each epoch's numbers as a table, and every step's to whoever watches."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from carvana_ens.errors import TrainingError
from carvana_ens.model import FitTask
from carvana_ens.types import Json

HISTORY = "history.csv"
"""The table's file, beside the checkpoints of a fold."""
COLUMNS = ("epoch", "loss", "dice", "rate", "seconds", "images_per_second", "valid_loss", "stage", "size")
"""loss: mean over the training photos. dice, valid_loss: of validation, empty where there was none. rate: of the last
step. seconds: the epoch with its validation. images_per_second: of training, in all processes. stage: from 1. size: of
the network's input.
"""
VALIDATED = ("dice", "valid_loss")


@dataclass(frozen=True)
class WatchedTask(FitTask):
    """A fold whose training is watched: ``watch`` is called after each step with ``epoch``, ``epochs``, ``step``,
    ``steps``, ``loss`` (mean of the epoch so far), ``images_per_second``, ``seconds_left`` (of the whole fold) and,
    after a validation, ``dice``.
    """

    watch: Callable[[Mapping[str, float]], None]


def unwatched(numbers: Mapping[str, float]) -> None:
    """Nobody watches."""


def history_text(rows: Sequence[Mapping[str, Json]]) -> str:
    """The epochs as CSV with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_history(path: Path) -> list[dict[str, Json]]:
    """The epochs of a fold from the file that training wrote: numbers, None where there is none, and ``size`` as text.

    Raises:
        TrainingError: it cannot be read, or is no such table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise ValueError(f"its columns are {', '.join(reader.fieldnames or ['none'])}")
            return [{name: _value(name, text) for name, text in row.items()} for row in reader]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise TrainingError(f"{path} cannot be read ({error}): train the fold anew to have it again") from error


def _value(name: str, text: str | None) -> Json:
    if text is None:
        raise ValueError(f"a row has no {name}")
    if name == "size":
        return text
    return int(text) if name in ("epoch", "stage") else float(text) if text or name not in VALIDATED else None


def scores(rows: Sequence[Mapping[str, Json]], best_by: str) -> list[float]:
    """The validations among the epochs, the higher the better: Dice, or the loss with a minus."""
    measured = [row for row in rows if row["dice"] is not None]
    return [row["dice"] if best_by == "dice" else -row["valid_loss"] for row in measured]


def waited(values: Sequence[float], delta: float) -> int:
    """Validations since the last that was better than all before it by more than ``delta``."""
    best, since = values[0] if values else 0.0, 0
    for value in values[1:]:
        since = 0 if value > best + delta else since + 1
        best = value if since == 0 else best
    return since
