"""tuning.json: tuned weights and threshold, with the hashes of what they came from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from carvana_ens.errors import ProjectError, StaleError
from carvana_ens.files import write_json
from carvana_ens.store.store import ProbabilityStore
from carvana_ens.types import Json

SCHEMA = 1


@dataclass(frozen=True)
class Tuning:
    """What ``tune`` found.

    weights: integer blend weights by member, of all that were searched (0: not chosen). threshold: exact, ``k/S``.
    metric, images: what was scored, on how many images. scores: mean Dice of "tuned", "equal" and "best single",
    each at its own best threshold; all on the maps that were tuned on, so none is an honest estimate. singles: of
    every member alone. fingerprints: of each member's out-of-fold store.
    """

    weights: Mapping[str, int]
    threshold: str
    images: int
    scores: Mapping[str, float]
    singles: Mapping[str, float]
    fingerprints: Mapping[str, str]
    metric: str = "mean Dice"

    def write(self, path: Path) -> None:
        """Replaces ``path``."""
        write_json(path, {"schema": SCHEMA, **dataclasses.asdict(self)})


def read_tuning(path: Path) -> Tuning:
    """Reads what ``Tuning.write`` wrote.

    Raises:
        ProjectError: there is none, or it is damaged or of another schema.
    """
    try:
        document: Json = json.loads(path.read_text(encoding="utf-8"))
        schema = document.pop("schema")
        if schema != SCHEMA:
            raise ProjectError(f"{path} has schema {schema!r}, this version reads {SCHEMA}: run carvana-ens tune again")
        tuning = Tuning(**document)
        _check(tuning)
        return tuning
    except FileNotFoundError:
        raise ProjectError(f"{path} is not there: run carvana-ens tune first") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProjectError(f"{path} cannot be read ({error}): run carvana-ens tune again") from error


def _check(tuning: Tuning) -> None:
    weights = tuning.weights
    if not all(type(weight) is int and weight >= 0 for weight in weights.values()) or not any(weights.values()):
        raise ValueError(f"weights {weights!r} are not whole numbers from 0, one of them above 0")
    if tuning.fingerprints.keys() != weights.keys() or not isinstance(tuning.threshold, str):
        raise ValueError("it needs a threshold, and a fingerprint for each weight")


def check_members(path: Path, tuning: Tuning, members: Collection[str]) -> None:
    """Refuses tuned values of members that are not in the project any more.

    Raises:
        StaleError: names the member.
    """
    for name in tuning.weights:
        if name not in members:
            raise StaleError(f"{path} was made with member {name}, which is gone: run carvana-ens tune again")


def check_fresh(
    path: Path, tuning: Tuning, oof: Mapping[str, ProbabilityStore], used: Mapping[str, ProbabilityStore]
) -> None:
    """Refuses tuned values whose sources have changed since.

    oof: the out-of-fold stores of the tuned members as they are now. used: the stores that are about to be blended.

    Raises:
        StaleError: names the member and what changed.
    """
    for name, fingerprint in tuning.fingerprints.items():
        if oof[name].fingerprint() != fingerprint:
            raise StaleError(
                f"{path} is stale: the out-of-fold maps of {name} changed since; run carvana-ens tune again"
            )
    for name, store in used.items():
        mine, theirs = store.provenance, oof[name].provenance
        if mine.member != theirs.member or mine.checkpoints != theirs.checkpoints or mine.plugin != theirs.plugin:
            raise StaleError(
                f"{path} does not fit {store.path}: its maps come from another config, checkpoint or plugin version of "
                f"{name} than the out-of-fold maps; run carvana-ens predict {name} again, then tune"
            )
