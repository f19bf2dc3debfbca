"""carvana-ens models."""

from __future__ import annotations

import dataclasses

import click

from carvana_ens.cli.common import json_option, say, show_json, table


@click.command(short_help="List the installed models, or describe one.")
@click.argument("name", required=False)
@json_option
@click.option("--check", is_flag=True, help="Import every model again, also those that loaded before.")
def command(name: str | None, as_json: bool, check: bool) -> None:
    """List the installed models, with the reason of a broken one; with NAME: its options and parameters.

    \b
    Example:
      carvana-ens models
      carvana-ens models timm-unet
    """
    from carvana_ens.verbs import models

    if name is not None:
        description = models.describe(name)
        if as_json:
            show_json(dataclasses.asdict(description))
            return
        click.echo(f"{description.name}: {description.distribution} {description.version or '?'}")
        click.echo(description.help)
        click.echo(f"parameters: {description.parameters:,} trainable")
        click.echo(f"input size: {description.size or 'the photo itself'}; sees: one {description.context} at a time")
        options = [(f"  {o.name}", o.default, o.help) for o in description.options]
        click.echo("options (--set name=value):\n" + table(options) if options else "options: none")
        return
    found = models.models(check=check)
    for problem in found.problems:
        say(f"warning: {problem}")
    if as_json:
        show_json(dataclasses.asdict(found))
        return
    if not found.models:
        click.echo("no models are installed: pip install 'carvana-ens[models]', or import maps made elsewhere")
        return
    rows = [(m.name, m.distribution, m.version or "?", f"BROKEN: {m.reason}" if m.reason else "") for m in found.models]
    click.echo(table([("NAME", "PACKAGE", "VERSION", ""), *rows]))
