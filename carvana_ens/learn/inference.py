"""Probability maps from any Model: resizing, test-time augmentation, sigmoid and the mean over fold models.

One member is predicted in units of a few photos (or one group), so memory does not grow with the number of photos.
The photos of the next unit are read while the models work on this one. Nothing here imports torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from carvana_ens.errors import DataError, PluginError, TrainingError, UsageError
from carvana_ens.learn.ahead import read_ahead
from carvana_ens.learn.resize import Fitting, grid_of, input_rule
from carvana_ens.model import TTA, Batch, Model
from carvana_ens.types import Image, ModelMaps, ProbabilityMap, Size

UNIT = 8
"""Photos that a model of context "image" is handed in one ``predict_all``, if its batch is not larger."""
SLACK = 1e-6

T = TypeVar("T", bound=np.generic)


class ImageReader(Protocol):
    """Photos by id."""

    def read(self, image_id: str, /) -> Image: ...


def predict_maps(
    models: Sequence[Model],
    images: ImageReader,
    ids: Sequence[str],
    groups: Mapping[str, str],
    tta: Sequence[str],
    all_ids: Sequence[str] | None = None,
) -> Iterator[tuple[str, ProbabilityMap]]:
    """Predicts one member, photo by photo.

    Views are averaged in the space that the model declares, on its input grid; that mean is brought back to the
    photo's own grid (resized bilinearly, or cropped where photos are padded), put through the sigmoid if it is
    logits, and averaged over the models as probabilities.

    Args:
        models: the loaded fold models of the member, all of one config.
        images: where the photos are.
        ids: the photos wanted.
        groups: the group of every photo in ``all_ids``.
        tta: test-time augmentations, names of ``carvana_ens.model.TTA``.
        all_ids: every photo of the split, when ``ids`` is only what is still missing: a model of context "group"
            sees all views of a group even if one map is wanted. None: ``ids`` is all.

    Yields:
        (id, map): (H, W) float32 in [0, 1] on the photo's own grid; each wanted id once, in the order of ``ids``
        (context "group": group after group, by first appearance in ``all_ids``).

    Raises:
        UsageError: no models, or an unknown augmentation.
        DataError: a group model without input size, and photos of several sizes in one group; a photo that cannot be
            padded to the input size.
        PluginError: the model does not write each map once, on the grid it was given, as floats, in [0, 1].
        TrainingError: a map with NaN or infinity.
    """
    flips = tta_flips(tta)
    if not models:
        raise UsageError("no model to predict with: train the member or give it a checkpoint")
    size, fitting = input_rule(models[0])
    wanted = frozenset(ids)
    if len(wanted) != len(ids) or not (all_ids is None or wanted.issubset(all_ids)):
        raise UsageError("photos to predict: name each id once, and only ids of the split")

    def read(image_id: str) -> _Photo:
        image = images.read(image_id)
        grid = grid_of(image)
        fitted = fitting.image(image, fitting.grid(size or grid), image_id)
        return _Photo(image_id, groups[image_id], grid, fitted)

    for photos in read_ahead(read, _units(models[0], ids, groups, wanted, ids if all_ids is None else all_ids)):
        batches = _batches(models[0], photos)
        grids = {photo.image_id: photo.grid for photo in photos if photo.image_id in wanted}
        maps: dict[str, ProbabilityMap] = {}
        for model in models:
            for image_id, values in _mean_over_views(model, batches, flips, wanted).items():
                p = _probabilities(model, fitting, values, grids[image_id])
                p *= np.float32(1 / len(models))
                maps[image_id] = p if image_id not in maps else np.add(maps[image_id], p, out=p)
        for image_id in grids:
            yield image_id, np.clip(maps[image_id], 0, 1, out=maps.pop(image_id))


def units_of(model: type[Model], ids: Sequence[str], groups: Mapping[str, str]) -> Iterator[list[str]]:
    """The ids as ``predict_maps`` takes them together when all are wanted: a few photos in order, or a group."""
    return _units(model, ids, groups, frozenset(ids), ids)


def tta_flips(tta: Sequence[str]) -> list[tuple[str, ...]]:
    """The views that augmentations ask for, the plain one first: each name doubles them.

    Raises:
        UsageError: an unknown or repeated name.
    """
    for name in tta:
        if name not in TTA:
            raise UsageError(f"test-time augmentation {name!r} is unknown: use {', '.join(TTA)}")
    if len(set(tta)) != len(tta):
        raise UsageError(f"test-time augmentations {', '.join(tta)}: name each once")
    return [
        tuple(name for name, taken in zip(tta, choice, strict=True) if taken)
        for choice in itertools.product((False, True), repeat=len(tta))
    ]


def flipped(array: NDArray[T], names: Iterable[str], first_axis: int) -> NDArray[T]:
    """The array with its height (axis ``first_axis``, vflip) and width (the next, hflip) turned round; its own
    inverse, C-contiguous.
    """
    axes = tuple(first_axis + (name == "hflip") for name in names)
    return np.ascontiguousarray(np.flip(array, axes)) if axes else array


def sigmoid(logits: ProbabilityMap) -> ProbabilityMap:
    """1 / (1 + exp(-z)) in float32, in place, as (1 + tanh(z / 2)) / 2: no overflow, and no temporaries."""
    logits *= np.float32(0.5)
    np.tanh(logits, out=logits)
    logits *= np.float32(0.5)
    logits += np.float32(0.5)
    return logits


@dataclass(frozen=True)
class _Photo:
    image_id: str
    group: str
    grid: Size
    input: Image


def _units(
    model: Model | type[Model],
    ids: Sequence[str],
    groups: Mapping[str, str],
    wanted: frozenset[str],
    all_ids: Sequence[str],
) -> Iterator[list[str]]:
    """Ids that are read and predicted together."""
    if model.context == "image":
        step = max(1, UNIT // model.batch_size) * model.batch_size
        for start in range(0, len(ids), step):
            yield list(ids[start : start + step])
        return
    views: dict[str, list[str]] = {}
    for image_id in all_ids:
        views.setdefault(groups[image_id], []).append(image_id)
    yield from (view for view in views.values() if not wanted.isdisjoint(view))


def _batches(model: Model, photos: list[_Photo]) -> list[Batch]:
    """Photos in order, in runs of one input grid and at most ``batch_size``; a group in one batch."""
    runs: list[list[_Photo]] = []
    most = model.batch_size if model.context == "image" else len(photos)
    for photo in photos:
        if runs and len(runs[-1]) < most and runs[-1][0].input.shape == photo.input.shape:
            runs[-1].append(photo)
        else:
            runs.append([photo])
    if model.context == "group" and len(runs) > 1:
        first, other = runs[0][0], runs[1][0]
        raise DataError(
            f"group {first.group}: {first.image_id} is {first.grid}, {other.image_id} is {other.grid}, and member "
            f"{model.config.name} sees a group at once: give the member an input size"
        )
    return [
        Batch(np.stack([p.input for p in run]), tuple(p.image_id for p in run), tuple(p.group for p in run))
        for run in runs
    ]


def _mean_over_views(
    model: Model, batches: Sequence[Batch], flips: Sequence[tuple[str, ...]], wanted: frozenset[str]
) -> dict[str, ProbabilityMap]:
    """Mean of the flipped-back maps on the input grid, of wanted ids."""
    total: dict[str, ProbabilityMap] = {}
    for names in flips:
        views = [Batch(flipped(b.images, names, 1), b.ids, b.groups) for b in batches]
        writer = _Gather(model, batches, names, 1 / len(flips), total, wanted)
        model.predict_all(views, writer)
        writer.finish()
    return total


class _Gather:
    """The MapWriter that the host hands out: checks each map and adds it, flipped back, to its photo's mean."""

    def __init__(
        self,
        model: Model,
        batches: Sequence[Batch],
        flip: tuple[str, ...],
        part: float,
        total: dict[str, ProbabilityMap],
        wanted: frozenset[str],
    ) -> None:
        self._model, self._flip, self._part, self._total, self._wanted = model, flip, part, total, wanted
        self._due = {image_id: batch.images.shape[1:3] for batch in batches for image_id in batch.ids}
        self._seen: set[str] = set()

    def write(self, image_id: str, values: ModelMaps) -> None:
        """Takes the map of one photo, (H, W) float on the grid of its batch."""
        if image_id not in self._due:
            raise self._broken(f"wrote a map for {image_id}, which it was not given")
        if image_id in self._seen:
            raise self._broken(f"wrote the map of {image_id} twice")
        values = np.asarray(values)
        if values.shape != self._due[image_id]:
            raise self._broken(f"wrote a map of shape {values.shape} for {image_id}, not {self._due[image_id]}")
        if values.dtype.kind != "f":
            raise self._broken(f"wrote a map of {values.dtype} for {image_id}, not float32")
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, which is refused below
            values = values.astype(np.float32, copy=False)
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise TrainingError(
                f"member {self._model.config.name}: the map of {image_id} has NaN or infinity; "
                "train it anew with a lower rate, or check its checkpoint"
            )
        if self._model.output == "probabilities" and (low < -SLACK or high > 1 + SLACK):
            raise self._broken(f"wrote probabilities from {low:g} to {high:g} for {image_id}, not in [0, 1]")
        self._seen.add(image_id)
        if image_id in self._wanted:
            share = flipped(values, self._flip, 0) * np.float32(self._part)
            total = self._total
            total[image_id] = share if image_id not in total else np.add(total[image_id], share, out=share)

    def finish(self) -> None:
        """Raises PluginError when a map is missing."""
        missing = [image_id for image_id in self._due if image_id not in self._seen]
        if missing:
            raise self._broken(f"wrote no map for {len(missing)} of {len(self._due)} photos, the first {missing[0]}")

    def _broken(self, what: str) -> PluginError:
        config = self._model.config
        return PluginError(
            f"member {config.name}: the model {what}; report it to the author of model {config.model}",
            name=config.model,
        )


def _probabilities(model: Model, fitting: Fitting, values: ProbabilityMap, grid: Size) -> ProbabilityMap:
    own = fitting.back(values, grid)
    return sigmoid(own) if model.output == "logits" else own
