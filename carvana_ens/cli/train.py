"""carvana-ens train."""

from __future__ import annotations

from collections.abc import Mapping

import click

from carvana_ens.cli.common import device_option, fresh_help, open_project, say, track


def report_epoch(member: str, fold: int, numbers: Mapping[str, float]) -> None:
    """One line an epoch, on standard error."""
    counts = f"{numbers['epoch']:.0f}/{numbers['epochs']:.0f}" if "epochs" in numbers else ""
    rest = ", ".join(f"{key} {value:.4g}" for key, value in numbers.items() if key not in ("epoch", "epochs"))
    say(f"{member} fold {fold} epoch {counts}: {rest}")


@click.command(short_help="Train members, every fold.")
@click.argument("members", nargs=-1)
@click.option("--fold", type=click.IntRange(0), help="Only this fold.")
@device_option
@click.option("--fresh", is_flag=True, help=fresh_help)
@click.pass_context
def command(ctx: click.Context, members: tuple[str, ...], fold: int | None, device: str, fresh: bool) -> None:
    """Train MEMBERS (default: all), every fold. Finished folds are kept; a stopped one goes on.

    \b
    Example:
      carvana-ens train
      carvana-ens train mobilenet --fold 0 --device cuda
    """
    from carvana_ens.verbs.train import train

    results = train(
        open_project(ctx), members, fold=fold, device=device, fresh=fresh, say=say, report=report_epoch, track=track
    )
    for fold_model in results:
        state = "trained" if fold_model.new else "was trained before"
        click.echo(
            f"{fold_model.member} fold {fold_model.fold}: {state}, {fold_model.epochs} epochs, "
            f"Dice {fold_model.dice:.4f} on held-out photos at network size"
        )
