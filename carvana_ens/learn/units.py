"""Photos on their way through a member: which of them are read and predicted together. No torch.

What a network answers for a photo may depend, in its last bits, on the photos beside it. So photos are put together
in the order of all ids of the split, whatever is there already: what is missing is predicted in the company it would
have had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from carvana_ens.errors import DataError
from carvana_ens.learn.resize import Fitting, grid_of
from carvana_ens.learn.tiles import Tiling
from carvana_ens.learn.views import View
from carvana_ens.model import Model
from carvana_ens.types import Image, Images, Size

BLOCK = 32
"""Photos, about, that a run may leave out or another process predict; a multiple of the batches that are chosen."""
UNIT = 8
"""Photos that are read together where batches are smaller."""


@dataclass(frozen=True)
class Photo:
    """grid: its own size. wanted: whether its map is. inputs: what the network is given of it, at each scale of the
    plan, the input grid's own first.
    """

    image_id: str
    group: str
    grid: Size
    wanted: bool
    inputs: tuple[Image, ...]

    @property
    def input_grid(self) -> Size:
        """The network's grid for it."""
        return grid_of(self.inputs[0])


class Plan(NamedTuple):
    """How a member predicts. models: its fold models, loaded. dtype: of the codes; None: maps are float32."""

    models: Sequence[Model]
    views: Sequence[View]
    tiling: Tiling | None
    size: Size | None
    fitting: Fitting
    dtype: str | None

    @property
    def scales(self) -> list[float]:
        """Of the views, without doubles, 1 first."""
        return list(dict.fromkeys(view.scale for view in self.views))


@dataclass
class Batches:
    """How many photos a member's networks are given at once, as far as that is known; kept from call to call.

    given: what the user wants. most: what was left after memory was short. pixels: what a device has room for.
    """

    given: int | None = None
    most: int | None = None
    pixels: int | None = None


@dataclass
class Meter:
    """photos: maps that were made. network: seconds that networks were at work. seconds: in all, writing included."""

    photos: int = 0
    network: float = 0.0
    seconds: float = 0.0

    def add(self, other: Meter) -> None:
        """Counts what another process has done."""
        self.photos += other.photos
        self.network += other.network
        self.seconds += other.seconds


Finished = list[tuple[str, NDArray[np.generic]]]
"""Ids with their maps."""


class Predictor(Protocol):
    """Makes maps of photos, in two steps so that the second overlaps with the first of other photos.

    apart: whether ``launch`` may run in a thread of its own.
    """

    apart: bool

    @property
    def together(self) -> int:
        """Photos that ``launch`` is given, at most (context "image")."""

    def launch(self, photos: Sequence[Photo]) -> Iterator[Callable[[], Finished]]:
        """Predicts photos in order; each function, called in any thread, gives the maps of wanted ones."""


def blocks_of(model: Model, ids: Sequence[str], groups: Mapping[str, str]) -> Iterator[list[str]]:
    """The ids of a split in parts that may be predicted apart from each other: a few in order, or a group."""
    if model.context == "image":
        step = max(1, BLOCK // model.batch_size) * model.batch_size
        for start in range(0, len(ids), step):
            yield list(ids[start : start + step])
        return
    views: dict[str, list[str]] = {}
    for image_id in ids:
        views.setdefault(groups[image_id], []).append(image_id)
    yield from views.values()


def units_of(
    model: Model, together: int, ids: Sequence[str], groups: Mapping[str, str], wanted: frozenset[str]
) -> Iterator[list[str]]:
    """Ids that are read and launched together; without those where nothing is wanted."""
    for block in blocks_of(model, ids, groups):
        step = together if model.context == "image" else len(block)
        units = (block[start : start + step] for start in range(0, len(block), step))
        yield from (unit for unit in units if not wanted.isdisjoint(unit))


def runs_of(model: Model, photos: Sequence[Photo], most: Callable[[Size], int]) -> list[list[Photo]]:
    """Photos in order, in runs of one input grid and at most ``most(grid)``; a group in one. Only runs of which a map
    is wanted.

    Raises:
        DataError: a group of photos of several grids.
    """
    by_group = model.context == "group"
    runs: list[list[Photo]] = []
    for photo in photos:
        fits = bool(runs) and runs[-1][0].input_grid == photo.input_grid
        if fits and (by_group or len(runs[-1]) < most(photo.input_grid)):
            runs[-1].append(photo)
        else:
            runs.append([photo])
    if by_group and len(runs) > 1:
        first, other = runs[0][0], runs[1][0]
        raise DataError(
            f"group {first.group}: {first.image_id} is {first.grid}, {other.image_id} is {other.grid}, and member "
            f"{model.config.name} sees a group at once: give the member an input size"
        )
    return [run for run in runs if any(photo.wanted for photo in run)]


def stacked(photos: Sequence[Photo], scale: int) -> Images:
    """(N, H, W, 3) what the network is given of photos at the scale of this number."""
    if len(photos) == 1:
        return photos[0].inputs[scale][None]
    return np.stack([photo.inputs[scale] for photo in photos])
