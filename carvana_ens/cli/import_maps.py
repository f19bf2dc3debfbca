"""carvana-ens import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from carvana_ens.cli.common import (
    ANY_PATH,
    DIALECTS,
    FILE,
    SIZE,
    break_lock_option,
    fresh_help,
    json_option,
    open_project,
    say,
    show_json,
    threads_option,
    track,
)

if TYPE_CHECKING:
    from carvana_ens.types import Size


@click.command(short_help="Make a member of maps made elsewhere.")
@click.argument("name")
@click.option("--from", "source", type=ANY_PATH, required=True, help="Folder or file of maps; see above.")
@click.option("--split", type=click.Choice(["oof", "test"]), required=True, help="Which photos the maps are of.")
@click.option(
    "--format",
    type=click.Choice(["pictures", "arrays", "stack", "hdf5", "zarr", "submission"]),
    help="What the maps are.  [default: by names and first bytes]",
)
@click.option("--key", help="Array or dataset that holds the maps, where there are several.")
@click.option("--channel", type=int, help="Which of several channels is the object, from 0; -1 is the last.")
@click.option("--ids", type=FILE, help="Text file with one image id a line, for a stack without ids.")
@click.option(
    "--dtype", type=click.Choice(["uint8", "uint16"]), help="Codes that probabilities become.  [default: uint8]"
)
@click.option("--dialect", type=click.Choice(DIALECTS), help="Of a submission's run lengths.  [default: carvana]")
@click.option("--size", type=SIZE, metavar="HxW", help="Size of all images of a submission, if there are no photos.")
@click.option("--out-of-fold", is_flag=True, help="You say that no map was made by a model that saw its image's group.")
@click.option("--fresh", is_flag=True, help=fresh_help)
@break_lock_option
@threads_option
@click.option(
    "--dry-run", is_flag=True, help="Check ids and sizes, say how many maps are to be read, and write nothing."
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    name: str,
    source: Path,
    split: str,
    format: str | None,
    key: str | None,
    channel: int | None,
    ids: Path | None,
    dtype: Literal["uint8", "uint16"] | None,
    dialect: str | None,
    size: Size | None,
    out_of_fold: bool,
    fresh: bool,
    break_lock: bool,
    threads: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make a member of probability maps that were made elsewhere. A stopped import goes on where it was.

    \b
    pictures    folder of <id>.png or .tif, grey of 8 bits (255 is object) or 16 (65535)
    arrays      folder of <id>.npy or .npz, nnU-Net's among them (its last channel)
    stack       one .npy or .npz, (N, H, W), with the array "ids" or --ids
    hdf5        one dataset (N, H, W) with the dataset "ids", or one dataset a map
    zarr        one array (N, H, W) with the array "ids", or a store of another project
    submission  .csv, .csv.gz or .zip of run lengths, as votes of 0 and 1

    Codes (uint8, uint16) are kept. Probabilities p in [0, 1] become rint(255 p), half to even, in float32; with --dtype
    uint16 rint(65535 p).

    \b
    Example:
      carvana-ens import linknet --from linknet_test_png --split test
      carvana-ens import nnunet --from nnUNet_predictions --split test --dtype uint16
      carvana-ens import votes --from theirs.csv.gz --split test --dry-run
    """
    from carvana_ens.engine import default_threads
    from carvana_ens.verbs.import_maps import import_maps
    from carvana_ens.verbs.map_sources import MapOptions

    done = import_maps(
        open_project(ctx),
        name,
        source,
        split=split,
        options=MapOptions(format, key, channel, ids, dialect),
        dtype=dtype,
        size=size,
        out_of_fold=out_of_fold,
        fresh=fresh,
        break_lock=break_lock,
        threads=threads or default_threads(),
        dry_run=dry_run,
        say=say,
        track=track,
    )
    if as_json:
        show_json({**vars(done), "path": str(done.path)})
    else:
        click.echo(f"{done.path}: {done.new} maps {'to import' if dry_run else 'imported'}, {done.images} in all")
