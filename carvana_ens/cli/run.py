"""carvana-ens run."""

from __future__ import annotations

from pathlib import Path

import click

from carvana_ens.cli.common import (
    FILE,
    break_lock_option,
    chosen_workers,
    device_option,
    open_project,
    say,
    threads_option,
    track,
    worker_options,
)
from carvana_ens.cli.train import LiveLine


@click.command(short_help="Train, predict, tune, blend and report in one go.")
@click.option("-o", "--output", type=FILE, default=Path("submission.csv.gz"), show_default=True, help="Submission.")
@device_option
@break_lock_option
@threads_option
@worker_options
@click.pass_context
def command(
    ctx: click.Context,
    output: Path,
    device: str,
    break_lock: bool,
    threads: int | None,
    workers: int | None,
    scheduler: str | None,
    worker_limit: float | None,
) -> None:
    """Train, predict, tune, blend and report in one go; what is done is kept, so that a stopped run goes on. Workers,
    as predict has them, do all but the training and the report.

    \b
    Example:
      carvana-ens run -o submission.csv.gz
      carvana-ens run --workers 8
    """
    from carvana_ens.verbs.run import run

    project, live = open_project(ctx), LiveLine()
    done = run(
        project,
        output,
        device=device,
        break_lock=break_lock,
        threads=threads,
        workers=chosen_workers(workers, scheduler, worker_limit),
        say=say,
        report=live.epoch,
        watch=live.step,
        track=track,
    )
    used = ", ".join(f"{name} {weight}" for name, weight in done.weights.items())
    click.echo(f"wrote {output}: {done.images} images, weights {used}, threshold {done.threshold}")
    click.echo(f"wrote {project.root / 'report.html'}")
