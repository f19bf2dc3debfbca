"""carvana-ens predict."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from carvana_ens.cli.common import (
    FAILED_INPUTS,
    FOLDER,
    break_lock_option,
    chosen_workers,
    device_option,
    fresh_help,
    json_option,
    open_project,
    say,
    show_json,
    track,
    worker_options,
)
from carvana_ens.cli.completed import MEMBER


@click.command(short_help="Write probability maps into stores.")
@click.argument("members", nargs=-1, type=MEMBER)
@click.option("--fold", type=click.IntRange(0), help="Only the out-of-fold maps of this fold.")
@click.option("--split", help="Only oof or test; or with --images a name for the maps of other photos.")
@click.option("--images", type=FOLDER, help="Other photos to predict; needs --split NAME.")
@device_option
@click.option(
    "--dtype", type=click.Choice(["uint8", "uint16"]), default="uint8", show_default=True, help="Of the codes."
)
@click.option(
    "--batch", type=click.IntRange(1), help="Photos that a network is given at once.  [default: fitting the device]"
)
@click.option("--fresh", is_flag=True, help=fresh_help)
@break_lock_option
@worker_options
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    members: tuple[str, ...],
    fold: int | None,
    split: str | None,
    images: Path | None,
    device: str,
    dtype: Literal["uint8", "uint16"],
    batch: int | None,
    fresh: bool,
    break_lock: bool,
    workers: int | None,
    scheduler: str | None,
    worker_limit: float | None,
    as_json: bool,
) -> int:
    """Write the probability maps of MEMBERS (default: all) to MEMBER/SPLIT.zarr in the folder stores, or
    where ensemble.toml has them.

    Training photos are predicted by the fold model that has not seen them, test photos by the mean of all fold
    models. Maps that are there are kept.

    Workers are processes of this machine, one for each CUDA device in turn, or of many (extra [dist]); these need
    the same versions, and the project, photos and stores under the same paths. The maps do not depend on how many
    there are. Photos that cannot be predicted are listed, here and there, and the exit code is 3.

    Stores at an address (s3://bucket/cars, extra [s3]): keys, region and endpoint come from AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL; AWS_ALLOW_HTTP=true for http.

    \b
    Example:
      carvana-ens predict
      carvana-ens predict mobilenet --images ../new_photos --split new
      carvana-ens predict --workers 8
      carvana-ens predict --scheduler tls://head:8786
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
        break_lock=break_lock,
        dtype=dtype,
        batch=batch,
        workers=chosen_workers(workers, scheduler, worker_limit),
        say=say,
        track=track,
    )
    if as_json:
        show_json([{**vars(done), "path": str(done.path), "meter": vars(done.meter)} for done in results])
    for done in results:
        rest = f", {done.missing} missing" if done.missing else ""
        if not as_json:
            click.echo(f"{done.path}: {done.new} maps predicted, {done.images} in all{rest}")
        for image_id, reason in sorted(done.failed.items()):
            say(f"failed: {image_id} ({done.member}, {done.split}): {' '.join(reason.split())}")
    return FAILED_INPUTS if any(done.failed for done in results) else 0
