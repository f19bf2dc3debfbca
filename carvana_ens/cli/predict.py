"""carvana-ens predict."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from carvana_ens.cli.common import FOLDER, device_option, fresh_help, open_project, say, track


@click.command(short_help="Write probability maps into stores.")
@click.argument("members", nargs=-1)
@click.option("--fold", type=click.IntRange(0), help="Only the out-of-fold maps of this fold.")
@click.option("--split", help="Only oof or test; or with --images a name for the maps of other photos.")
@click.option("--images", type=FOLDER, help="Other photos to predict; needs --split NAME.")
@device_option
@click.option(
    "--dtype", type=click.Choice(["uint8", "uint16"]), default="uint8", show_default=True, help="Of the codes."
)
@click.option("--fresh", is_flag=True, help=fresh_help)
@click.pass_context
def command(
    ctx: click.Context,
    members: tuple[str, ...],
    fold: int | None,
    split: str | None,
    images: Path | None,
    device: str,
    dtype: Literal["uint8", "uint16"],
    fresh: bool,
) -> None:
    """Write the probability maps of MEMBERS (default: all) to stores/MEMBER/SPLIT.zarr.

    Training photos are predicted by the fold model that has not seen them, test photos by the mean of all fold
    models. Maps that are there are kept.

    \b
    Example:
      carvana-ens predict
      carvana-ens predict mobilenet --images ../new_photos --split new
    """
    from carvana_ens.verbs.predict import predict

    results = predict(
        open_project(ctx),
        members,
        fold=fold,
        split=split,
        images=images,
        device=device,
        fresh=fresh,
        dtype=dtype,
        say=say,
        track=track,
    )
    for done in results:
        rest = f", {done.missing} missing" if done.missing else ""
        click.echo(f"{done.path}: {done.new} maps predicted, {done.images} in all{rest}")
