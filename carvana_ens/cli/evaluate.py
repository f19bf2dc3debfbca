"""carvana-ens evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from carvana_ens.cli.common import (
    ANY_PATH,
    FILE,
    FOLDER,
    SIZE,
    dialect_option,
    json_option,
    open_project,
    say,
    show_json,
    table,
    track,
)
from carvana_ens.errors import ProjectError

if TYPE_CHECKING:
    from carvana_ens.types import Size


@click.command(short_help="Score a submission against masks.")
@click.argument("submission", type=FILE)
@click.option(
    "--masks",
    type=ANY_PATH,
    help="The truth: a folder, an RLE CSV of --dialect, or COCO JSON.  [default: of the project]",
)
@click.option("--category", "categories", multiple=True, help="COCO category of the object.")
@click.option("--images", type=FOLDER, help="The photos, if the masks do not say how large they are.")
@click.option("--size", type=SIZE, metavar="HxW", help="Size of all images, in place of --images.")
@click.option("--group", help="Regex with one capture group on the id, for the means by group.")
@click.option("--partial", is_flag=True, help="Score the images that both have, instead of refusing others.")
@dialect_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    submission: Path,
    masks: Path | None,
    categories: tuple[str, ...],
    images: Path | None,
    size: Size | None,
    group: str | None,
    partial: bool,
    dialect: str,
    as_json: bool,
) -> None:
    """Score a SUBMISSION (.csv, .csv.gz), also one that was not made here, against masks.

    \b
    Example:
      carvana-ens evaluate oof.csv --masks ../train_masks
      carvana-ens evaluate oof.csv
    """
    from carvana_ens.verbs.evaluate import evaluate, evaluate_here

    if masks is None:
        for option, value in (("--category", categories), ("--images", images), ("--size", size), ("--group", group)):
            if value:
                raise click.UsageError(f"{option} says how to read --masks: give both, or neither", ctx)
        try:
            project = open_project(ctx)
        except ProjectError as error:
            raise click.UsageError(f"name the truth with --masks, or evaluate in a project: {error}", ctx) from None
        found = evaluate_here(project, submission, partial=partial, dialect=dialect, say=say, track=track)
    else:
        found = evaluate(
            submission,
            masks,
            categories=categories,
            images=images,
            size=size,
            group=group,
            partial=partial,
            dialect=dialect,
            track=track,
        )
    if as_json:
        show_json(
            {
                "metric": "mean Dice",
                "images": found.images,
                "dice": found.dice,
                "pooled_dice": found.pooled,
                "groups": dict(found.by_group),
                "by_image": dict(found.by_image),
            }
        )
        return
    click.echo(f"mean Dice {found.dice:.6f} of {found.images} images (pooled Dice {found.pooled:.6f})")
    if 1 < len(found.by_group) <= 20:
        click.echo(table([("GROUP", "MEAN DICE"), *((name, f"{dice:.6f}") for name, dice in found.by_group.items())]))
    click.echo("worst: " + ", ".join(f"{image_id} {dice:.4f}" for image_id, dice in found.worst(5)))
