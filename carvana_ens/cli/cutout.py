"""carvana-ens cutout."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from carvana_ens.cli.common import (
    ANY_PATH,
    FAILED_INPUTS,
    FILE,
    FOLDER,
    chosen_workers,
    device_option,
    json_option,
    open_project,
    say,
    show_json,
    threads_option,
    track,
)


@click.command(short_help="Cut the object out of new photos.")
@click.argument("photos", nargs=-1, required=True, type=ANY_PATH, metavar="PHOTO|FOLDER...")
@click.option("-o", "--output", type=FOLDER, required=True, help="Folder for the cutouts, <stem>.png.")
@click.option(
    "--weights", help="equal, tuned, or name=w,name=w,...  [default: tuned where tuning is fresh, else equal]"
)
@click.option("--threshold", help="tuned, or a number in (0, 1].  [default: tuned with tuned weights, else 0.5]")
@click.option("--postprocess", metavar="STEP,STEP,...", help="What masks go through, as of blend.")
@click.option("--background", metavar="COLOUR|PICTURE", help="Put the object on white, #30343a or studio.jpg.")
@click.option("--mask-only", is_flag=True, help="Write the opacity alone, as 8-bit grey.")
@click.option("--crop", is_flag=True, help="Cut away what lies around the object.")
@click.option("--margin", type=click.IntRange(0), help="Pixels that --crop leaves around it.  [default: 16]")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["png", "jpg"]),
    default="png",
    show_default=True,
    help="Of the files; jpg needs a background.",
)
@click.option("--overwrite", is_flag=True, help="Make anew what is there already.")
@click.option("--sheet", type=FILE, help="Also draw the cutouts on dark and on light: .png or .jpg.")
@device_option
@threads_option
@click.option("--workers", type=click.IntRange(1, 1024), help="Predict in this many processes of this machine.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    photos: tuple[Path, ...],
    output: Path,
    weights: str | None,
    threshold: str | None,
    postprocess: str | None,
    background: str | None,
    mask_only: bool,
    crop: bool,
    margin: int | None,
    kind: Literal["png", "jpg"],
    overwrite: bool,
    sheet: Path | None,
    device: str,
    threads: int | None,
    workers: int | None,
    as_json: bool,
) -> int:
    """Cut the object out of each PHOTO, and of each in FOLDER, with the whole ensemble.

    The mask is the one that blend would write. Its rim is soft where the members are unsure, at most 3 pixels to
    either side, and the background's share is taken out of its colours. EXIF and colour profile are kept, the picture
    is upright. Cutouts that are there are kept. Photos that cannot be cut out are listed, and the exit code is 3.

    Needs the extra: pip install 'carvana-ens[cutout]'. PyMatting compiles itself when it is first used, which takes a
    minute.

    \b
    Example:
      carvana-ens cutout ../new_photos -o cutouts --sheet cutouts.jpg
      carvana-ens cutout car.jpg -o shop --background '#f4f4f4' --format jpg --crop --margin 40
    """
    from carvana_ens.output.cutouts import Finish, read_background
    from carvana_ens.verbs.cutout import cutout

    if margin is not None and not crop:
        raise click.UsageError("--margin says what --crop leaves around the object: give both")
    ground = None if background is None else read_background(background)
    around = (16 if margin is None else margin) if crop else None
    done = cutout(
        open_project(ctx),
        photos,
        output,
        weights=weights,
        threshold=threshold,
        postprocess=postprocess,
        finish=Finish(ground, mask_only, around, f".{kind}"),
        overwrite=overwrite,
        sheet=sheet,
        device=device,
        threads=threads,
        workers=chosen_workers(workers, None, None),
        say=say,
        track=track,
    )
    for photo, reason in done.failed.items():
        say(f"failed: {photo}: {' '.join(reason.split())}")
    if as_json:
        show_json({**vars(done), "written": [str(path) for path in done.written]})
    else:
        used = ", ".join(f"{name} {weight}" for name, weight in done.weights.items())
        steps = f", then {done.postprocess}" if done.postprocess else ""
        kept = f", {done.skipped} were there" if done.skipped else ""
        failed = f", {len(done.failed)} failed" if done.failed else ""
        click.echo(f"{output}: {len(done.written)} cutouts written{kept}{failed}, weights {used}{steps}")
    return FAILED_INPUTS if done.failed else 0
