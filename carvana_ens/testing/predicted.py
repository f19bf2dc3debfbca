"""Checks of what a model answers: form, repetition, independence of its neighbours, and writing every map once."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from carvana_ens.learn.array_maps import SLACK
from carvana_ens.model import Batch, Model
from carvana_ens.testing.drawn import ODD_SIZE, SIZE, blank_batch, drawn_batch
from carvana_ens.testing.fitted import fit_drawn
from carvana_ens.testing.trial import calling, config_of, difference, loaded, refused
from carvana_ens.types import Json, ModelMaps, Size


@contextmanager
def trained_on_drawn(
    model_class: type[Model], options: Mapping[str, Json], checkpoint: Path | None, size: Size
) -> Iterator[Path | None]:
    """The checkpoint that is given, or that of a training on drawn photos; None for an untrainable model."""
    if checkpoint is not None or not model_class.trainable:
        yield checkpoint
        return
    with tempfile.TemporaryDirectory() as folder:
        yield fit_drawn(model_class, options, Path(folder), size).checkpoint


def _batch(model_class: type[Model], numbers: Sequence[int], size: Size, car: str = "car") -> Batch:
    return drawn_batch(numbers, size, car=car if model_class.context == "group" else None)


def answer(model: Model, batch: Batch) -> ModelMaps:
    """What the model predicts for a batch, checked for its form.

    Raises:
        PluginError: it is not (N, H, W) float32, finite, and in [0, 1] if it is probabilities; or the photos changed.
    """
    model_class = type(model)
    count, height, width = batch.images.shape[:3]
    given = f"for {count} photo{'s' if count > 1 else ''} of {Size(height, width)}"
    images = batch.images.copy()
    with calling(model_class, f"predict {given}"):
        maps: Any = model.predict(batch)
    if not isinstance(maps, np.ndarray):
        raise refused(model_class, f"predict gives {type(maps).__name__} {given}: give a numpy array")
    if maps.shape != (count, height, width):
        raise refused(model_class, f"predict gives shape {maps.shape} {given}: give {(count, height, width)}")
    if maps.dtype != np.float32:
        raise refused(model_class, f"predict gives {maps.dtype} {given}: give float32")
    if not np.isfinite(maps).all():
        at = batch.ids[int(np.argmin(np.isfinite(maps).all((1, 2))))]
        raise refused(model_class, f"predict gives NaN or infinity {given}, in the map of {at}: give finite numbers")
    low, high = float(maps.min()), float(maps.max())
    if model.output == "probabilities" and (low < -SLACK or high > 1 + SLACK):
        raise refused(
            model_class,
            f"predict gives {low:g} to {high:g} {given}: probabilities lie in [0, 1]; logits need output = 'logits'",
        )
    if not np.array_equal(batch.images, images):
        raise refused(model_class, f"predict changes the photos that it is given, {given}: work on a copy")
    return maps.copy()


def check_answers(
    model_class: type[Model], options: Mapping[str, Json], checkpoint: Path | None = None, size: Size = SIZE
) -> None:
    """``predict`` answers in the right form: one photo and three, on ``size`` and on odd sides, black and white ones.

    Args:
        model_class: the model.
        options: its options.
        checkpoint: what it predicts with; None: a trainable model is fitted first.
        size: the grid to check on.

    Raises:
        PluginError: it does not.
    """
    with trained_on_drawn(model_class, options, checkpoint, size) as trained:
        for grid in (size, ODD_SIZE):
            model = loaded(model_class, config_of(model_class, options, grid), trained)
            for numbers in ([0], [1, 2, 3]):
                answer(model, _batch(model_class, numbers, grid))
            answer(model, blank_batch(grid))


def check_repeats(
    model_class: type[Model], options: Mapping[str, Json], checkpoint: Path | None = None, size: Size = SIZE
) -> None:
    """The same photos get the same maps: later, after other photos, and from another instance.

    Arguments as for ``check_answers``.

    Raises:
        PluginError: they do not.
    """
    with trained_on_drawn(model_class, options, checkpoint, size) as trained:
        config = config_of(model_class, options, size)
        model, twin = (loaded(model_class, config, trained) for _ in range(2))
        batch = _batch(model_class, [0, 1], size)
        first = answer(model, batch)
        answer(model, _batch(model_class, [2, 3, 4], ODD_SIZE if config.size is None else size, "other"))
        for name, maps, advice in (
            ("called again, after other photos", answer(model, batch), "keep nothing from call to call, draw nothing"),
            ("of another instance, loaded alike", answer(twin, batch), "let load and config.seed decide everything"),
        ):
            off = difference(maps, first)
            if off is not None:
                raise refused(model_class, f"predict {name}, differs by up to {off:.3g} on the same photos: {advice}")


def check_independence(
    model_class: type[Model], options: Mapping[str, Json], checkpoint: Path | None = None, size: Size = SIZE
) -> None:
    """A photo's map does not depend on its place in the batch, nor (context "image") on the photos beside it.

    Arguments as for ``check_answers``.

    Raises:
        PluginError: it does.
    """
    with trained_on_drawn(model_class, options, checkpoint, size) as trained:
        model = loaded(model_class, config_of(model_class, options, size), trained)
        together = answer(model, _batch(model_class, [0, 1, 2], size))
        # two change places, the third stays: turning or reversing all three could hide a model that does the same
        swapped = answer(model, _batch(model_class, [1, 0, 2], size))[[1, 0, 2]]
        off = difference(swapped, together)
        if off is not None:
            raise refused(
                model_class,
                f"maps differ by up to {off:.3g} when the photos of a batch change places: "
                "each map must follow its photo",
            )
        if model_class.context == "group":
            return
        for number in range(3):
            off = difference(answer(model, _batch(model_class, [number], size)), together[[number]])
            if off is not None:
                raise refused(
                    model_class,
                    f"the map of a photo differs by up to {off:.3g} when it is alone in its batch: treat each photo "
                    "by itself (normalisation in training mode mixes them), or set context = 'group'",
                )


def check_predict_all(
    model_class: type[Model], options: Mapping[str, Json], checkpoint: Path | None = None, size: Size = SIZE
) -> None:
    """``predict_all`` writes the map of every photo exactly once, the one that ``predict`` gives, in every call.

    Arguments as for ``check_answers``.

    Raises:
        PluginError: it does not.
    """
    with trained_on_drawn(model_class, options, checkpoint, size) as trained:
        config = config_of(model_class, options, size)
        model = loaded(model_class, config, trained)
        last = ODD_SIZE if config.size is None else size
        batches = [_batch(model_class, [0, 1], size, "first"), _batch(model_class, [2], last, "second")]
        for run in (batches, batches[:1]):
            writer = _Writer(model_class, run)
            with calling(model_class, f"predict_all of {len(run)} batches"):
                model.predict_all(iter(run), writer)
            writer.compare(model)


class _Writer:
    """The MapWriter of the check."""

    def __init__(self, model_class: type[Model], batches: Sequence[Batch]) -> None:
        self._class, self._batches = model_class, batches
        self._due = {image_id: batch.images.shape[1:3] for batch in batches for image_id in batch.ids}
        self._maps: dict[str, ModelMaps] = {}

    def write(self, image_id: str, values: ModelMaps) -> None:
        if image_id not in self._due:
            raise refused(self._class, f"predict_all writes a map for {image_id!r}: write those of the batches' ids")
        if image_id in self._maps:
            raise refused(self._class, f"predict_all writes the map of {image_id} twice: write each id once")
        values = np.array(values)
        if values.shape != self._due[image_id]:
            raise refused(
                self._class,
                f"predict_all writes a map of shape {values.shape} for {image_id}: its grid is {self._due[image_id]}",
            )
        self._maps[image_id] = values

    def compare(self, model: Model) -> None:
        missing = [image_id for image_id in self._due if image_id not in self._maps]
        if missing:
            raise refused(
                self._class,
                f"predict_all writes {len(self._maps)} of {len(self._due)} maps, none for {missing[0]}: "
                "write each id once, also in the last batch",
            )
        for batch in self._batches:
            for image_id, expected in zip(batch.ids, answer(model, batch), strict=True):
                off = difference(self._maps[image_id], expected)
                if off is not None:
                    raise refused(
                        self._class,
                        f"predict_all writes a map for {image_id} that differs by up to {off:.3g} from what predict "
                        "gives: write the same",
                    )
