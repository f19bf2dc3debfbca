"""One stage of a fold's training: its photos on their grid, its network, an epoch, a validation.

All randomness is a function of (seed, epoch, photo), so an epoch that is done again is the same epoch.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from carvana_ens.data.mixed import MixedImages
from carvana_ens.errors import TrainingError
from carvana_ens.learn.ahead import made_ahead
from carvana_ens.learn.augment import augment, draw_change
from carvana_ens.learn.losses import hard_dice, summed_loss
from carvana_ens.learn.optimisers import kind_after, resets
from carvana_ens.learn.parallel import Team
from carvana_ens.learn.photos import Photos
from carvana_ens.learn.resize import input_rule
from carvana_ens.learn.schedules import Point, rate_at
from carvana_ens.learn.stages import Stage
from carvana_ens.learn.steps import MiniBatch, Stepper
from carvana_ens.model import FitTask

if TYPE_CHECKING:
    from carvana_ens.learn.torch_model import TorchModel

Watch = Callable[[Mapping[str, float]], None]
Chunk = Sequence[int]


class Epoch(NamedTuple):
    """loss: mean over the photos. rate: of the last step. speed: photos a second, of all processes."""

    loss: float
    rate: float
    speed: float


class StageRun:
    """Trains and validates one stage of one fold."""

    def __init__(self, model: TorchModel, task: FitTask, stage: Stage, stepper: Stepper, team: Team) -> None:
        self.model, self.task, self.team, self.stepper = model, task, team, stepper
        self.options, self.device = stage.options, stepper.device
        size, fitting = input_rule(model)
        for what, samples in (("train on", task.train), ("validate on", task.valid)):
            if not len(samples.ids):
                raise TrainingError(f"member {model.config.name} has no photos to {what}: check folds and masks")
        self.train_photos = Photos(task.train, stage.size or size, fitting)
        self.valid_photos = Photos(task.valid, stage.size or size, fitting)
        self.size = self.train_photos.size
        self.drawn = len(self._order(1))
        self.steps = len(self._groups(range(self.drawn)))
        if not self.steps:
            raise TrainingError(
                f"member {model.config.name} has {len(self.train_photos)} photos to train on, no full mini-batch of "
                f"{self.options.batch_size} for each of {team.size} processes: lower batch_size or leave out drop_last"
            )

    def train(self, epoch: int, done: int, scores: Sequence[float], watch: Watch) -> Epoch:
        """One epoch. epoch: from 1, of all stages. done: epochs of this stage before it. scores: its validations."""
        groups = self._groups(self._order(epoch))
        if resets(self.options, done):
            self.stepper.renew(kind_after(self.options, done))
        self.stepper.train()
        losses = _Losses(functools.partial(self._check_loss, epoch))
        worst: tuple[float, list[MiniBatch]] | None = None
        rate, start = 0.0, time.perf_counter()
        with self._seeded(epoch):
            stream = self._mini_batches(groups, epoch)
            for number, group in enumerate(groups):
                point = Point(done * self.steps + number, self.steps, self.options.epochs)
                rate = rate_at(self.options, self.options.rate, point, scores)
                batches = itertools.islice(stream, len(group))
                if not self.options.replay:
                    losses.add(*self.stepper.step(batches, len(group), rate))
                else:
                    held = list(batches)
                    loss, photos = self.stepper.step(held, len(held), rate)
                    losses.add(loss, photos)
                    value = self.team.summed(loss * photos).item()
                    value /= sum(map(len, group))
                    worst = max(worst or (value, held), (value, held), key=lambda pair: pair[0])
                    if number % self.options.replay == 0:
                        self.stepper.step(worst[1], len(worst[1]), rate)
                        worst = None
                watch(self._live(number + 1, time.perf_counter() - start, losses.mean, self.options.epochs - done - 1))
        losses.settle()
        speed = sum(map(len, itertools.chain(*groups))) / (time.perf_counter() - start)
        parts = self.team.gathered((losses.total, losses.photos))
        return Epoch(sum(total for total, _ in parts) / sum(photos for _, photos in parts), rate, speed)

    def validate(self) -> tuple[float, float]:
        """Mean Dice over the photos of validation on the network's grid, and their mean loss, of the kept network."""
        network = self.stepper.kept.eval()
        size = self.model.batch_size
        chunks = [list(range(i, min(i + size, len(self.valid_photos)))) for i in range(0, len(self.valid_photos), size)]
        dices: list[float] = []
        losses: list[float] = []
        with torch.inference_mode():
            for images, covers in made_ahead(self._pinned(self.valid_photos, self.team.share(chunks)), 1):
                inputs, targets = self._floats(images), self._floats(covers)
                logits = self.model.forward(network, inputs)
                dices += hard_dice(logits, targets >= 0.5, self.options.dice_rim).tolist()
                losses.append(summed_loss((logits,), targets, self.options).item() * len(images))
        parts = self.team.gathered((dices, losses))
        count = len(self.valid_photos)
        dice = math.fsum(itertools.chain.from_iterable(dices for dices, _ in parts)) / count
        return dice, math.fsum(itertools.chain.from_iterable(losses for _, losses in parts)) / count

    def _order(self, epoch: int) -> list[int]:
        """The photos of an epoch; one that comes again has a number past theirs, see ``MixedImages.order``."""
        if isinstance(self.task.train, MixedImages):
            return self.task.train.order(self.task.seed, epoch)
        order = np.random.default_rng((abs(self.task.seed), epoch)).permutation(len(self.train_photos))
        numbers: list[int] = order.tolist()
        return numbers

    def _groups(self, order: Chunk) -> list[list[Chunk]]:
        """The photos of each mini-batch of each step, those of all processes together."""
        size = self.options.batch_size * self.team.size
        chunks = [order[i : i + size] for i in range(0, len(order), size)]
        if self.options.drop_last:
            chunks = [chunk for chunk in chunks if len(chunk) == size]
        return [chunks[i : i + self.options.accumulate] for i in range(0, len(chunks), self.options.accumulate)]

    def _mini_batches(self, groups: Sequence[Sequence[Chunk]], epoch: int) -> Iterator[MiniBatch]:
        """What this process gets of all mini-batches. Where a last one has too few photos for all processes, some
        repeat one that counts nothing, for they meet at every step.
        """
        flat = list(itertools.chain.from_iterable(groups))
        shares = [self.team.share(chunk) for chunk in flat]
        indices = [share or chunk[:1] for share, chunk in zip(shares, flat, strict=True)]
        counted = [
            sum(map(len, group)) if self.options.accumulate_as == "mean" else 0 for group in groups for _ in group
        ]
        places = [[index % len(self.train_photos) for index in chunk] for chunk in indices]
        pictures = made_ahead(self._pinned(self.train_photos, places), self.options.ahead)
        for number, (images, covers) in enumerate(pictures):
            changes = [draw_change(self.options, self.task.seed, epoch, index) for index in indices[number]]
            inputs, targets = augment(self._floats(images), self._floats(covers), changes)
            photos = len(shares[number])
            weight = self.team.size * photos / (counted[number] or len(flat[number]))
            yield MiniBatch(inputs, targets, weight, photos)

    def _pinned(self, photos: Photos, chunks: Sequence[Chunk]) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches in memory from which a GPU copies while it computes."""
        for images, covers in photos.batches(chunks):
            gpu = self.device.type == "cuda"
            yield (images.pin_memory(), covers.pin_memory()) if gpu else (images, covers)

    def _floats(self, values: Tensor) -> Tensor:
        return values.to(self.device, non_blocking=True).float() / 255

    def _live(self, step: int, seconds: float, loss: float, epochs_left: int) -> dict[str, float]:
        left = self.steps * (1 + epochs_left) - step
        photos = self.drawn * step / self.steps
        return {
            "step": step,
            "steps": self.steps,
            "loss": loss,
            "images_per_second": photos / seconds,
            "seconds_left": seconds / step * left,
        }

    def _check_loss(self, epoch: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"member {self.model.config.name}: the loss is {loss} in epoch {epoch} of "
                f"{self.task.directory}; lower the option rate (now {self.options.rate}) and train again"
            )

    @contextmanager
    def _seeded(self, epoch: int) -> Iterator[None]:
        """Dropout and the like draw from (seed, epoch), in each process others; the caller's own random state comes
        back afterwards.
        """
        entropy = (abs(self.task.seed), epoch, *([self.team.rank] if self.team.rank else []))
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
            yield


class _Losses:
    """The sum of losses so far; the newest is fetched one step later, when a GPU has long computed it."""

    def __init__(self, check: Callable[[float], None]) -> None:
        self.total, self.photos = 0.0, 0
        self._check = check
        self._newest: tuple[Tensor, torch.cuda.Event | None, int] | None = None

    @property
    def mean(self) -> float:
        return self.total / max(self.photos, 1)

    def add(self, loss: Tensor, photos: int) -> None:
        self.settle()
        event = None
        if loss.is_cuda:
            loss = torch.empty((), pin_memory=True).copy_(loss, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._newest = (loss, event, photos)

    def settle(self) -> None:
        """Counts the newest loss too."""
        if self._newest is None:
            return
        loss, event, photos = self._newest
        self._newest = None
        if event is not None:
            event.synchronize()
        value = loss.item()
        self._check(value)
        self.total += value * photos
        self.photos += photos
