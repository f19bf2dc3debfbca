"""carvana-ens replay."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from carvana_ens.cli.common import (
    FILE,
    FOLDER,
    device_option,
    json_option,
    open_project,
    say,
    show_json,
    threads_option,
    track,
)


@click.command(short_help="Make the submission of a lock again.")
@click.argument("lock", type=FILE)
@click.option("-o", "--output", type=FILE, help="Submission to write: .csv or .csv.gz.")
@click.option("--dry-run", is_flag=True, help="Only say what differs, and which maps would be predicted.")
@click.option("--no-predict", is_flag=True, help="Refuse where maps are missing.")
@click.option("--anyway", is_flag=True, help="Also where what makes the maps differs from the lock.")
@click.option("--images", type=FOLDER, help="The photos of a split other than oof and test.")
@device_option
@threads_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    lock: Path,
    output: Path | None,
    dry_run: bool,
    no_predict: bool,
    anyway: bool,
    images: Path | None,
    device: str,
    threads: int | None,
    as_json: bool,
) -> int:
    """Make the submission of LOCK again: say what differs, predict what is missing, blend as the lock says.

    Exit code 0: the text is the lock's. 1: it is another, or would be.

    \b
    Example:
      carvana-ens replay ensemble.lock.json --dry-run
      carvana-ens replay ensemble.lock.json -o again.csv.gz
    """
    from carvana_ens.verbs.replay import replay

    if dry_run == (output is not None):
        raise click.UsageError("replay writes to -o FILE, or nothing with --dry-run: give one of them", ctx)
    done = replay(
        open_project(ctx),
        lock,
        output,
        predict_missing=not no_predict,
        anyway=anyway,
        images=images,
        device=device,
        threads=threads,
        say=say,
        track=track,
    )
    code = 1 if done.same is False or (dry_run and done.refused) else 0
    if as_json:
        show_json(dataclasses.asdict(done) | {"path": None if done.path is None else str(done.path)})
    elif dry_run:
        predicted = f"maps to predict: {', '.join(done.predicted)}" if done.predicted else "all maps are here"
        click.echo(f"{lock}: {len(done.differences)} differences, {len(done.refused)} that maps depend on; {predicted}")
    elif done.same:
        click.echo(f"wrote {done.path}: {done.images} images, the same text as that of {lock}")
    else:
        click.echo(f"wrote {done.path}: {done.images} images, NOT the text of {lock}: {'; '.join(done.reasons)}")
    return code
