"""Training one fold: stage after stage, the best epoch kept, exact resume.

The rate is a function of the step and of the validations so far, all randomness one of (seed, epoch, photo), so the
state after an epoch is the parameters, the optimiser's moments, the averages and the history: one safetensors file,
replaced whole after each epoch. A run stopped at any moment goes on from its last finished epoch and ends, on a CPU,
with the same parameters.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from carvana_ens.errors import TrainingError
from carvana_ens.files import write_text
from carvana_ens.learn.checkpoints import fit_parameters, read_header, read_tensors, write_tensors
from carvana_ens.learn.epochs import StageRun, Watch
from carvana_ens.learn.history import HISTORY, WatchedTask, history_text, scores, unwatched, waited
from carvana_ens.learn.optimisers import kind_after
from carvana_ens.learn.parallel import team_here
from carvana_ens.learn.recipe import TorchOptions
from carvana_ens.learn.stages import stages_of
from carvana_ens.learn.steps import Stepper, part_of
from carvana_ens.learn.torch_model import pick_device, place
from carvana_ens.model import FitResult, FitTask
from carvana_ens.types import Json

if TYPE_CHECKING:
    from carvana_ens.learn.torch_model import TorchModel

LAST = "last.safetensors"
BEST = "best.safetensors"


def train(model: TorchModel, task: FitTask) -> FitResult:
    """Trains ``model`` on one fold; see ``Model.fit``.

    Writes into ``task.directory``: ``last.safetensors`` (the state), ``best.safetensors`` (the parameters of the best
    validation of the last stage), ``history.csv`` (see ``history.COLUMNS``). Dice is the mean over photos on the
    network's grid, where a mask pixel is object when the object covers at least half of it. A finished run is not
    repeated: its result is returned at once.

    Under torchrun all processes call it alike; the first writes.

    Raises:
        TrainingError: no photos to train or validate on, a loss that is not finite, a state that cannot be read.
        UsageError: the device is not there.
    """
    fold = _Fold(model, task)
    while not fold.finished:
        fold.run_epoch()
    return FitResult(task.directory / BEST, fold.best_dice, fold.epoch)


class _Fold:
    """A fold in training: epochs done, stage, best epoch of the stage (0: none yet), and every epoch's numbers."""

    def __init__(self, model: TorchModel, task: FitTask) -> None:
        self.model, self.task = model, task
        self.options: TorchOptions = model.options
        self.stages = stages_of(self.options)
        self.team = team_here()
        self.device = pick_device(self.team.device(task.device))
        self.team.join(self.device)
        self.epoch = self.stage = self.before = self.best_epoch = 0
        self.finished = False
        self.history: list[dict[str, Json]] = []
        if self.team.first:
            _clear(task.directory, everything=self._readable_state() is None)
        self.team.wait()
        state = self._readable_state()
        if state is not None:
            self._take(state)
        if not self.finished:
            tensors = {} if state is None else read_tensors(task.directory / LAST)[0]
            self.run = self._stage_run(tensors, {} if state is None else state["scaler"])

    @property
    def best_dice(self) -> float:
        """The Dice of the best epoch of the stage."""
        return float(self.history[self.best_epoch - 1]["dice"])

    def run_epoch(self) -> None:
        """Trains and validates one epoch, writes what it came to, and goes to the next stage after a stage's last."""
        epoch, done = self.epoch + 1, self.epoch - self.before
        options = self.stages[self.stage].options
        epochs = self.before + sum(stage.options.epochs for stage in self.stages[self.stage :])
        start = time.perf_counter()
        trained = self.run.train(epoch, done, self._scores(), self._watch({"epoch": epoch, "epochs": epochs}))
        due = (done + 1) % options.valid_every == 0 or done + 1 == options.epochs
        dice, loss = self.run.validate() if due else (None, None)
        self.epoch = epoch
        self.history.append(
            {
                "epoch": epoch,
                "loss": trained.loss,
                "dice": dice,
                "rate": trained.rate,
                "seconds": round(time.perf_counter() - start, 3),
                "images_per_second": round(trained.speed, 3),
                "valid_loss": loss,
                "stage": self.stage + 1,
                "size": str(self.run.size),
            }
        )
        numbers = {"epoch": epoch, "epochs": epochs, "loss": trained.loss, "rate": trained.rate}
        if dice is not None:
            self._keep_if_best(dice)
            numbers |= {"dice": dice, "best": self.best_dice}
        self._end_epoch(options, dice is not None)
        if self.team.first:
            self.task.report(numbers | {"images_per_second": trained.speed})

    def _keep_if_best(self, dice: float) -> None:
        """The best parameters are written before the state that counts them: a stop between the two repeats the
        epoch, and with it the very same file.
        """
        validations = self._scores()
        if max(validations[:-1], default=-math.inf) < validations[-1]:
            self.best_epoch = self.epoch
            document = {"epoch": self.epoch, "dice": dice, "digest": self.task.digest}
            if self.team.first:
                tensors = self.run.stepper.kept.state_dict()
                write_tensors(self.task.directory / BEST, tensors, document | {"model": self.model.config.model})

    def _end_epoch(self, options: TorchOptions, validated: bool) -> None:
        """A stage's last state is the next one's first: what it starts from is in it, for the file of the best
        parameters is written over as soon as the next stage has some of its own.
        """
        ran_out = self.epoch - self.before == options.epochs
        stop = validated and 0 < options.patience <= waited(self._scores(), options.min_delta)
        if not (ran_out or stop):
            self._write(self.run.stepper.tensors(), self.run.stepper.numbers())
        elif self.stage + 1 == len(self.stages):
            self.finished = True
            self._write({}, {})
        else:
            self.team.wait()
            best, _ = read_tensors(self.task.directory / BEST)
            tensors = {f"network.{name}": tensor for name, tensor in best.items()}
            self.stage, self.before, self.best_epoch = self.stage + 1, self.epoch, 0
            self._write(tensors, {})
            self.run = self._stage_run(tensors, {})

    def _stage_run(self, tensors: dict[str, Tensor], numbers: dict[str, Json]) -> StageRun:
        """The stage, to go on from a state; without tensors from fresh parameters."""
        stage, done = self.stages[self.stage], self.epoch - self.before
        network = place(self.model.fresh_network(self.task.seed), self.device, stage.options.channels_last)
        if tensors:
            fit_parameters(network, part_of(tensors, "network"), self.task.directory / LAST)
        stepper = Stepper(self.model, network, stage.options, self.device, self.team)
        if done:
            stepper.renew(kind_after(stage.options, done - 1))
            stepper.take(tensors, numbers)
        return StageRun(self.model, self.task, stage, stepper, self.team)

    def _scores(self) -> list[float]:
        """The validations of this stage."""
        return scores(self.history[self.before :], self.options.best_by)

    def _watch(self, known: Mapping[str, float]) -> Watch:
        """Tells whoever watches the numbers of a step, beside those that are known."""
        if not isinstance(self.task, WatchedTask) or not self.team.first:
            return unwatched
        watch = self.task.watch
        last = next((row["dice"] for row in reversed(self.history) if row["dice"] is not None), None)
        known = {**known, **({} if last is None else {"dice": last})}
        return lambda live: watch({**known, **live})

    def _write(self, tensors: Mapping[str, Tensor], numbers: dict[str, Json]) -> None:
        document = {
            "epoch": self.epoch,
            "stage": self.stage,
            "before": self.before,
            "best_epoch": self.best_epoch,
            "finished": self.finished,
            "digest": self.task.digest,
            "history": self.history,
            "scaler": numbers,
        }
        if self.team.first:
            write_tensors(self.task.directory / LAST, tensors, document)
            write_text(self.task.directory / HISTORY, history_text(self.history))

    def _take(self, state: dict[str, Json]) -> None:
        self.epoch, self.stage, self.before = state["epoch"], state["stage"], state["before"]
        self.best_epoch, self.finished, self.history = state["best_epoch"], state["finished"], state["history"]

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
