"""Training one fold: AdamW on a one-cycle rate, best epoch by validation Dice, exact resume.

All randomness is a function of (seed, epoch, photo), the learning rate a function of the step, so the state after
an epoch is the parameters, AdamW's moments and the history: one safetensors file, replaced whole after each epoch.
A run stopped at any moment goes on from its last finished epoch and ends, on a CPU, with the same parameters.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from carvana_ens.errors import TrainingError
from carvana_ens.files import write_text
from carvana_ens.learn.augment import augment, draw_change
from carvana_ens.learn.checkpoints import fit_parameters, read_header, read_tensors, write_tensors
from carvana_ens.learn.losses import hard_dice, summed_loss
from carvana_ens.learn.photos import Photos
from carvana_ens.learn.recipe import TorchOptions
from carvana_ens.learn.schedules import one_cycle
from carvana_ens.learn.torch_model import pick_device, place
from carvana_ens.model import FitResult, FitTask
from carvana_ens.types import Json

if TYPE_CHECKING:
    from carvana_ens.learn.torch_model import TorchModel

LAST = "last.safetensors"
BEST = "best.safetensors"
HISTORY = "history.csv"
COLUMNS = ("epoch", "loss", "dice", "rate")


def train(model: TorchModel, task: FitTask) -> FitResult:
    """Trains ``model`` on one fold; see ``Model.fit``.

    Writes into ``task.directory``: ``last.safetensors`` (the state), ``best.safetensors`` (the parameters with the
    best validation Dice, mean over photos on the network's grid, where a mask pixel is object when the object covers
    at least half of it), ``history.csv``. A finished run is not repeated: its result is returned at once.

    Raises:
        TrainingError: no photos to train or validate on, a loss that is not finite, a state that cannot be read.
        UsageError: the device is not there.
    """
    run = _Run(model, task)
    while not run.finished:
        epoch, epochs = run.epoch + 1, model.options.epochs
        loss, rate = run.train_epoch(epoch)
        dice = run.validate() if epoch % model.options.valid_every == 0 or epoch == epochs else None
        run.end_epoch(epoch, loss, dice, rate)
        numbers = {"epoch": epoch, "epochs": epochs, "loss": loss, "rate": rate}
        task.report(numbers if dice is None else {**numbers, "dice": dice, "best": run.best_dice})
    return FitResult(task.directory / BEST, run.best_dice, run.epoch)


class _Run:
    def __init__(self, model: TorchModel, task: FitTask) -> None:
        self.model, self.task = model, task
        self.options: TorchOptions = model.options
        self.device = pick_device(task.device)
        self.epoch = 0
        self.best_dice = -math.inf
        self.best_epoch = 0
        self.finished = False
        self.history: list[dict[str, Json]] = []
        state = self._readable_state()
        if state is not None and state["finished"]:
            self._take_document(state)
            return
        size = model.config.size or model.size
        for what, samples in (("train on", task.train), ("validate on", task.valid)):
            if not len(samples.ids):
                raise TrainingError(f"member {model.config.name} has no photos to {what}: check folds and masks")
        self.train_photos = Photos(task.train, size)
        self.valid_photos = Photos(task.valid, size)
        self.steps = -(-len(self.train_photos) // self.options.batch_size)
        self.network = place(model.fresh_network(task.seed), self.device)
        self.optimiser = _adamw(self.network, self.options)
        if state is not None:
            self._take_document(state)
            self._take_tensors()
        _clear(task.directory, everything=state is None)

    def train_epoch(self, epoch: int) -> tuple[float, float]:
        order = np.random.default_rng((abs(self.task.seed), epoch)).permutation(len(self.train_photos))
        chunks = [
            order[i : i + self.options.batch_size].tolist() for i in range(0, len(order), self.options.batch_size)
        ]
        self.network.train()
        total, rate = 0.0, 0.0
        with self._seeded(epoch):
            for number, (images, covers) in enumerate(self.train_photos.batches(chunks)):
                indices = chunks[number]
                changes = [draw_change(self.options, self.task.seed, epoch, index) for index in indices]
                inputs, targets = augment(*self._floats(images, covers), changes)
                rate = one_cycle((epoch - 1) * self.steps + number, self.options.epochs * self.steps, self.options.rate)
                for group in self.optimiser.param_groups:
                    group["lr"] = rate
                loss = summed_loss(self.model.forward_maps(self.network, inputs), targets)
                value = loss.item()
                if not math.isfinite(value):
                    raise TrainingError(
                        f"member {self.model.config.name}: the loss is {value} in epoch {epoch} of "
                        f"{self.task.directory}; lower the option rate (now {self.options.rate}) and train again"
                    )
                self.optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimiser.step()
                total += value * len(indices)
        return total / len(order), rate

    def validate(self) -> float:
        self.network.eval()
        size = self.model.batch_size
        chunks = [list(range(i, min(i + size, len(self.valid_photos)))) for i in range(0, len(self.valid_photos), size)]
        dices: list[float] = []
        with torch.inference_mode():
            for images, covers in self.valid_photos.batches(chunks):
                inputs, targets = self._floats(images, covers)
                dices += hard_dice(self.model.forward(self.network, inputs), targets >= 0.5).tolist()
        return math.fsum(dices) / len(dices)

    def end_epoch(self, epoch: int, loss: float, dice: float | None, rate: float) -> None:
        """The best parameters are written before the state that counts them: a stop between the two repeats the
        epoch, and with it the very same file.
        """
        self.epoch = epoch
        self.history.append({"epoch": epoch, "loss": loss, "dice": dice, "rate": rate})
        if dice is not None and dice > self.best_dice:
            self.best_dice, self.best_epoch = dice, epoch
            document = {"epoch": epoch, "dice": dice, "digest": self.task.digest, "model": self.model.config.model}
            write_tensors(self.task.directory / BEST, self.network.state_dict(), document)
        tried = sum(1 for row in self.history if row["dice"] is not None and row["epoch"] > self.best_epoch)
        stop = bool(self.options.patience) and tried >= self.options.patience
        self.finished = stop or epoch == self.options.epochs
        document = {
            "epoch": epoch,
            "best_dice": self.best_dice if self.best_epoch else None,
            "best_epoch": self.best_epoch,
            "finished": self.finished,
            "digest": self.task.digest,
            "history": self.history,
        }
        write_tensors(self.task.directory / LAST, {} if self.finished else self._tensors(), document)
        write_text(self.task.directory / HISTORY, _history_text(self.history))

    def _floats(self, images: Tensor, covers: Tensor) -> tuple[Tensor, Tensor]:
        return images.to(self.device).float() / 255, covers.to(self.device).float() / 255

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        for number, moments in self.optimiser.state_dict()["state"].items():
            tensors.update({f"adamw.{number}.{name}": tensor for name, tensor in moments.items()})
        return tensors

    def _take_tensors(self) -> None:
        path = self.task.directory / LAST
        tensors, _ = read_tensors(path)
        own = {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}
        fit_parameters(self.network, own, path)
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("adamw."):
                _, number, moment = name.split(".")
                state.setdefault(int(number), {})[moment] = tensor
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})

    def _take_document(self, state: dict[str, Json]) -> None:
        self.epoch, self.best_epoch, self.finished = state["epoch"], state["best_epoch"], state["finished"]
        self.best_dice = -math.inf if state["best_dice"] is None else state["best_dice"]
        self.history = state["history"]

    def _readable_state(self) -> dict[str, Json] | None:
        """The state to go on from: ours, and with the best parameters that it counts still there."""
        last, best = self.task.directory / LAST, self.task.directory / BEST
        if not last.exists():
            return None
        state = read_header(last)
        if state.get("digest") != self.task.digest:
            return None
        if state["best_epoch"] and (not best.exists() or read_header(best).get("digest") != self.task.digest):
            return None
        return state

    @contextmanager
    def _seeded(self, epoch: int) -> Iterator[None]:
        """Dropout and the like draw from (seed, epoch); the caller's own random state comes back afterwards."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(int(np.random.SeedSequence((abs(self.task.seed), epoch)).generate_state(1)[0]))
            yield


def _clear(directory: Path, everything: bool) -> None:
    """Removes what a killed run was writing; with ``everything`` also the files of another task, of which nothing may
    pass for ours.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in (LAST, BEST, HISTORY):
            for old in [*directory.glob(f".{name}.*.partial"), *([directory / name] if everything else [])]:
                old.unlink(missing_ok=True)
    except OSError as error:
        raise TrainingError(f"{directory} cannot be written: {error.strerror or error}") from error


def _adamw(network: nn.Module, options: TorchOptions) -> torch.optim.AdamW:
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.rate)


def _history_text(history: list[dict[str, Json]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()
