"""carvana-ens train."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping

import click

from carvana_ens.cli.common import device_option, fresh_help, open_project, say, track
from carvana_ens.cli.completed import MEMBER

PAUSE = 0.1
"""Seconds between two looks of the live line."""


def report_epoch(member: str, fold: int, numbers: Mapping[str, float]) -> None:
    """One line an epoch, on standard error."""
    counts = f"{numbers['epoch']:.0f}/{numbers['epochs']:.0f}" if "epochs" in numbers else ""
    rest = ", ".join(f"{key} {value:.4g}" for key, value in numbers.items() if key not in ("epoch", "epochs"))
    say(f"{member} fold {fold} epoch {counts}: {rest}")


def live_text(member: str, fold: int, numbers: Mapping[str, float]) -> str:
    """Where a training is, after a step."""
    minutes, seconds = divmod(round(numbers["seconds_left"]), 60)
    hours, minutes = divmod(minutes, 60)
    dice = f"dice {numbers['dice']:.4f}, " if "dice" in numbers else ""
    return (
        f"{member} fold {fold} epoch {numbers['epoch']:.0f}/{numbers['epochs']:.0f} "
        f"step {numbers['step']:.0f}/{numbers['steps']:.0f}: loss {numbers['loss']:.4f}, {dice}"
        f"{numbers['images_per_second']:.1f} images/s, {hours}:{minutes:02}:{seconds:02} left"
    )


class LiveLine:
    """A line on a terminal that each step writes over, and each epoch ends; elsewhere only the epochs show."""

    def __init__(self) -> None:
        self._next = 0.0

    def step(self, member: str, fold: int, numbers: Mapping[str, float]) -> None:
        """Shows a step, a few times a second."""
        if sys.stderr.isatty() and time.monotonic() >= self._next:
            self._next = time.monotonic() + PAUSE
            width = shutil.get_terminal_size().columns - 1
            click.echo("\r" + live_text(member, fold, numbers)[:width].ljust(width), err=True, nl=False)

    def epoch(self, member: str, fold: int, numbers: Mapping[str, float]) -> None:
        """Shows an epoch in a line of its own."""
        if self._next and sys.stderr.isatty():
            click.echo("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r", err=True, nl=False)
        report_epoch(member, fold, numbers)


@click.command(short_help="Train members, every fold.")
@click.argument("members", nargs=-1, type=MEMBER)
@click.option("--fold", type=click.IntRange(0), help="Only this fold.")
@device_option
@click.option("--fresh", is_flag=True, help=fresh_help)
@click.pass_context
def command(ctx: click.Context, members: tuple[str, ...], fold: int | None, device: str, fresh: bool) -> None:
    """Train MEMBERS (default: all), every fold. Finished folds are kept; a stopped one goes on.

    On several GPUs, torchrun starts it once for each: torchrun --nproc-per-node 4 --no-python carvana-ens train

    \b
    Example:
      carvana-ens train
      carvana-ens train mobilenet --fold 0 --device cuda
    """
    from carvana_ens.learn.parallel import team_here
    from carvana_ens.types import unsaid
    from carvana_ens.verbs.train import train

    project, live = open_project(ctx), LiveLine()
    if not team_here().first:
        train(project, members, fold=fold, device=device, fresh=fresh, say=unsaid)
        return
    results = train(
        project,
        members,
        fold=fold,
        device=device,
        fresh=fresh,
        say=say,
        report=live.epoch,
        watch=live.step,
        track=track,
    )
    for fold_model in results:
        state = "trained" if fold_model.new else "was trained before"
        click.echo(
            f"{fold_model.member} fold {fold_model.fold}: {state}, {fold_model.epochs} epochs, "
            f"Dice {fold_model.dice:.4f} on held-out photos at network size"
        )
