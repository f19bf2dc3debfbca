"""Checks of training: on a few drawn photos, stopped, resumed, repeated, and asked for another task."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from carvana_ens.files import sha256_file
from carvana_ens.model import FitResult, FitTask, Model
from carvana_ens.testing.drawn import SIZE, DrawnSamples
from carvana_ens.testing.trial import Refused, calling, config_of, made, refused
from carvana_ens.types import Json, Size


class _Stop(KeyboardInterrupt):
    """The stop that a user's Ctrl-C is."""


class _Reports:
    """Checks what a model reports. stop: the report that stops it, counted from 1; None: none. epochs: as reported."""

    def __init__(self, model_class: type[Model], stop: int | None = None) -> None:
        self._class, self._stop = model_class, stop
        self.epochs: list[float] = []

    def __call__(self, numbers: Mapping[str, float]) -> None:
        given: Any = numbers
        if not isinstance(given, Mapping) or "epoch" not in given:
            raise refused(self._class, f"fit reports {given!r}: report a mapping with 'epoch' and its numbers")
        for name, value in given.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise refused(self._class, f"fit reports {name} = {value!r}: report Python's own numbers")
        self.epochs.append(given["epoch"])
        if len(self.epochs) == self._stop:
            raise _Stop


def drawn_task(
    directory: Path, size: Size, report: Callable[[Mapping[str, float]], None], *, digest: str = "drawn"
) -> FitTask:
    """A fold of four drawn photos to train on and two to validate on, a little larger than ``size``."""
    photos = Size(size.height * 9 // 8, size.width * 9 // 8)
    return FitTask(
        train=DrawnSamples(range(4), photos),
        valid=DrawnSamples(range(4, 6), photos),
        directory=directory,
        digest=digest,
        seed=3,
        device="cpu",
        report=report,
    )


def fit_drawn(model_class: type[Model], options: Mapping[str, Json], directory: Path, size: Size = SIZE) -> FitResult:
    """Fits a new instance of the model on ``drawn_task``.

    Raises:
        PluginError: fit raised, or its result is not what the host can use.
    """
    return _fit_drawn(model_class, options, directory, size, _Reports(model_class))


def _fit_drawn(
    model_class: type[Model], options: Mapping[str, Json], directory: Path, size: Size, reports: _Reports
) -> FitResult:
    model = made(model_class, config_of(model_class, options, size))
    with calling(model_class, "fit"):
        result: Any = model.fit(drawn_task(directory, size, reports))
    if not isinstance(result, FitResult):
        raise refused(model_class, f"fit gives {type(result).__name__}: give a carvana_ens.FitResult")
    checkpoint: Any = result.checkpoint
    if not (isinstance(checkpoint, Path) and checkpoint.parent == directory and checkpoint.is_file()):
        raise refused(model_class, f"fit gives the checkpoint {checkpoint!r}: write a file right in task.directory")
    dice: Any = result.dice
    if isinstance(dice, bool) or not (isinstance(dice, int | float) and 0 <= dice <= 1 and math.isfinite(dice)):
        raise refused(model_class, f"fit gives Dice {dice!r}: give a Python float in [0, 1]")
    epochs: Any = result.epochs
    if type(epochs) is not int or epochs < 0:
        raise refused(model_class, f"fit gives {epochs!r} epochs: give a whole number")
    return result


def check_fit(
    model_class: type[Model], options: Mapping[str, Json], directory: Path | None = None, size: Size = SIZE
) -> None:
    """Training stops and goes on, ends with a checkpoint, and is not repeated or mistaken for another task's.

    It is stopped twice: at its first report, before which nothing need be kept, and at the second report after that,
    when the epoch before must not be run again. Options that allow two epochs or more make the second stop possible.
    A model that is not trainable passes. Loading the checkpoint is the affair of the checks that predict.

    Args:
        model_class: the model.
        options: its options; they should make training short.
        directory: an empty folder, where the result of ``fit_drawn`` lies afterwards; None: a temporary one.
        size: the member's input size.

    Raises:
        PluginError: it does not.
    """
    if not model_class.trainable:
        return
    with ExitStack() as stack:
        folder = directory or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for stop, called in ((1, "fit, stopped at its first report,"), (2, "fit, called again after a stop,")):
            stopped, before = made(model_class, config_of(model_class, options, size)), _Reports(model_class, stop)
            with suppress(_Stop), calling(model_class, called):
                stopped.fit(drawn_task(folder, size, before))
            if not before.epochs:
                break  # it reports nothing that could stop it
        after = _Reports(model_class)
        first = _fit_drawn(model_class, options, folder, size, after)
        if len(before.epochs) == 2 and after.epochs and after.epochs[0] <= before.epochs[0]:
            raise refused(
                model_class,
                f"fit, stopped in epoch {before.epochs[1]:g}, begins at epoch {after.epochs[0]:g} when it is called "
                "again: keep its state in task.directory after each epoch, and go on from there",
            )
        parameters = sha256_file(first.checkpoint)
        again = fit_drawn(model_class, options, folder, size)
        if again != first or sha256_file(again.checkpoint) != parameters:
            what = "another checkpoint file" if again == first else f"{again}, after {first}"
            raise refused(
                model_class,
                f"fit, called again for a task that it has finished, gives {what}: give the finished result again, or "
                "let task.seed decide all that is drawn",
            )
        _check_other_task(model_class, options, folder, size)


def fitted_checkpoint(
    model_class: type[Model], options: Mapping[str, Json], directory: Path, size: Size = SIZE
) -> Path:
    """The checkpoint of the training that ``check_fit`` does in an empty folder, so that others need not train again.

    Raises:
        PluginError: the check fails.
    """
    check_fit(model_class, options, directory, size)
    return fit_drawn(model_class, options, directory, size).checkpoint


def _check_other_task(model_class: type[Model], options: Mapping[str, Json], finished: Path, size: Size) -> None:
    """Nothing is trained: the other task's photos cannot be read, so a fit that ends has not asked for them."""
    with tempfile.TemporaryDirectory(dir=finished.parent) as folder:
        shutil.copytree(finished, folder, dirs_exist_ok=True)  # the model may clear it
        photos = DrawnSamples(range(4), size, unreadable=True)
        task = FitTask(photos, photos, Path(folder), "another task", 3, "cpu", _Reports(model_class))
        model = made(model_class, config_of(model_class, options, size))
        try:
            with calling(model_class, "fit for another task"):
                model.fit(task)
        except Refused:
            if not photos.touched:
                raise
            return
        if not photos.touched:
            raise refused(
                model_class,
                "fit returns what it finds in task.directory for a task with another digest: keep task.digest beside "
                "the checkpoint, and train anew where it differs",
            )
