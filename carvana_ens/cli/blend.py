"""carvana-ens blend."""

from __future__ import annotations

from pathlib import Path

import click

from carvana_ens.cli.common import (
    ANY_PATH,
    FILE,
    chosen_workers,
    dialect_option,
    json_option,
    open_project,
    say,
    show_json,
    threads_option,
    track,
    worker_options,
)


@click.command(short_help="Blend maps into a submission.")
@click.option("--weights", default="equal", show_default=True, help="equal, tuned, or name=w,name=w,...")
@click.option(
    "--threshold", help="tuned, or a number in (0, 1]: 0.5, 128/255.  [default: tuned with tuned weights, else 0.5]"
)
@click.option("--split", default="test", show_default=True, help="Which maps: test, oof, or a name given to predict.")
@click.option(
    "--postprocess",
    metavar="STEP,STEP,...",
    help="What each mask goes through: largest,fill-holes:area=400; see carvana-ens models --steps.  [default: the "
    "tuned ones with tuned weights, else none]",
)
@click.option("-o", "--output", type=FILE, help="Submission to write: .csv or .csv.gz.")
@click.option("--masks", type=ANY_PATH, help="Also write the masks here: a folder for PNG and YOLO, else a file.")
@click.option(
    "--masks-as",
    type=click.Choice(["png", "coco", "yolo", "geojson"]),
    help="Form of the masks.  [default: coco to .json, geojson to .geojson, else png]",
)
@click.option(
    "--sample-submission",
    type=FILE,
    help="Refuse if the images are not exactly those of this file; header and names become its.",
)
@dialect_option
@click.option(
    "--header",
    metavar="ID,RLE",
    help="Of the submission: img,rle_mask (with .jpg behind the ids), id,rle_mask, ImageId,EncodedPixels, id,rle, "
    "id,predicted or record_id,encoded_pixels.  [default: as --dialect: column-major has id,rle_mask, relative "
    "ImageId,EncodedPixels, the others img,rle_mask]",
)
@click.option("--check", is_flag=True, help="Decode every row of the file again and compare it with its mask.")
@threads_option
@worker_options
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    weights: str,
    threshold: str | None,
    split: str,
    postprocess: str | None,
    output: Path | None,
    masks: Path | None,
    masks_as: str | None,
    sample_submission: Path | None,
    dialect: str,
    header: str | None,
    check: bool,
    threads: int | None,
    workers: int | None,
    scheduler: str | None,
    worker_limit: float | None,
    as_json: bool,
) -> None:
    """Blend the members' maps and write the masks as run lengths.

    Exact: the text of the submission depends on maps, weights, threshold and steps alone.

    \b
    Example:
      carvana-ens blend --weights tuned -o submission.csv.gz
      carvana-ens blend --weights linknet=2,unet=1 --threshold 0.5 -o by_hand.csv --masks masks
      carvana-ens blend --weights linknet=1 --masks linknet.json
      carvana-ens blend --postprocess largest,fill-holes:area=400 -o mended.csv.gz
      carvana-ens blend --dialect column-major --sample-submission sample_submission.csv -o salt.csv
    """
    from carvana_ens.verbs.blend import blend

    done = blend(
        open_project(ctx),
        output,
        weights=weights,
        threshold=threshold,
        split=split,
        postprocess=postprocess,
        masks=masks,
        masks_as=masks_as,
        sample_submission=sample_submission,
        dialect=dialect,
        header=header,
        check=check,
        threads=threads,
        workers=chosen_workers(workers, scheduler, worker_limit),
        say=say,
        track=track,
    )
    if as_json:
        show_json(
            {
                "path": None if done.path is None else str(done.path),
                "images": done.images,
                "weights": done.weights,
                "threshold": done.threshold,
                "postprocess": done.postprocess,
                "checked": done.checked,
            }
        )
        return
    used = ", ".join(f"{name} {weight}" for name, weight in done.weights.items())
    where = " and ".join(str(path) for path in (output, masks) if path is not None)
    steps = f", then {done.postprocess}" if done.postprocess else ""
    click.echo(f"wrote {where}: {done.images} images, weights {used}, threshold {done.threshold}{steps}")
    if done.checked:
        click.echo(f"decoded again: {done.checked} of {done.checked} rows are their masks, pixel by pixel")
