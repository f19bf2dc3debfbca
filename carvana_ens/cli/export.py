"""carvana-ens export."""

from __future__ import annotations

from pathlib import Path

import click

from carvana_ens.cli.common import ANY_PATH, json_option, open_project, show_json, threads_option, track
from carvana_ens.cli.completed import MEMBER


@click.command(short_help="Write a member's maps in a plain format.")
@click.argument("member", type=MEMBER)
@click.option("--split", default="test", show_default=True, help="Which maps: test, oof, or a name given to predict.")
@click.option(
    "--to",
    type=click.Choice(["zarr", "png", "npy", "npz", "hdf5"]),
    required=True,
    help="See above.",
)
@click.option("-o", "--output", type=ANY_PATH, required=True, help="Folder or file to make.")
@threads_option
@json_option
@click.pass_context
def command(
    ctx: click.Context, member: str, split: str, to: str, output: Path, threads: int | None, as_json: bool
) -> None:
    """Write the maps of MEMBER, packed or not, as others read them; import reads each of these back.

    \b
    zarr   a plain store, one image a chunk, that every zarr reads; a stopped export goes on where it was
    png    folder of <id>.png, grey of 8 bits (255 is object) or 16 (65535)
    npy    folder of <id>.npy
    npz    one file with the arrays maps (N, H, W) and ids
    hdf5   one file with datasets of the same names

    Masks are written by blend: one member's at 0.5 with blend --weights MEMBER=1 --masks masks.json.

    \b
    Example:
      carvana-ens export linknet --to zarr -o linknet_test.zarr
      carvana-ens export linknet --to png -o linknet_test_png
    """
    from carvana_ens.verbs.export import export

    done = export(open_project(ctx), member, output, split=split, to=to, threads=threads, track=track)
    if as_json:
        show_json({**vars(done), "path": str(done.path)})
    else:
        click.echo(f"{done.path}: {done.new} maps written, {done.images} in all")
