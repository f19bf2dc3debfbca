"""carvana-ens uninstall."""

from __future__ import annotations

import click

from carvana_ens.cli.common import json_option, say
from carvana_ens.cli.completed import PLUGIN
from carvana_ens.cli.install import show_changes


@click.command(short_help="Remove packages with models or steps.")
@click.argument("packages", nargs=-1, required=True, type=PLUGIN)
@json_option
def command(packages: tuple[str, ...], as_json: bool) -> int:
    """Remove PACKAGES with pip from the Python that runs; the name of a model stands for its package.

    \b
    Example:
      carvana-ens uninstall carvana-ens-mine
    """
    from carvana_ens.verbs.install import uninstall

    return show_changes(uninstall(packages, on_line=say), as_json)
