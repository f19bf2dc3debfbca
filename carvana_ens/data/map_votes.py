"""Hard votes: the masks of a submission as maps of 0 and 1."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from carvana_ens.core.rle_dialects import CARVANA
from carvana_ens.data.map_source import Kind, Values
from carvana_ens.data.rle_csv import RLETable
from carvana_ens.types import Size


class Votes:
    """The masks of an RLE table; it does not say how large they are."""

    def __init__(self, path: Path, dialect: str = CARVANA) -> None:
        """Reads the whole table, see RLETable.

        Raises:
            DataError: no such table, or a damaged one.
            UsageError: an unknown dialect.
        """
        self._table = RLETable(path, dialect)

    @property
    def ids(self) -> tuple[str, ...]:
        """All image ids that have a row, sorted."""
        return self._table.ids

    @property
    def kind(self) -> Kind:
        """Votes."""
        return "bool"

    def size(self, image_id: str) -> Size | None:
        """None; see MapSource."""
        return self._table.own_size(image_id)

    def each(self, sizes: Mapping[str, Size]) -> Iterator[tuple[str, Callable[[], Values]]]:
        """See MapSource."""
        return ((image_id, partial(self._table.read, image_id, size)) for image_id, size in sizes.items())
