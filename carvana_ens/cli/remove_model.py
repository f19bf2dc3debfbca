"""carvana-ens remove-model."""

from __future__ import annotations

import click

from carvana_ens.cli.common import open_project
from carvana_ens.cli.completed import MEMBER


@click.command(short_help="Take a member out.")
@click.argument("member", type=MEMBER)
@click.pass_context
def command(ctx: click.Context, member: str) -> None:
    """Take a member out of ensemble.toml; its checkpoints and maps stay.

    \b
    Example:
      carvana-ens remove-model unet-256
    """
    from carvana_ens.verbs.members import remove_model

    left = remove_model(open_project(ctx), member)
    click.echo(f"removed member {member}")
    for path in left:
        click.echo(f"kept: {path}")
