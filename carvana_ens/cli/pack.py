"""carvana-ens pack."""

from __future__ import annotations

import click

from carvana_ens.cli.common import json_option, open_project, show_json, threads_option, track
from carvana_ens.cli.completed import MEMBER


@click.command(short_help="Lay finished stores out for fast blends.")
@click.argument("members", nargs=-1, type=MEMBER)
@click.option("--split", "splits", multiple=True, help="Only this split; may be given several times.")
@threads_option
@click.option("--dry-run", is_flag=True, help="Only say what would be packed.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    members: tuple[str, ...],
    splits: tuple[str, ...],
    threads: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Pack the finished stores of MEMBERS (default: all) in place: the same maps, in another order.

    Blends of packed stores read a small part of each map, and give the same masks; do it once all maps are there,
    before many blends. Any zarr-python reads a packed store where carvana-ens is installed, and
    carvana-ens export --to zarr makes a plain one of it. Until it is packed, a store takes its room twice.

    \b
    Example:
      carvana-ens pack
      carvana-ens pack linknet unet --split test
    """
    from carvana_ens.verbs.pack import pack

    stores = pack(open_project(ctx), members, splits, threads=threads, dry_run=dry_run, track=track)
    if as_json:
        show_json([{**vars(store), "path": str(store.path)} for store in stores])
        return
    for store in stores:
        if store.ready:
            done = f"packed already, {store.before:,} bytes"
        elif dry_run:
            done = f"to pack, {store.before:,} bytes"
        else:
            done = f"packed, {store.before:,} bytes before, {store.after:,} now"
        click.echo(f"{store.path}: {store.maps} maps {done}")
