"""carvana-ens history."""

from __future__ import annotations

from pathlib import Path

import click

from carvana_ens.cli.common import FILE, json_option, open_project, show_json, table
from carvana_ens.cli.completed import MEMBER


@click.command(short_help="Show how members were trained, epoch by epoch.")
@click.argument("members", nargs=-1, type=MEMBER)
@click.option("-o", "--output", type=FILE, help="Picture of loss, Dice and learning rate to write: .png or .jpg.")
@json_option
@click.pass_context
def command(ctx: click.Context, members: tuple[str, ...], output: Path | None, as_json: bool) -> None:
    """Show how MEMBERS (default: all) were trained: a line for each fold, or with --json every epoch.

    \b
    Example:
      carvana-ens history
      carvana-ens history unet-256 -o history.png
    """
    from carvana_ens.verbs.history import history

    folds = history(open_project(ctx), members, output)
    if as_json:
        show_json([{"member": fold.member, "fold": fold.fold, "epochs": fold.rows} for fold in folds])
        return
    rows = [("MEMBER", "FOLD", "EPOCHS", "LOSS", "HIGHEST DICE", "IN EPOCH", "SECONDS", "IMAGES/S")]
    for fold in folds:
        last, best = fold.rows[-1], fold.best
        found = ("-", "-") if best is None else (f"{best['dice']:.4f}", f"{best['epoch']}")
        speed = f"{last['images_per_second']:.2f}"
        rows.append(
            (
                fold.member,
                f"{fold.fold}",
                f"{last['epoch']}",
                f"{last['loss']:.4f}",
                *found,
                f"{fold.seconds:.0f}",
                speed,
            )
        )
    click.echo(table(rows))
    if output is not None:
        click.echo(f"wrote {output}")
