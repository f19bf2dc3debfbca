"""Maps of any Model, as numpy arrays. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from carvana_ens.errors import PluginError, TrainingError
from carvana_ens.learn.resize import map_back, resize_map
from carvana_ens.learn.units import UNIT, Batches, Finished, Meter, Photo, Plan, runs_of, stacked
from carvana_ens.learn.views import View, flipped, unflipped
from carvana_ens.model import Batch, Model
from carvana_ens.types import Images, ModelMaps, ProbabilityMap, Say, Size

SLACK = 1e-6
"""What rounding may put a probability outside [0, 1]."""

Take = Callable[[str, ProbabilityMap], None]
Maps = dict[str, ProbabilityMap]


class ArrayMaps:
    """A predictor for models that answer with numpy arrays; their ``predict_all`` is given a few batches at once."""

    apart = False

    def __init__(self, plan: Plan, batches: Batches, meter: Meter, say: Say) -> None:
        """batches: photos that ``predict`` is given, as many as the model says if nothing is given."""
        self._plan, self._batches, self._meter, self._say = plan, batches, meter, say
        self._most = batches.most or batches.given or plan.models[0].batch_size
        self.together = max(1, UNIT // self._most) * self._most

    def launch(self, photos: Sequence[Photo]) -> Iterator[Callable[[], Finished]]:
        """See Predictor. Too little memory for a batch halves it."""
        while True:
            try:
                yield self._launched(photos)
                return
            except MemoryError:
                if self._most == 1 or self._plan.models[0].context == "group":
                    raise
            before, self._most = self._most, self._most // 2
            self._batches.most = self._most
            self._say(lowered(self._plan.models[0], before, self._most))

    def _launched(self, photos: Sequence[Photo]) -> Callable[[], Finished]:
        plan = self._plan
        runs = runs_of(plan.models[0], photos, lambda _: self._most)
        whole: Maps = {}
        for model in plan.models[:-1]:
            self._add(whole, model, self._mean(model, runs), photos)
        # the last model's maps are brought to their photos' grids while the next photos are predicted
        return partial(self._finished, whole, self._mean(plan.models[-1], runs), photos)

    def _finished(self, whole: Maps, last: Maps, photos: Sequence[Photo]) -> Finished:
        self._add(whole, self._plan.models[-1], last, photos)
        return [(photo.image_id, self._encoded(whole.pop(photo.image_id))) for photo in photos if photo.wanted]

    def _add(self, whole: Maps, model: Model, means: Maps, photos: Sequence[Photo]) -> None:
        """Adds a fold model's part to the probabilities on the photos' own grids."""
        for photo in photos:
            if photo.wanted:
                p = map_back(means.pop(photo.image_id), photo.grid, self._plan.fitting)
                p = sigmoid(p) if model.output == "logits" else p
                p *= np.float32(1 / len(self._plan.models))
                whole[photo.image_id] = np.add(whole[photo.image_id], p, out=p) if photo.image_id in whole else p

    def _encoded(self, values: ProbabilityMap) -> ProbabilityMap:
        """Codes of a map as ``store.hand.quantise`` makes them, or the map itself."""
        np.clip(values, 0, 1, out=values)
        if self._plan.dtype is None:
            return values
        values *= np.float32(np.iinfo(self._plan.dtype).max)
        return np.rint(values, out=values).astype(self._plan.dtype)

    def _mean(self, model: Model, runs: Sequence[Sequence[Photo]]) -> Maps:
        """The mean over all views, in the model's space, on each photo's input grid."""
        wanted = {photo.image_id: photo.input_grid for run in runs for photo in run if photo.wanted}
        total: Maps = {}
        for view in self._plan.views:

            def take(image_id: str, values: ProbabilityMap, view: View = view) -> None:
                if image_id in wanted:
                    own = resize_map(unflipped(values, view.flips, 0), wanted[image_id])
                    share = own * np.float32(1 / len(self._plan.views))
                    total[image_id] = np.add(total[image_id], share, out=share) if image_id in total else share

            number = self._plan.scales.index(view.scale)
            self._whole(model, [_batch(run, flipped(stacked(run, number), view.flips, 1)) for run in runs], take)
        return total

    def _whole(self, model: Model, batches: Sequence[Batch], take: Take) -> None:
        """Predicts whole photos, in tiles where the member has them."""
        if self._plan.tiling is None:
            self._predict(model, batches, take)
            return
        for batch in batches:
            grid = Size(*batch.images.shape[1:3])
            pieced = {image_id: np.zeros(grid, np.float32) for image_id in batch.ids}
            for tile in self._plan.tiling.tiles(grid):

                def put(image_id: str, values: ProbabilityMap, tile=tile, pieced=pieced) -> None:  # type: ignore[no-untyped-def]
                    pieced[image_id][tile.rows, tile.columns] += values * tile.weights

                part = np.ascontiguousarray(batch.images[:, tile.rows, tile.columns])
                self._predict(model, [Batch(part, batch.ids, batch.groups)], put)
            for image_id, values in pieced.items():
                take(image_id, values)

    def _predict(self, model: Model, batches: Sequence[Batch], take: Take) -> None:
        started = time.perf_counter()
        writer = _Checked(model, batches, take)
        model.predict_all(batches, writer)
        writer.finish()
        self._meter.network += time.perf_counter() - started


class _Checked:
    """The MapWriter that the host hands out: checks each map and passes it on."""

    def __init__(self, model: Model, batches: Sequence[Batch], take: Take) -> None:
        self._model, self._take = model, take
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
        check_range(self._model, image_id, float(values.min()), float(values.max()))
        self._seen.add(image_id)
        self._take(image_id, values)

    def finish(self) -> None:
        """Raises PluginError when a map is missing."""
        missing = [image_id for image_id in self._due if image_id not in self._seen]
        if missing:
            raise self._broken(f"wrote no map for {len(missing)} of {len(self._due)} photos, the first {missing[0]}")

    def _broken(self, what: str) -> PluginError:
        return broken(self._model, what)


def check_range(model: Model, image_id: str, low: float, high: float) -> None:
    """Refuses the map of a photo by its least and greatest value, NaN if one is.

    Raises:
        TrainingError: one of them is not finite.
        PluginError: the model declares probabilities, and they are not in [0, 1].
    """
    if not (np.isfinite(low) and np.isfinite(high)):
        raise TrainingError(
            f"member {model.config.name}: the map of {image_id} has NaN or infinity; "
            "train it anew with a lower rate, or check its checkpoint"
        )
    if model.output == "probabilities" and (low < -SLACK or high > 1 + SLACK):
        raise broken(model, f"wrote probabilities from {low:g} to {high:g} for {image_id}, not in [0, 1]")


def broken(model: Model, what: str) -> PluginError:
    """That a model does not hold to the contract."""
    return PluginError(
        f"member {model.config.name}: the model {what}; report it to the author of model {model.config.model}",
        name=model.config.model,
    )


def lowered(model: Model, batch: int, now: int) -> str:
    """The line that says that batches have become smaller."""
    return f"{model.config.name}: not enough memory for {batch} photos at once, so {now} from now on"


def sigmoid(logits: ProbabilityMap) -> ProbabilityMap:
    """1 / (1 + exp(-z)) in float32, in place, as (1 + tanh(z / 2)) / 2: no overflow, and no temporaries."""
    logits *= np.float32(0.5)
    np.tanh(logits, out=logits)
    logits *= np.float32(0.5)
    logits += np.float32(0.5)
    return logits


def _batch(photos: Sequence[Photo], images: Images) -> Batch:
    return Batch(images, tuple(photo.image_id for photo in photos), tuple(photo.group for photo in photos))
