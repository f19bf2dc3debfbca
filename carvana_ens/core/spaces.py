"""Blending spaces: what a member's codes count as before they are weighted, as tables of whole numbers.

Without a space a pixel is on when sum(w_i code_i) >= ceil(t S sum(w_i)). With one it is on when
sum(w_i table_i[code_i]) >= ceil(t 65535 sum(w_i)): a table is monotone, so all that holds for codes (bounds, disputed
pixels, exactness) holds for its values, and the kernels are the same. The tables themselves are what is kept on disk,
not only the parameters that they came from: exp and log may differ in the last bit from one machine to the next.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carvana_ens.core import space_kernels as kernels
from carvana_ens.core.blend import FULL_SCALE, StackedCodes, check_stack
from carvana_ens.core.jit import run
from carvana_ens.errors import DataError, UsageError
from carvana_ens.types import Bits, Json

Table = NDArray[np.uint16]
"""(256,) for uint8 codes or (65536,) for uint16 codes: a value 0..65535 for each code, non-decreasing."""

Tables = NDArray[np.uint16]
"""(M, S + 1) those of all members of a stack with full scale S."""

SCALE = 65535
"""Full scale of the values, whatever that of the codes is."""

KINDS = ("probability", "logit", "rank", "temperature", "vote")
"""What there is; see ``core/space_tables.py`` for how each table is made."""

PROBABILISTIC = ("probability", "temperature")
"""Spaces whose values are probabilities."""

SCHEMA = 1


@dataclass(frozen=True, eq=False)
class MemberTable:
    """The table of one member, and the numbers that it was made from (JSON, for people to read)."""

    values: Table
    parameters: Mapping[str, Json]

    def __post_init__(self) -> None:
        """Refuses what is no table.

        Raises:
            DataError: another dtype or length, or a value smaller than the one before it.
        """
        values = self.values
        if values.dtype != np.uint16 or values.shape not in ((256,), (65536,)):
            raise DataError(f"a table is {values.dtype} {values.shape}: it must be uint16 (256,) or (65536,)")
        if (values[1:] < values[:-1]).any():
            code = int(np.flatnonzero(values[1:] < values[:-1])[0]) + 1
            raise DataError(
                f"a table falls from {values[code - 1]} to {values[code]} at code {code}: tables never fall"
            )

    @property
    def full_scale(self) -> int:
        """S of the codes that it is for."""
        return self.values.size - 1


@dataclass(frozen=True, eq=False)
class Space:
    """A blending space. kind: one of ``KINDS``. members: their tables by name; of "probability" none."""

    kind: str = "probability"
    members: Mapping[str, MemberTable] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses what is no space.

        Raises:
            DataError: an unknown kind, tables of the probability space, or none of another.
        """
        if self.kind not in KINDS:
            raise DataError(f"a blending space is of kind {self.kind!r}: there are {', '.join(KINDS)}")
        if (self.kind == "probability") == bool(self.members):
            raise DataError(
                f"the space {self.kind!r} has {len(self.members)} tables: probability has none, others one a member"
            )

    def tables(self, names: Sequence[str]) -> tuple[Table, ...]:
        """The tables of these members, in this order; () where codes count as they are.

        Raises:
            UsageError: a member without a table.
        """
        if self.kind == "probability":
            return ()
        self._check(names)
        return tuple(self.members[name].values for name in names)

    def thresholds(self, low: Fraction, high: Fraction, names: Sequence[str] = ()) -> tuple[Fraction, Fraction]:
        """Thresholds of the space between which to search for what low..high means to probabilities.

        The least and the greatest value that a code at low and at high has in one of these members (none given: all).
        Where each member votes, any threshold may be meant: all of (0, 1].

        Raises:
            UsageError: a member without a table.
        """
        if self.kind == "probability":
            return low, high
        self._check(names)
        if self.kind == "vote":
            return Fraction(1, SCALE), Fraction(1)
        tables = [self.members[name] for name in names or self.members]
        least = min(int(table.values[math.ceil(low * table.full_scale)]) for table in tables)
        most = max(int(table.values[math.ceil(high * table.full_scale)]) for table in tables)
        return Fraction(max(least, 1), SCALE), Fraction(max(most, 1), SCALE)

    def _check(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.members:
                raise UsageError(
                    f"the space {self.kind} has no table of member {name!r}, only of {', '.join(self.members)}: fit it "
                    f"on all members"
                )

    def to_json(self) -> Json:
        """What ``from_json`` reads, on any machine: a table as base64 of little-endian uint16, with its sha256."""
        return {
            "schema": SCHEMA,
            "kind": self.kind,
            "members": {name: _table_json(table) for name, table in self.members.items()},
        }

    @classmethod
    def from_json(cls, document: Json) -> Space:
        """Reads what ``to_json`` gave.

        Raises:
            DataError: another schema, or tables that are damaged or missing.
        """
        try:
            schema = document["schema"]
            if schema != SCHEMA:
                raise DataError(f"a blending space has schema {schema!r}, this version reads {SCHEMA}: tune again")
            return cls(document["kind"], {name: _table(name, found) for name, found in document["members"].items()})
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"a blending space cannot be read ({type(error).__name__}: {error}): tune again") from error


