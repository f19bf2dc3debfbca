"""carvana-ens export."""

from __future__ import annotations

from pathlib import Path

import click

from carvana_ens.cli.common import FOLDER, open_project, threads_option, track
from carvana_ens.cli.completed import MEMBER


@click.command(short_help="Write a member's maps in a plain format.")
@click.argument("member", type=MEMBER)
@click.option("--split", default="test", show_default=True, help="Which maps: test, oof, or a name given to predict.")
@click.option(
    "--to",
    type=click.Choice(["zarr"]),
    required=True,
    help="zarr: a plain store, one image a chunk, that every zarr reads.",
)
@click.option("-o", "--output", type=FOLDER, required=True, help="Folder to make, such as maps.zarr.")
@threads_option
@click.pass_context
def command(ctx: click.Context, member: str, split: str, to: str, output: Path, threads: int | None) -> None:
    """Write the maps of MEMBER, packed or not, to a folder of their own; a stopped export goes on where it was.

    \b
    Example:
      carvana-ens export linknet --to zarr -o linknet_test.zarr
    """
    from carvana_ens.verbs.export import export

    done = export(open_project(ctx), member, output, split=split, to=to, threads=threads, track=track)
    click.echo(f"{done.path}: {done.new} maps written, {done.images} in all")
