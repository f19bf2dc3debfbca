"""Maps of torch networks, made where the networks are: what leaves the device is one or two bytes a pixel.

Views are averaged, brought to the photo's own grid, put through the sigmoid, averaged over fold models and quantised
on the device. On CUDA nothing waits for it: the next photos are sent while it works.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from carvana_ens.learn.array_maps import check_range, lowered
from carvana_ens.learn.batches import BatchSizes
from carvana_ens.learn.resize import Fitting
from carvana_ens.learn.torch_model import TorchModel
from carvana_ens.learn.units import UNIT, Batches, Finished, Meter, Photo, Plan, runs_of, stacked
from carvana_ens.learn.views import View
from carvana_ens.model import Model
from carvana_ens.types import Images, Say, Size

CACHED = 2**17
"""Values that a processor's cache holds, about."""


def predicts_on_device(model: Model) -> bool:
    """Whether a model predicts as TorchModel does; one that does it in its own way is asked in that way."""
    kind = type(model)
    return (
        issubclass(kind, TorchModel)
        and kind.predict is TorchModel.predict
        and kind.answer is TorchModel.answer
        and kind.predict_all is Model.predict_all
    )


class DeviceMaps:
    """A predictor for fold models that lie on one device."""

    apart = True

    def __init__(self, plan: Plan, batches: Batches, meter: Meter, say: Say) -> None:
        """batches: photos (or tiles) that a network is given; as many as are good for the device if none are."""
        self._plan, self._meter, self._say = plan, meter, say
        self._models: list[Any] = list(plan.models)
        self._device = self._models[0].device
        self._sizes = BatchSizes(self._models, batches)
        self._cuda = self._device.type == "cuda"

    @property
    def together(self) -> int:
        """See Predictor."""
        size = self._plan.size
        return UNIT if size is None else max(UNIT, self._most(self._plan.fitting.grid(size)))

    def launch(self, photos: Sequence[Photo]) -> Iterator[Callable[[], Finished]]:
        """See Predictor. Too little memory for a batch halves it, from then on."""
        model = self._models[0]
        waiting = runs_of(model, photos, self._most)
        while waiting:
            run, *rest = runs_of(model, waiting.pop(0), self._most)  # batches may have become smaller meanwhile
            waiting[:0] = rest
            try:
                launched = self._launched(run)
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                launched = None  # the error holds on to what was computed so far: it must be gone first
            if launched is not None:
                yield launched
                continue
            if self._cuda:
                torch.cuda.empty_cache()
            given = self._given(run)
            batch = 0 if model.context == "group" else self._sizes.lower(given)
            if batch == 0:
                raise MemoryError
            self._say(lowered(model, given, batch))
            waiting.insert(0, run)

    def _most(self, grid: Size) -> int:
        """Photos of this input grid that are predicted together."""
        return self._sizes.of(self._forward_grid(grid))

    def _given(self, run: Sequence[Photo]) -> int:
        """What a network is given at once of these photos: them, or as many tiles as go together."""
        tiles = 1 if self._plan.tiling is None else self._most(run[0].input_grid)
        return max(len(run), tiles)

    def _forward_grid(self, grid: Size) -> Size:
        """The largest grid that a network is given for photos of this input grid."""
        largest = max((view.grid(grid) for view in self._plan.views), key=lambda size: size.height * size.width)
        return largest if self._plan.tiling is None else self._plan.tiling.grid(largest)

    def _launched(self, run: Sequence[Photo]) -> Callable[[], Finished]:
        with torch.inference_mode():
            images = [self._sent(stacked(run, number)) for number in range(len(run[0].inputs))]
            places = _places(run)
            work = _Work(self._models, [run[k].image_id for k in places.flat], self._meter)
            whole: dict[Size, Tensor] = {}
            for model in self._models:
                means = self._mean(model, images, run[0].input_grid, work)[places.index(self._device)]
                work.extremes.append(self._fetched(torch.stack([torch.stack(mean.aminmax()) for mean in means])))
                for grid, at in places.parts():
                    whole[grid] = self._added(whole.get(grid), model, _own_grid(means[at], grid, self._plan.fitting))
            work.maps = [self._fetched(values) for values in whole.values()]
            if self._cuda:
                work.done = torch.cuda.Event()  # type: ignore[no-untyped-call]
                work.done.record()
        return work.finished

    def _mean(self, model: Any, images: Sequence[Tensor], grid: Size, work: _Work) -> Tensor:
        """(N, H, W) float32: the mean over all views, in the model's space, on the input grid."""

        def seen(view: View) -> Tensor:
            turned = _flipped(images[self._plan.scales.index(view.scale)], view.flips)
            return _resized(_flipped(self._whole(model, turned, work), view.flips[::-1]), grid)

        views = self._plan.views
        total = functools.reduce(torch.add, map(seen, views))
        return total / len(views) if len(views) > 1 else total

    def _whole(self, model: Any, images: Tensor, work: _Work) -> Tensor:
        """(N, H, W) float32 answers for (N, H, W, 3) photos, in tiles where the member has them."""
        if self._plan.tiling is None:
            with self._timed(work):
                answer: Tensor = model.answer(images)[:, 0]
            return answer
        count, height, width, _ = images.shape
        whole = images.new_zeros((count, height, width), dtype=torch.float32)
        tiles = list(self._plan.tiling.tiles(Size(height, width)))
        step = max(1, self._sizes.of(self._plan.tiling.grid(Size(height, width))) // count)
        for start in range(0, len(tiles), step):
            some = tiles[start : start + step]
            parts = torch.cat([images[:, tile.rows, tile.columns] for tile in some])
            with self._timed(work):
                answers = model.answer(parts)[:, 0]
            for tile, part in zip(some, answers.split(count), strict=True):
                whole[:, tile.rows, tile.columns] += part * torch.from_numpy(tile.weights).to(self._device)
        return whole

    def _added(self, before: Tensor | None, model: Any, own: Tensor) -> Tensor:
        """(N, H, W) the probabilities so far with those of a fold model; with the last one what the plan asks for."""
        last, part = model is self._models[-1], 1 / len(self._models)
        dtype = getattr(torch, self._plan.dtype or "float32") if last else torch.float32
        result = torch.empty(own.shape, dtype=dtype, device=own.device)
        for rows in self._rows(own):
            p = own[:, rows].sigmoid() if model.output == "logits" else own[:, rows]
            p = p if part == 1 else p * part
            p = p if before is None else p + before[:, rows]
            result[:, rows] = self._encoded(p) if last else p
        return result

    def _encoded(self, p: Tensor) -> Tensor:
        """Codes of probabilities as ``store.hand.quantise`` makes them, or these themselves."""
        if self._plan.dtype is None:
            return p.clamp(0, 1)
        # torch rounds half to even, as numpy does; what rounding put outside [0, 1] rounds to its end
        return (p * np.iinfo(self._plan.dtype).max).round_()

    def _rows(self, values: Tensor) -> Iterator[slice]:
        """Parts of (N, H, W) to be worked on one after the other: on a CPU what its cache holds."""
        count, height, width = values.shape
        step = max(1, CACHED // (count * width)) if self._device.type == "cpu" else height
        yield from (slice(start, start + step) for start in range(0, height, step))

    def _sent(self, images: Images) -> Tensor:
        tensor = torch.from_numpy(np.require(images, requirements=["C", "W"]))
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._cuda else tensor.to(self._device)

    def _fetched(self, tensor: Tensor) -> Tensor:
        if not self._cuda:
            return tensor.cpu()
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return host.copy_(tensor, non_blocking=True)

    @contextmanager
    def _timed(self, work: _Work) -> Iterator[None]:
        """Counts the time that the network is at work: on CUDA that of the device, else that until it has answered."""
        if self._cuda:
            marks = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
            marks[0].record()
            yield
            marks[1].record()
            work.marks.append((marks[0], marks[1]))
        else:
            started = time.perf_counter()
            yield
            work.seconds += time.perf_counter() - started


@dataclass
class _Work:
    """What is on its way from the device. ids: of the wanted photos, as their maps follow each other. extremes: of
    each model, (N, 2): least and greatest value of each map.
    """

    models: Sequence[Any]
    ids: Sequence[str]
    meter: Meter
    maps: Sequence[Tensor] = ()
    extremes: list[Tensor] = field(default_factory=list)
    done: Any = None
    marks: list[tuple[Any, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def finished(self) -> Finished:
        """Waits for the maps."""
        if self.done is not None:
            self.done.synchronize()
        self.meter.network += self.seconds + sum(first.elapsed_time(last) for first, last in self.marks) / 1000
        for model, extremes in zip(self.models, self.extremes, strict=True):
            for image_id, (least, most) in zip(self.ids, extremes.tolist(), strict=True):
                check_range(model, image_id, least, most)
        maps = [values for part in self.maps for values in part.numpy()]
        return list(zip(self.ids, maps, strict=True))


@dataclass(frozen=True)
class _Places:
    """Where in a run the wanted photos are, by their own size."""

    by_grid: dict[Size, list[int]]

    @property
    def flat(self) -> list[int]:
        return [place for places in self.by_grid.values() for place in places]

    def index(self, device: torch.device) -> Any:
        """What takes the wanted ones out of a run."""
        flat = self.flat
        return slice(0, len(flat)) if flat == list(range(len(flat))) else torch.tensor(flat, device=device)

    def parts(self) -> Iterator[tuple[Size, slice]]:
        """Each size, and where its photos are among the wanted."""
        start = 0
        for grid, places in self.by_grid.items():
            yield grid, slice(start, start := start + len(places))


def _places(run: Sequence[Photo]) -> _Places:
    by_grid: dict[Size, list[int]] = {}
    for place, photo in enumerate(run):
        if photo.wanted:
            by_grid.setdefault(photo.grid, []).append(place)
    return _Places(by_grid)


def _flipped(values: Tensor, names: Sequence[str]) -> Tensor:
    """(N, H, W, ...) with height and width turned, see ``views.flipped``."""
    for name in names:
        values = values.transpose(1, 2) if name == "transpose" else values.flip(1 + (name == "hflip"))
    return values.contiguous() if names else values


def _own_grid(values: Tensor, size: Size, fitting: Fitting) -> Tensor:
    """(N, H, W) on the photos' own grid, as ``resize.map_back`` does it."""
    return _resized(values[:, *fitting.window(Size(*values.shape[1:]), size)], size).contiguous()


def _resized(values: Tensor, size: Size) -> Tensor:
    """(N, H, W) bilinear on the grid ``size``, with the support widened where it shrinks, as Pillow does it."""
    shape = Size(*values.shape[1:])
    if shape == size:
        return values
    if values.device.type == "mps":  # not every torch shrinks there
        return _resized(values.cpu(), size).to(values.device)
    shrinks = size.height < shape.height or size.width < shape.width
    return interpolate(values[:, None], tuple(size), mode="bilinear", antialias=shrinks)[:, 0]


def _out_of_memory(error: Exception) -> bool:
    text = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        "out of memory" in text or "can't allocate memory" in text
    )
