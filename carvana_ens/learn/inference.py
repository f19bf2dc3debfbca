"""Probability maps from any Model: resizing, test-time augmentation, tiles, sigmoid and the mean over fold models.

A pipeline: photos are decoded and resized in threads of their own, maps are finished in another than the networks
work in, and whoever takes them may write them meanwhile. Memory does not grow with the number of photos. Nothing here
imports torch.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from PIL.Image import Image as Picture

from carvana_ens.errors import UsageError
from carvana_ens.learn.ahead import called_apart, made_ahead, read_ahead
from carvana_ens.learn.array_maps import ArrayMaps
from carvana_ens.learn.resize import SQUASH, grid_of, input_rule, resize_picture, scaled_image
from carvana_ens.learn.tiles import tiling_of
from carvana_ens.learn.units import Batches, Finished, Meter, Photo, Plan, Predictor, units_of
from carvana_ens.learn.views import View, views_of
from carvana_ens.model import Model
from carvana_ens.types import Codes, Image, ProbabilityMap, Say, Size, unsaid


class ImageReader(Protocol):
    """Photos by id."""

    def read(self, image_id: str, /) -> Image: ...


@runtime_checkable
class PictureReader(ImageReader, Protocol):
    """Photos that can be had before they are arrays: Pillow resizes them without another copy."""

    def picture(self, image_id: str, /) -> Picture:
        """The photo, upright and RGB."""


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
    logits, and averaged over the models as probabilities. Where the member has tiles, each view is predicted in them
    and pieced together, neighbours mixed where they overlap.

    Args:
        models: the loaded fold models of the member, all of one config.
        images: where the photos are; read in several threads.
        ids: the photos wanted.
        groups: the group of every photo in ``all_ids``.
        tta: test-time augmentations, see ``carvana_ens.model.TTA``.
        all_ids: every photo of the split, when ``ids`` is only what is still missing: photos are predicted in the
            company they have among all. None: ``ids`` is all.

    Yields:
        (id, map): (H, W) float32 in [0, 1] on the photo's own grid; each wanted id once, in the order of ``all_ids``
        (context "group": group after group, by first appearance there; photos of several sizes: batch by batch).

    Raises:
        UsageError: no models, or an unknown augmentation.
        DataError: a group model without input size, and photos of several sizes in one group; a photo that cannot be
            padded to the input size.
        PluginError: the model does not write each map once, on the grid it was given, as floats, in [0, 1].
        TrainingError: a map with NaN or infinity.
        MemoryError: not even one photo can be predicted.
    """
    return _predicted(models, images, ids, groups, tta, all_ids, None, Batches(), Meter(), unsaid)  # type: ignore[return-value]


def predict_codes(
    models: Sequence[Model],
    images: ImageReader,
    ids: Sequence[str],
    groups: Mapping[str, str],
    tta: Sequence[str],
    all_ids: Sequence[str] | None = None,
    *,
    dtype: str = "uint8",
    batches: Batches | None = None,
    meter: Meter | None = None,
    say: Say = unsaid,
) -> Iterator[tuple[str, Codes]]:
    """Codes of what ``predict_maps`` gives, ``rint(S p)``, S = 255 for uint8 and 65535 for uint16.

    Torch networks make them on their device. batches: photos that a network is given at once; what is found out of them
    is kept there. meter: counts. say: told when batches become smaller for lack of memory.
    """
    batches, meter = batches or Batches(), meter or Meter()
    return _predicted(models, images, ids, groups, tta, all_ids, dtype, batches, meter, say)  # type: ignore[return-value]


def _predicted(
    models: Sequence[Model],
    images: ImageReader,
    ids: Sequence[str],
    groups: Mapping[str, str],
    tta: Sequence[str],
    all_ids: Sequence[str] | None,
    dtype: str | None,
    batches: Batches,
    meter: Meter,
    say: Say,
) -> Iterator[tuple[str, object]]:
    views = views_of(tta)
    if not models:
        raise UsageError("no model to predict with: train the member or give it a checkpoint")
    first = models[0]
    tiling = tiling_of(first.config)
    size, fitting = input_rule(first, tiled=tiling is not None)
    plan = Plan(models, views, tiling, size, fitting, dtype)
    wanted = frozenset(ids)
    if len(wanted) != len(ids) or not (all_ids is None or wanted.issubset(all_ids)):
        raise UsageError("photos to predict: name each id once, and only ids of the split")
    predictor = _predictor(plan, batches, meter, say)

    def read(image_id: str) -> Photo:
        if size is not None and fitting is SQUASH and isinstance(images, PictureReader):
            picture = images.picture(image_id)
            inputs = tuple(resize_picture(picture, View(scale).grid(size)) for scale in plan.scales)
            own = Size(picture.height, picture.width)
            return Photo(image_id, groups[image_id], own, image_id in wanted, inputs)
        image = images.read(image_id)
        grid = fitting.grid(size or grid_of(image))
        fitted = fitting.image(image, grid, image_id)
        grids = [View(scale).grid(grid) for scale in plan.scales[1:]]
        scaled = [scaled_image(image, fitted, other, fitting, image_id) for other in grids]
        return Photo(image_id, groups[image_id], grid_of(image), image_id in wanted, (fitted, *scaled))

    def launched() -> Iterator[Callable[[], Finished]]:
        units = units_of(first, predictor.together, ids if all_ids is None else all_ids, groups, wanted)
        for photos in read_ahead(read, units):
            yield from predictor.launch(photos)

    started = time.perf_counter()
    try:
        # a plugin's own code runs in the caller's thread, so that Ctrl-C ends what it waits for
        finished = (finish() for finish in made_ahead(launched(), 1)) if predictor.apart else called_apart(launched())
        for maps in finished:
            for image_id, values in maps:
                meter.photos += 1
                yield image_id, values
    finally:
        meter.seconds += time.perf_counter() - started


def _predictor(plan: Plan, batches: Batches, meter: Meter, say: Say) -> Predictor:
    if "carvana_ens.learn.torch_model" in sys.modules:  # where it is not, no model can be a torch network
        from carvana_ens.learn.device_maps import DeviceMaps, predicts_on_device

        if all(map(predicts_on_device, plan.models)):
            return DeviceMaps(plan, batches, meter, say)
    return ArrayMaps(plan, batches, meter, say)