def check_kind(kind: str) -> None:
    """Refuses what is no blending space.

    Raises:
        UsageError: an unknown name.
    """
    if kind not in KINDS:
        raise UsageError(f"blending space {kind!r} is unknown: there are {', '.join(KINDS)}")


def look_up(table: Table, codes: NDArray[Any], out: Table) -> None:
    """Writes table[code] of each pixel into out.

    codes: (P,) C-contiguous, uint8 for a table of 256, uint16 for one of 65,536. out: (P,) uint16, C-contiguous; codes
    itself will do.

    Raises:
        UsageError: a shape or dtype that is not as above.
    """
    if table.dtype != np.uint16 or FULL_SCALE.get(codes.dtype, 0) != table.size - 1:
        raise UsageError(
            f"a table of {table.dtype} {table.shape} is not for codes of {codes.dtype}: uint8 codes take 256 values, "
            f"uint16 codes 65536"
        )
    if out.dtype != np.uint16 or out.shape != codes.shape or out.ndim != 1:
        raise UsageError(f"codes {codes.shape} cannot be looked up into {out.dtype} {out.shape}: give uint16 (P,) both")
    run(kernels.look_up, table, codes, out)


def scaled_tables(tables: Sequence[Table], full_scale: int) -> Tables:
    """The tables of all members for stacks of one scale; in uint16 stacks uint8 codes are multiplied by 257.

    full_scale: of the stacks, 255 or 65535.

    Raises:
        UsageError: no tables, or one for uint16 codes where the stacks are uint8.
    """
    if not tables or any(table.size - 1 > full_scale for table in tables):
        raise UsageError(
            f"tables of {[table.size for table in tables]} values are not for codes of 0..{full_scale}: fit the space "
            f"on maps like these"
        )
    codes = np.arange(full_scale + 1)
    return np.stack([table[codes // (full_scale // (table.size - 1))] for table in tables])


def first_codes(tables: Tables, value: int) -> NDArray[np.int64]:
    """(M,) the first code of each member whose value is at least this one; S + 1 where there is none."""
    return np.array([np.searchsorted(table, value) for table in tables], np.int64)


class SpaceBlend:
    """Blends of stacks of codes in a space, cut at one threshold."""

    def __init__(self, tables: Tables, weights: NDArray[np.uint32], cut_sum: int) -> None:
        """tables: as ``scaled_tables`` gives them. weights: (M,) uint32, each above 0, sum at most 2**16. cut_sum: as
        ``weights.cut_sum`` gives it for full scale 65535.

        Raises:
            UsageError: another number of weights, one that is 0, or a cut outside 1..65535 W.
        """
        total = int(weights.sum(dtype=np.uint64))
        if len(tables) != weights.size or not weights.all() or not 1 <= cut_sum <= SCALE * total:
            raise UsageError(
                f"{len(tables)} tables, weights {weights.tolist()} and a cut sum of {cut_sum} are no blend: give one "
                f"table a weight, weights above 0 and a cut sum in 1..{SCALE * total}"
            )
        self._tables, self._weights, self._cut_sum = tables, weights, np.uint64(cut_sum)
        self._firsts = first_codes(tables, -(-cut_sum // total))

    def bits(self, codes: StackedCodes) -> Bits:
        """The mask as bit words; codes: (M, P) C-contiguous.

        Raises:
            UsageError: another shape or dtype.
        """
        codes, weights, _ = check_stack(codes, self._weights)
        check_scale(codes, self._tables)
        bits = np.empty(-(-codes.shape[1] // 64), np.uint64)
        run(kernels.blend_values, codes, self._tables, self._firsts, weights, self._cut_sum, bits)
        return bits


def bound_values(codes: StackedCodes, tables: Tables, low: int, high: int) -> tuple[Bits, Bits]:
    """Bit words of the pixels where any value is at least low, and where every value is at least high.

    codes: (M, P) C-contiguous. low, high: 1..65535.

    Raises:
        UsageError: codes of another dtype or another number of members than the tables are for.
    """
    check_scale(codes, tables)
    possible, certain = (np.empty(-(-codes.shape[1] // 64), np.uint64) for _ in range(2))
    lows, highs = first_codes(tables, low), first_codes(tables, high)
    run(kernels.bound_values, codes, lows, highs, tables.shape[1], possible, certain)
    return possible, certain


def check_scale(codes: StackedCodes, tables: Tables) -> None:
    """Refuses a stack that tables are not for.

    Raises:
        UsageError: it has another dtype or number of members.
    """
    if tables.shape != (len(codes), FULL_SCALE[codes.dtype] + 1):
        raise UsageError(f"codes {codes.dtype} {codes.shape} are not for tables {tables.shape}: see scaled_tables")


def _table_json(table: MemberTable) -> Json:
    octets = table.values.astype("<u2").tobytes()
    return {
        "parameters": dict(table.parameters),
        "values": base64.b64encode(octets).decode("ascii"),
        "sha256": hashlib.sha256(octets).hexdigest(),
    }


def _table(name: str, document: Json) -> MemberTable:
    octets = base64.b64decode(document["values"], validate=True)
    if hashlib.sha256(octets).hexdigest() != document["sha256"]:
        raise DataError(f"the table of member {name!r} in a blending space is not that of its sha256: tune again")
    return MemberTable(np.frombuffer(octets, "<u2").astype(np.uint16), dict(document["parameters"]))
