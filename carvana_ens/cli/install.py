"""carvana-ens install."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from carvana_ens.cli.common import json_option, say, show_json
from carvana_ens.cli.completed import KNOWN_PLUGIN

if TYPE_CHECKING:
    from carvana_ens.verbs.install import Changes


@click.command(short_help="Install packages with models or steps.")
@click.argument("packages", nargs=-1, required=True, type=KNOWN_PLUGIN)
@click.option("-e", "--editable", is_flag=True, help="Link folders, so that edits of them take effect.")
@click.option("-U", "--upgrade", is_flag=True, help="Fetch newer versions of what is installed.")
@json_option
def command(packages: tuple[str, ...], editable: bool, upgrade: bool, as_json: bool) -> int:
    """Install PACKAGES with pip into the Python that runs; the name of a model stands for its package.

    Exit code 1 if a model or step that comes with them is broken.

    \b
    Example:
      carvana-ens install linknet34
      carvana-ens install -e carvana-ens-mine
    """
    from carvana_ens.verbs.install import install

    return show_changes(install(packages, editable=editable, upgrade=upgrade, on_line=say), as_json)


def show_changes(changes: Changes, as_json: bool) -> int:
    """Shows what came and went; the exit code."""
    if as_json:
        show_json(dataclasses.asdict(changes))
    else:
        for word, plugins in (("gone", changes.gone), ("new", changes.new)):
            for plugin in plugins:
                broken = f": BROKEN: {plugin.reason}" if plugin.reason else ""
                source = f"{plugin.distribution} {plugin.version or '?'}"
                click.echo(f"{word} {plugin.kind} {plugin.name} ({source}){broken}")
        if not changes.new and not changes.gone:
            click.echo("no model or step came or went")
    return 1 if any(plugin.reason for plugin in changes.new) else 0
