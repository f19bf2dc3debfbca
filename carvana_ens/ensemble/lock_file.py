"""ensemble.lock.json: all that a submission was made of, and what of it differs from something else.

::

    {"schema": 1, "lock": what is compared, "sha256": of that, "made": when and where, compared by nobody}
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from carvana_ens.core.spaces import Space
from carvana_ens.core.weights import parse_threshold
from carvana_ens.data.folds import FoldTable
from carvana_ens.data.ids import listed
from carvana_ens.ensemble.blending import check_cut
from carvana_ens.errors import CarvanaEnsError, ProjectError
from carvana_ens.files import digest, write_text
from carvana_ens.store.schema import FULL_SCALE, DType, Provenance
from carvana_ens.store.store import ProbabilityStore
from carvana_ens.types import Json

SCHEMA = 1
FILE = "ensemble.lock.json"
_HARMLESS = ("checkpoint", "sha256", "out_of_fold")
"""Of a member's config: where its checkpoint lies and what was said of it; its sha256 is compared by itself."""


@dataclass(frozen=True)
class LockedMember:
    """A member of which maps are read. provenance: of its maps, without ``source``. maps: see ``maps_digest``."""

    provenance: Provenance
    dtype: DType
    maps: str

    @classmethod
    def of(cls, store: ProbabilityStore) -> LockedMember:
        """What a store says of itself; where imported maps came from is a path of one machine, and left out."""
        return cls(dataclasses.replace(store.provenance, source=None), store.dtype, maps_digest(store))


