"""Out-of-fold maps reduced to the pixels that weights and thresholds can still change; scores of blends from these.

One pass over the stores; after that no map and no mask is read again. See ``core/disputed.py`` for why every score is
that of the whole maps.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carvana_ens.core.disputed import Counts, DisputedImage, DisputedPixels, disputed_pixels
from carvana_ens.core.spaces import SCALE, Table, scaled_tables
from carvana_ens.core.weights import cut_sum
from carvana_ens.engine import default_threads, ordered_map
from carvana_ens.ensemble.objectives import Objective, Scores
from carvana_ens.ensemble.passes import Elsewhere, each_image
from carvana_ens.ensemble.stack import MapStack, check_tables
from carvana_ens.ensemble.truth import Truth
from carvana_ens.errors import CarvanaEnsError, DataError, StoreError, UsageError
from carvana_ens.store.store import ProbabilityStore
from carvana_ens.types import Bits, Track, untracked

MEMORY = 2 * 2**30
"""Bytes of disputed pixels that are held before they are spilled to a file."""

LEVELS = 256
"""Thresholds of a range in a blending space, at most: values have 65,536 levels, and each costs a search its time."""

_PART = 2**24
"""Codes that one task of a thread handles at least, about a millisecond: handing one over costs little beside it."""

_COUNT = 32
"""What a count of one image at one setting costs in time and memory, in codes."""


def common_ids(stores: Sequence[ProbabilityStore]) -> list[str]:
    """Ids that every store has, in the order of the first.

    Raises:
        StoreError: two stores have an image at different sizes.
    """
    ids = [image_id for image_id in stores[0].ids if all(image_id in store.index for store in stores)]
    for image_id in ids:
        sizes = [store.sizes[store.index[image_id]] for store in stores]
        for store, size in zip(stores, sizes, strict=True):
            if size != sizes[0]:
                raise StoreError(f"{store.path} has image {image_id} as {size}, {stores[0].path} as {sizes[0]}")
    return ids


@dataclass(frozen=True)
class Disputed:
    """The disputed pixels of images, and what blends of them score.

    ids: the images that count. thresholds: those that can be scored, rising: all k / S of a range (in a blending space
    LEVELS of them at most, evenly spaced), or the one that it consists of. Members come in the order of the stores;
    weights are whole numbers from 0, of sum 1 to 2**16.
    """

    ids: tuple[str, ...]
    thresholds: tuple[Fraction, ...]
    pixels: DisputedPixels
    numbers: NDArray[np.int64]
    """(n,) where each of ``ids`` lies in ``pixels``."""
    threads: int

    @property
    def members(self) -> int:
        """M."""
        return self.pixels.members

    @property
    def codes(self) -> int:
        """How many are kept of these images, of all members."""
        blocks = self.pixels.starts[self.numbers + 1] - self.pixels.starts[self.numbers]
        return int(blocks.sum()) * 64 * self.members

    def only(self, ids: Sequence[str]) -> Disputed:
        """The same of some of its images; no pixel is copied.

        Raises:
            DataError: an id that is not among them.
        """
        places = dict(zip(self.ids, self.numbers.tolist(), strict=True))
        for image_id in ids:
            if image_id not in places:
                raise DataError(f"image {image_id!r} is not among the {len(self.ids)} images whose pixels were kept")
        numbers = np.array([places[image_id] for image_id in ids], np.int64)
        return dataclasses.replace(self, ids=tuple(ids), numbers=numbers)

    def counts(self, weights: Sequence[int], threshold: Fraction) -> Counts:
        """(n, 3) by image: object pixels that are on, all that are on, object pixels."""
        parts = [
            np.concatenate((counts[:, 0], objects), axis=1) for counts, objects in self._reached(weights, threshold)
        ]
        return np.concatenate(parts) if parts else np.empty((0, 3), np.int64)

    def score(self, objective: Objective, weights: Sequence[int], threshold: Fraction) -> float:
        """The score of one blend."""
        return float(objective.score(self._reached(weights, threshold))[0])

    def curve(self, objective: Objective, weights: Sequence[int]) -> Scores:
        """The score at each of ``thresholds``."""
        if len(self.thresholds) == 1:
            return objective.score(self._reached(weights, self.thresholds[0]))
        whole = _whole(weights)
        return objective.score(self._each(lambda part: self.pixels.level_counts(whole, part), len(self.thresholds)))

    def scores_of_each_added(self, objective: Objective, weights: Sequence[int], threshold: Fraction) -> Scores:
        """(M,) the score with one more for each member in turn; weights may all be 0."""
        whole = _whole(weights)
        cut = cut_sum(threshold, self.pixels.full_scale, int(whole.sum()) + 1)

        def counts(part: NDArray[np.int64]) -> Counts:
            return np.swapaxes(self.pixels.counts_of_each_added(whole, cut, part), 0, 1)

        return objective.score(self._each(counts, self.members))

    def line(
        self, objective: Objective, weights: Sequence[int], member: int, values: range, threshold: Fraction
    ) -> Scores:
        """The score with the weight of one member set to each of these values (steps of one), in one pass."""
        whole = _whole(weights)
        return objective.score(
            self._each(lambda part: self.pixels.line_counts(whole, member, values, threshold, part), len(values))
        )

    def _reached(self, weights: Sequence[int], threshold: Fraction) -> Iterator[tuple[Counts, NDArray[np.int64]]]:
        whole = _whole(weights)
        cut = cut_sum(threshold, self.pixels.full_scale, int(whole.sum()))
        return self._each(lambda part: self.pixels.counts(whole, cut, part)[:, None], 1)

    def _each(
        self, counts: Callable[[NDArray[np.int64]], Counts], settings: int
    ) -> Iterator[tuple[Counts, NDArray[np.int64]]]:
        """(counts, object pixels) of parts of the images in order; counted on threads where it is worth it."""
        pixels = self.pixels
        blocks = pixels.starts[self.numbers + 1] - pixels.starts[self.numbers]
        part = np.cumsum(blocks * (64 * pixels.members) + _COUNT * settings) // _PART
        parts = np.split(self.numbers, np.flatnonzero(np.diff(part)) + 1) if self.numbers.size else []
        threads = min(self.threads, len(parts))
        return ordered_map(lambda numbers: (counts(numbers), pixels.constants[numbers, 2:]), parts, threads)


def keep_disputed(
    stores: Sequence[ProbabilityStore],
    ids: Sequence[str],
    truth: Truth,
    low: Fraction,
    high: Fraction,
    *,
    tables: Sequence[Table] = (),
    threads: int | None = None,
    memory: int = MEMORY,
    folder: Path | None = None,
    elsewhere: Elsewhere | None = None,
    track: Track = untracked,
) -> Disputed:
    """Reads the maps of these images once and keeps what thresholds in low..high and any weights can still change.

    stores: out-of-fold maps by member. ids: in every store, at one size (see ``common_ids``). low, high: thresholds in
    (0, 1]; where both are one, it is scored exactly as it is, else all k / S between them. tables: of a blending space,
    by store (``Space.tables``; its ``thresholds`` gives low and high): then the pixels and all scores are those of the
    values, S is 65535, and every k / S is scored for the least step of k that gives LEVELS at most. memory: bytes of
    pixels beyond which they go to a temporary file in ``folder`` (None: the system's folder), which is mapped.
    elsewhere: workers that read the maps, see ``passes``; what they keep is collected here in the order of the images,
    so that nothing shows who read them.

    Raises:
        DataError: no images.
        UsageError: a range that has no threshold, or tables for another number of stores.
        StoreError: a map is missing or damaged, or a table is not for its store's codes.
        CarvanaEnsError: the temporary file cannot be written.
    """
    if not ids:
        raise DataError(
            "no image is out-of-fold for every member: nothing can be tuned; give the members one fold table"
        )
    check_tables(stores, tables)
    full_scale = SCALE if tables else MapStack(stores).full_scale
    levels = _levels(low, high, full_scale, LEVELS if tables else full_scale)
    look = _Look(levels[0], levels[-1], tuple(tables))
    threads = threads or default_threads()
    with _Collected(memory, folder) as collected:
        images = each_image(look, stores, truth, ids, threads, elsewhere)
        for image in track(images, len(ids), "disputed pixels"):
            collected.add(image)
        return Disputed(
            ids=tuple(ids),
            thresholds=(low,) if low == high else tuple(Fraction(level, full_scale) for level in levels),
            pixels=collected.pixels(len(stores), levels),
            numbers=np.arange(len(ids)),
            threads=threads,
        )


@dataclass(frozen=True)
class _Look:
    """Keeps the disputed pixels of an image. low, high: levels. tables: of a blending space, by store; () for none."""

    low: int
    high: int
    tables: tuple[Table, ...]

    def begun(self, stores: Sequence[ProbabilityStore], truth: Truth) -> Callable[[str], DisputedImage]:
        """See ``passes.Look``."""
        stack, first = MapStack(stores), stores[0]
        scaled = scaled_tables(self.tables, stack.full_scale) if self.tables else None

        def one(image_id: str) -> DisputedImage:
            bits = truth(image_id, first.sizes[first.index[image_id]])
            return disputed_pixels(stack.read(image_id), bits, self.low, self.high, scaled)

        return one


def _levels(low: Fraction, high: Fraction, full_scale: int, limit: int) -> range:
    """The k of thresholds k / S, in steps that leave ``limit`` of them at most."""
    if not 0 < low <= high <= 1:
        raise UsageError(f"thresholds from {low} to {high} are no range within (0, 1]: write for example 0.25 and 0.75")
    least, most = math.ceil(low * full_scale), math.floor(high * full_scale)
    if low == high:
        return range(least, least + 1)
    if least > most:
        raise UsageError(f"no threshold k/{full_scale} lies in {low}..{high}: take a wider range, or one threshold")
    step = -(-(most - least + 1) // limit)
    return range(-(-least // step) * step, most + 1, step)


def _whole(weights: Sequence[int]) -> NDArray[np.uint32]:
    return np.array(weights, np.uint32)


class _Collected:
    """Disputed pixels of image after image; in memory, and in a file from the moment on that they are too many."""

    def __init__(self, memory: int, folder: Path | None) -> None:
        self._memory, self._folder = memory, folder
        self._codes: list[Any] = []
        self._truth: list[Bits] = []
        self._constants: list[tuple[int, int, int]] = []
        self._dtype: Any = None
        self._held = self._size = 0
        self._file: Any = None

    def __enter__(self) -> _Collected:
        return self

    def __exit__(self, *_: object) -> None:
        """The file has no name any more, or loses it here; what is mapped of it stays until it is let go."""
        if self._file is not None:
            self._file.close()

    def add(self, image: DisputedImage) -> None:
        """Takes in the next one."""
        self._dtype = image.codes.dtype
        self._codes.append(image.codes.reshape(-1))
        self._truth.append(image.truth)
        self._constants.append(image.constants)
        self._size += image.codes.size
        self._held += image.codes.nbytes
        if self._file is not None or self._held > self._memory:
            self._spill()

    def _spill(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder, prefix="carvana-ens-")  # noqa: SIM115
            for codes in self._codes:
                self._file.write(codes.data)
        except OSError as error:
            place = self._folder or tempfile.gettempdir()
            raise CarvanaEnsError(
                f"disputed pixels cannot be spilled to {place}: {error.strerror or error}; make room there, or take a "
                f"narrower range of thresholds"
            ) from error
        self._codes.clear()

    def pixels(self, members: int, levels: range) -> DisputedPixels:
        """All of them; levels: those that were asked for."""
        starts = np.zeros(len(self._truth) + 1, np.int64)
        np.cumsum([truth.size for truth in self._truth], out=starts[1:])
        return DisputedPixels(
            codes=self._flat(),
            truth=np.concatenate(self._truth),
            starts=starts,
            constants=np.array(self._constants, np.int64),
            members=members,
            low=levels[0],
            high=levels[-1],
            step=levels.step,
        )

    def _flat(self) -> Any:
        if self._file is not None:
            self._file.flush()
            return np.asarray(np.memmap(self._file, self._dtype, "r+", shape=(self._size,)))
        flat: Any = np.empty(self._size, self._dtype)
        end = self._size
        while self._codes:  # each is let go once it is copied, so that memory does not double
            codes = self._codes.pop()
            flat[end - codes.size : end] = codes
            end -= codes.size
        return flat
