"""What all sources of maps made elsewhere have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from carvana_ens.data.ids import check_id
from carvana_ens.errors import DataError, UsageError
from carvana_ens.types import Size

Values: TypeAlias = NDArray[Any]
"""(h, w) one map as its file has it: uint8 or uint16 codes, bool votes, or floats that should lie in [0, 1]."""

Kind = Literal["uint8", "uint16", "bool", "float"]
"""What the values of a map are."""

NNUNET_KEYS = ("probabilities", "softmax")
"""Names of nnU-Net's array of channels in its ``.npz``, version 2 and version 1; the object is its last channel."""


class MapSource(Protocol):
    """Maps by image id."""

    @property
    def ids(self) -> tuple[str, ...]:
        """All image ids that have a map, sorted."""

    @property
    def kind(self) -> Kind:
        """What the values of the maps are, by the first of them."""

    def size(self, image_id: str) -> Size | None:
        """Size of one map, without its values; None where the source does not know (an RLE table)."""

    def each(self, sizes: Mapping[str, Size]) -> Iterator[tuple[str, Callable[[], Values]]]:
        """Each id with a function that gives its map, in the order that is read fastest; the functions are for threads.

        sizes: what is expected of each id that is wanted.

        Raises:
            DataError: here or from the function: a map that is damaged or cannot be one.
        """


def kind_of(dtype: DTypeLike, where: str) -> Kind:
    """What values of a numpy dtype are.

    Raises:
        DataError: whole numbers of another type, of which nobody says what stands for 1; or no numbers.
    """
    found = np.dtype(dtype)
    if found.kind == "f":
        return "float"
    if found.kind == "b":
        return "bool"
    if found.kind == "u" and found.itemsize in (1, 2):
        return "uint8" if found.itemsize == 1 else "uint16"
    raise DataError(
        f"{where} holds {found}: save maps as probabilities (float), as codes with full scale (uint8: 255, uint16: "
        f"65535), or as bool"
    )


def one_channel(values: Values, channel: int | None, where: str, *, last: bool = False) -> Values:
    """The (H, W) map of an array (H, W), (C, H, W) or (C, 1, H, W).

    Args:
        values: the array.
        channel: which of C, counted from 0, negative ones from the end; None: the only one.
        where: names the array in messages.
        last: without ``channel``, the last of several.

    Raises:
        DataError: another count of axes, no such channel, or several of which none is chosen.
    """
    if values.ndim == 4 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2 and channel is None:
        return values
    if values.ndim != 3:
        raise DataError(f"{where} has shape {values.shape}: a map is (H, W), or one channel of (C, H, W), (C, 1, H, W)")
    if channel is None and values.shape[0] > 1 and not last:
        raise DataError(f"{where} has {values.shape[0]} channels: say with --channel which is the object")
    chosen = -1 if channel is None else channel
    if not -values.shape[0] <= chosen < values.shape[0]:
        raise DataError(f"{where} has {values.shape[0]} channels, counted from 0: there is no channel {chosen}")
    found: Values = values[chosen]
    return found


def read_ids(path: Path) -> tuple[str, ...]:
    """The ids of a text file, one a line.

    Raises:
        DataError: no such file, no UTF-8, or a line that cannot be an id.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the ids {path} cannot be read: {error}; give a text file with one id a line") from error
    return checked_ids(lines, str(path))


def checked_ids(ids: Iterable[Any], where: str) -> tuple[str, ...]:
    """Ids of a stack in the order of its maps, as text.

    Raises:
        DataError: one that cannot be an id, or comes twice.
    """
    found: dict[str, None] = {}
    for number, value in enumerate(ids):
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        try:
            check_id(text)
        except DataError as error:
            raise DataError(f"{where}, id {number + 1}: {error}") from error
        if text in found:
            raise DataError(f"{where} has id {text!r} twice: each image has one map")
        found[text] = None
    return tuple(found)


def stack_numbers(ids: Sequence[str], shape: Sequence[int], where: str) -> dict[str, int]:
    """The place of each id's map in a stack (N, H, W), (N, C, H, W) or (N, C, 1, H, W).

    Raises:
        DataError: another count of axes, or of maps than of ids.
    """
    if len(shape) not in (3, 4, 5):
        raise DataError(f"{where} has shape {tuple(shape)}: a stack of maps is (N, H, W) or (N, C, H, W)")
    if len(ids) != shape[0]:
        raise DataError(
            f"{where} has {shape[0]} maps, but there are {len(ids)} ids: name each map once, in their order"
        )
    return {image_id: number for number, image_id in enumerate(ids)}


def no_ids(where: str) -> UsageError:
    """The error for a stack whose ids are nowhere."""
    return UsageError(f"{where} does not say whose its maps are: give a file with one id a line with --ids")
