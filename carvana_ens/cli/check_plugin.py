"""carvana-ens check-plugin."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from carvana_ens.cli.common import FILE, SIZE, json_option, parse_settings, say, show_json, table
from carvana_ens.cli.completed import PLUGIN

if TYPE_CHECKING:
    from carvana_ens.types import Size
    from carvana_ens.verbs.check_plugin import CheckedContract

WORDS = {True: "held", False: "FAILED", None: "not tried"}


@click.command("check-plugin", short_help="Check an installed model or step against the contract.")
@click.argument("name", type=PLUGIN)
@click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE", help="Option to check with.")
@click.option("--checkpoint", type=FILE, help="Predict with this file, without training.")
@click.option("--size", type=SIZE, metavar="HxW", help="Input size of the model.  [default: 64x96]")
@click.option(
    "--time-limit",
    type=click.FloatRange(0, min_open=True),
    default=1800.0,
    show_default=True,
    metavar="SECONDS",
    help="Stop the checks after so long.",
)
@json_option
def command(
    name: str,
    settings: tuple[str, ...],
    checkpoint: Path | None,
    size: Size | None,
    time_limit: float,
    as_json: bool,
) -> int:
    """Check the model NAME, or the step where no model has this name; exit code 1 if a check fails.

    Drawn photos are shown to it. A model that can be trained is trained on six of them, for two epochs where it has an
    option epochs.

    \b
    Example:
      carvana-ens check-plugin linknet34
      carvana-ens check-plugin largest --set connectivity=4
    """
    from carvana_ens.verbs.check_plugin import check_plugin

    def show(done: CheckedContract) -> None:
        if not as_json and sys.stderr.isatty():
            say(f"{done.check}: {WORDS[done.held]}")

    found = check_plugin(
        name,
        options=parse_settings(settings),
        checkpoint=checkpoint,
        size=size,
        seconds=time_limit,
        on_check=show,
    )
    if as_json:
        show_json({**dataclasses.asdict(found), "held": found.held})
    else:
        click.echo(f"{found.kind} {found.name} of {found.distribution} {found.version or '?'}")
        rows = [(done.check, WORDS[done.held], done.reason or done.about) for done in found.checks]
        click.echo(table([("CHECK", "", "WHAT IT ASKS, OR WHY IT FAILED"), *rows]))
    return 0 if found.held else 1
