"""carvana-ens demo."""

from __future__ import annotations

from pathlib import Path

import click

from carvana_ens.cli.common import FOLDER, device_option, say, table, track
from carvana_ens.cli.train import report_epoch


@click.command(short_help="The whole job on drawn photos.")
@click.argument("folder", type=FOLDER, default=Path("demo"))
@device_option
def command(folder: Path, device: str) -> None:
    """Run the whole job on drawn photos in FOLDER (default: demo): two networks, one model without, a few minutes.

    \b
    Example:
      carvana-ens demo
    """
    from carvana_ens.verbs.demo import demo

    done = demo(folder, device=device, say=say, report=report_epoch, track=track)
    rows = [(name, f"{dice:.4f}") for name, dice in sorted(done.dice.items(), key=lambda item: -item[1])]
    click.echo(table([("ON THE TEST PHOTOS", "MEAN DICE"), *rows]))
    click.echo(f"project:    {done.project}")
    click.echo(f"submission: {done.submission}")
    click.echo(f"report:     {done.report}")
    for path in done.pictures:
        click.echo(f"picture:    {path}")
