"""carvana-ens import."""

from __future__ import annotations

from pathlib import Path

import click

from carvana_ens.cli.common import FOLDER, fresh_help, open_project, say, threads_option, track


@click.command(short_help="Make a member of maps made elsewhere.")
@click.argument("name")
@click.option("--from", "source", type=FOLDER, required=True, help="Folder of 8-bit grey PNG maps, <id>.png.")
@click.option("--split", type=click.Choice(["oof", "test"]), required=True, help="Which photos the maps are of.")
@click.option("--out-of-fold", is_flag=True, help="You say that no map was made by a model that saw its image's group.")
@click.option("--fresh", is_flag=True, help=fresh_help)
@threads_option
@click.pass_context
def command(
    ctx: click.Context, name: str, source: Path, split: str, out_of_fold: bool, fresh: bool, threads: int | None
) -> None:
    """Make a member of probability maps that were made elsewhere; 0 is background, 255 is object.

    \b
    Example:
      carvana-ens import linknet --from linknet_test_png --split test
    """
    from carvana_ens.engine import default_threads
    from carvana_ens.verbs.import_maps import import_maps

    done = import_maps(
        open_project(ctx),
        name,
        source,
        split=split,
        out_of_fold=out_of_fold,
        fresh=fresh,
        threads=threads or default_threads(),
        say=say,
        track=track,
    )
    click.echo(f"{done.path}: {done.new} maps imported, {done.images} in all")
