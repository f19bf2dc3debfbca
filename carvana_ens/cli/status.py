"""carvana-ens status."""

from __future__ import annotations

import dataclasses

import click

from carvana_ens.cli.common import json_option, open_project, show_json, table


@click.command(short_help="Show what is done.")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Show what of the project is done.

    \b
    Example:
      carvana-ens status
    """
    from carvana_ens.verbs.status import status

    found = status(open_project(ctx))
    if as_json:
        show_json(dataclasses.asdict(found))
        return
    if not found.members:
        click.echo(f"{found.project} has no members yet: carvana-ens add-model or carvana-ens import")
        return
    rows = [("MEMBER", "MODEL", "SIZE", "TRAINED FOLDS (DICE)", "MAPS")]
    for member in found.members:
        trained = ", ".join(f"{fold}: {dice:.4f}" for fold, dice in member.training.items())
        maps = ", ".join(s.problem or f"{s.split} {s.done}/{s.images}" for s in member.stores)
        trained = trained or (f"- ({member.untrained})" if member.untrained else "none")
        rows.append((member.name, member.model, member.size or "default", member.problem or trained, maps or "none"))
    click.echo(table(rows))
    click.echo(f"tuning: {found.tuning}")