@dataclass(frozen=True)
class Lock:
    """What the text of a submission follows from.

    split: whose maps. images, ids_sha256: of the submission. photos_sha256: of the ids of the split's photos; None
    where the project names none. fold_tables: those that members were trained by. weights: integers, coprime, none 0.
    threshold: exact. cut, space: see ``Blend``. steps: whole text, see ``ensemble.steps``; step_packages: the packages
    that have them, with their versions. submission_sha256: of the CSV text, uncompressed.
    """

    carvana_ens: str
    split: str
    images: int
    ids_sha256: str
    photos_sha256: str | None
    members: Mapping[str, LockedMember]
    fold_tables: Mapping[str, FoldTable]
    weights: Mapping[str, int]
    threshold: Fraction
    cut: str
    space: Space
    steps: str
    step_packages: tuple[str, ...]
    submission_sha256: str

    def to_json(self) -> dict[str, Json]:
        """Plain JSON values; ``from_json`` gives the same lock back."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return plain | {
            "members": {name: dataclasses.asdict(member) for name, member in self.members.items()},
            "fold_tables": {name: table.to_json() for name, table in self.fold_tables.items()},
            "weights": dict(self.weights),
            "threshold": str(self.threshold),
            "space": self.space.to_json(),
            "step_packages": list(self.step_packages),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Json]) -> Lock:
        """The lock that ``to_json`` described.

        Raises:
            CarvanaEnsError, ValueError, KeyError, TypeError, AttributeError: it is none.
        """
        values = dict(document)
        values["members"] = {name: _member(member) for name, member in values["members"].items()}
        values["fold_tables"] = {name: FoldTable.from_json(one) for name, one in values["fold_tables"].items()}
        values["threshold"] = parse_threshold(values["threshold"])
        values["space"] = Space.from_json(values["space"])
        values["step_packages"] = tuple(values["step_packages"])
        lock = cls(**values)
        weights = lock.weights
        if not weights or not all(type(weight) is int and weight > 0 for weight in weights.values()):
            raise ValueError(f"weights {weights!r} are not whole numbers above 0")
        if not weights.keys() <= lock.members.keys():
            raise ValueError(f"weights of {listed(weights)}, members {listed(lock.members)}")
        for text in (lock.carvana_ens, lock.split, lock.steps, lock.submission_sha256):
            if not isinstance(text, str):
                raise TypeError(f"{text!r} is no text")
        check_cut(lock.cut, lock.space)
        return lock

    def write(self, path: Path, made: Mapping[str, Json]) -> None:
        """Replaces ``path``; keys are sorted. made: when and where."""
        content = self.to_json()
        document = {"schema": SCHEMA, "lock": content, "sha256": digest(content), "made": dict(made)}
        write_text(path, json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def _member(document: Json) -> LockedMember:
    provenance, dtype, maps = document["provenance"], document["dtype"], document["maps"]
    if dtype not in FULL_SCALE or not isinstance(maps, str):
        raise ValueError(f"maps {maps!r} of {dtype!r}")
    return LockedMember(Provenance.from_json(provenance), dtype, maps)


def read_lock(path: Path) -> Lock:
    """Reads what ``Lock.write`` wrote.

    Raises:
        ProjectError: there is none, or it is damaged, changed, foreign or of another schema.
    """
    try:
        document: Json = json.loads(path.read_bytes())
        schema, content, sha = (document[key] for key in ("schema", "lock", "sha256"))
    except OSError as error:
        raise ProjectError(f"{path} cannot be read: {error.strerror or error}; make it with carvana-ens lock") from None
    except (ValueError, KeyError, TypeError) as error:
        raise _foreign(path, error) from error
    if schema != SCHEMA:
        raise ProjectError(f"{path} is a lock of schema {schema!r}, this version reads {SCHEMA}: lock again")
    if sha != digest(content):
        raise ProjectError(f"{path} was changed after it was made (its sha256 does not fit): restore it")
    try:
        return Lock.from_json(content)
    except (ValueError, KeyError, TypeError, AttributeError, CarvanaEnsError) as error:
        raise _foreign(path, error) from error


def _foreign(path: Path, error: Exception) -> ProjectError:
    told = f"{type(error).__name__}: {error}"
    return ProjectError(f"{path} is no lock of carvana-ens ({told}): make one with carvana-ens lock")


def maps_digest(store: ProbabilityStore) -> str:
    """sha256 (hex) over ids, true sizes and checksums of a store's maps.

    Unlike its fingerprint this leaves out where they came from: the same maps have the same on every machine.
    """
    records = store.records.astype("<u8").tobytes().hex()
    return digest({"ids": list(store.ids), "sizes": [list(size) for size in store.sizes], "records": records})


@dataclass(frozen=True)
class Difference:
    """Something that two sides do not have in common. text: one line. maps: whether maps can differ by it."""

    text: str
    maps: bool


@dataclass(frozen=True)
class Sides:
    """What is compared, in words: ``in the lock`` and ``here``."""

    one: str
    other: str

    def differ(self, what: str, one: Json, other: Json, *, maps: bool = False) -> Iterator[Difference]:
        """The difference of two values, if there is one."""
        if one != other:
            yield Difference(f"{what}: {_words(one)} {self.one}, {_words(other)} {self.other}", maps)


def _words(value: Json) -> str:
    if value is None or value in ("", {}, []):
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    if len(text) == hashlib.sha256().digest_size * 2 and set(text) <= set("0123456789abcdef"):
        return f"sha256 {text[:12]}..."
    return text if len(text) <= 200 else f"{text[:200]}..."


def plugin_words(plugin: Mapping[str, Json] | None) -> str | None:
    """Distribution and version; None where maps were imported."""
    return None if plugin is None else f"{plugin.get('distribution')} {plugin.get('version') or '(unknown version)'}"


def member_differences(name: str, one: Provenance, other: Provenance, sides: Sides) -> Iterator[Difference]:
    """What differs in how the maps of a member are made: its config, plugin, checkpoints and fold table."""
    for key in sorted({*one.member, *other.member}):
        values = one.member.get(key), other.member.get(key)
        yield from sides.differ(f"member {name}, {key}", *values, maps=key not in _HARMLESS)
    yield from sides.differ(f"member {name}, plugin", plugin_words(one.plugin), plugin_words(other.plugin), maps=True)
    for fold in sorted({*one.checkpoints, *other.checkpoints}):
        what = f"member {name}, checkpoint{f' of fold {fold}' if fold else ''}"
        yield from sides.differ(what, one.checkpoints.get(fold), other.checkpoints.get(fold), maps=True)
    digests = [(table or {}).get("digest") for table in (one.fold_table, other.fold_table)]
    yield from sides.differ(f"member {name}, fold table", *digests, maps=True)
    for what in ("seen", "averaging"):
        yield from sides.differ(f"member {name}, {what}", getattr(one, what), getattr(other, what), maps=True)


def lock_differences(one: Lock, other: Lock, sides: Sides) -> list[Difference]:
    """Everything in which two locks differ, in words."""
    found: list[Difference] = []
    for name in sorted({*one.members, *other.members}):
        mine, theirs = one.members.get(name), other.members.get(name)
        if mine is None or theirs is None:
            found.append(Difference(f"member {name}: only {sides.other if mine is None else sides.one}", maps=True))
            continue
        found += member_differences(name, mine.provenance, theirs.provenance, sides)
        found += sides.differ(f"member {name}, codes", mine.dtype, theirs.dtype, maps=True)
        found += sides.differ(f"member {name}, maps", mine.maps, theirs.maps, maps=True)
    for name in sorted({*one.fold_tables} & {*other.fold_tables}):
        moved = _moved(one.fold_tables[name], other.fold_tables[name])
        if moved:
            found.append(Difference(f"fold table {name}: {listed(moved)} are in other folds", maps=True))
    for name in sorted({*one.weights, *other.weights}):
        found += sides.differ(f"weight of {name}", one.weights.get(name, 0), other.weights.get(name, 0))
    found += sides.differ("threshold", str(one.threshold), str(other.threshold))
    found += sides.differ("cut", one.cut, other.cut)
    found += sides.differ("blending space", one.space.kind, other.space.kind)
    if one.space.kind == other.space.kind:
        tables = [lock.space.to_json()["members"] for lock in (one, other)]
        for name in sorted({*tables[0], *tables[1]}):
            shas = [table.get(name, {}).get("sha256") for table in tables]
            found += sides.differ(f"blending space, table of {name}", *shas)
    found += sides.differ("post-processing", one.steps, other.steps)
    found += sides.differ("packages of its steps", ", ".join(one.step_packages), ", ".join(other.step_packages))
    found += sides.differ("split", one.split, other.split)
    found += sides.differ("images", one.images, other.images)
    found += sides.differ("ids of the images", one.ids_sha256, other.ids_sha256)
    found += sides.differ("ids of the photos", one.photos_sha256, other.photos_sha256)
    found += sides.differ("carvana-ens", one.carvana_ens, other.carvana_ens)
    found += sides.differ("text of the submission", one.submission_sha256, other.submission_sha256)
    return found


def _moved(one: FoldTable, other: FoldTable) -> list[str]:
    """Groups that the tables do not have in the same fold."""
    groups = {*one.assignment, *other.assignment}
    return sorted(group for group in groups if one.assignment.get(group) != other.assignment.get(group))
