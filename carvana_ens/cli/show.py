"""carvana-ens show."""

from __future__ import annotations

from pathlib import Path

import click

from carvana_ens.cli.common import FILE, FOLDER, open_project, track


@click.command(short_help="Draw photos, maps and blends.")
@click.argument("ids", nargs=-1)
@click.option("--mosaic", is_flag=True, help="Rows of photos in turn with rows of the objects cut out, quarter size.")
@click.option("-o", "--output", type=FILE, required=True, help="Picture to write: .png or .jpg.")
@click.option("--split", help="oof, test, or a name given to predict.  [default: where the ids are]")
@click.option("--weights", default="equal", show_default=True, help="equal, tuned, or name=w,name=w,...")
@click.option("--threshold", help="tuned, or a number in (0, 1].  [default: tuned with tuned weights, else 0.5]")
@click.option("--postprocess", metavar="STEP,STEP,...", help="What masks go through, as of blend.")
@click.option("--images", type=FOLDER, help="The photos of a split that is neither oof nor test.")
@click.pass_context
def command(
    ctx: click.Context,
    ids: tuple[str, ...],
    mosaic: bool,
    output: Path,
    split: str | None,
    weights: str,
    threshold: str | None,
    postprocess: str | None,
    images: Path | None,
) -> None:
    """Draw photo, truth, each member's map and the blend's outline of the images IDS.

    \b
    Example:
      carvana-ens show 0a0e3fb8f782_01 0a0e3fb8f782_05 --weights tuned -o look.png
      carvana-ens show --mosaic -o mosaic.png
    """
    from carvana_ens.verbs.show import show

    drawn = show(
        open_project(ctx),
        output,
        ids,
        as_mosaic=mosaic,
        split=split,
        weights=weights,
        threshold=threshold,
        postprocess=postprocess,
        images=images,
        track=track,
    )
    click.echo(f"wrote {output}: {len(drawn)} images")
