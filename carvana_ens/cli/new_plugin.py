"""carvana-ens new-plugin."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from carvana_ens.cli.common import FOLDER


@click.command("new-plugin", short_help="Write a package with a model of your own.")
@click.argument("name")
@click.option("--torch", "kind", flag_value="torch", help="A network in torch; training comes with it.")
@click.option("--plain", "kind", flag_value="plain", default="plain", help="Any other code.  [default]")
@click.option("-o", "--output", type=FOLDER, help="The folder to make.  [default: carvana-ens-NAME]")
def command(name: str, kind: str, output: Path | None) -> None:
    """Write a pip project with the model NAME: a module, its tests, a README. It works as it is; make it yours.

    \b
    Example:
      carvana-ens new-plugin mine
      carvana-ens new-plugin my-net --torch -o work/my-net
    """
    from carvana_ens.verbs.new_plugin import new_plugin

    made = new_plugin(name, "torch" if kind == "torch" else "plain", output)
    click.echo(f"wrote {made.folder}: {', '.join(made.files)}")
    folder = shlex.quote(made.folder)
    click.echo("next:")
    click.echo(f"  carvana-ens install -e {folder}")
    click.echo(f"  carvana-ens check-plugin {name}")
    click.echo(f"  python -m pytest {folder}")
