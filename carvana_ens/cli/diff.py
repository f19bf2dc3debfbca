"""carvana-ens diff."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from carvana_ens.cli.common import (
    FILE,
    FOLDER,
    SIZE,
    dialect_option,
    json_option,
    show_json,
    table,
    threads_option,
    track,
)

if TYPE_CHECKING:
    from carvana_ens.types import Size
    from carvana_ens.verbs.diff import MaskDifferences


@click.command(short_help="Compare two locks, or two submissions pixel by pixel.")
@click.argument("one", type=FILE)
@click.argument("other", type=FILE)
@click.option("--images", type=FOLDER, help="The photos, which say how large masks are.")
@click.option("--size", type=SIZE, metavar="HxW", help="Size of all masks, in place of --images.")
@dialect_option
@click.option("--other-dialect", metavar="NAME", help="Of the second submission.  [default: that of the first]")
@click.option("--worst", type=click.IntRange(0), default=10, show_default=True, help="Images to list.")
@threads_option
@json_option
def command(
    one: Path,
    other: Path,
    images: Path | None,
    size: Size | None,
    dialect: str,
    other_dialect: str | None,
    worst: int,
    threads: int | None,
    as_json: bool,
) -> int:
    """Say in what ONE and OTHER differ: locks (.json), or submissions (.csv, .csv.gz, .zip).

    Exit code 0: in nothing. 1: they differ.

    \b
    Example:
      carvana-ens diff old.csv.gz new.csv.gz --images ../test_hq --worst 5
      carvana-ens diff old.lock.json ensemble.lock.json
    """
    from carvana_ens.verbs.diff import diff_locks, diff_masks, is_lock

    if is_lock(one) != is_lock(other):
        raise click.UsageError("diff compares two locks, or two submissions: got one of each")
    if is_lock(one):
        lines = [difference.text for difference in diff_locks(one, other)]
        if as_json:
            show_json({"same": not lines, "differences": lines})
        else:
            click.echo("\n".join(lines) or "the same in all that is compared")
        return 1 if lines else 0
    if images is not None and size is not None:
        raise click.UsageError("--images and --size both say how large masks are: give one of them")
    dialects = dialect, other_dialect or dialect
    found = diff_masks(one, other, images=images, size=size, dialects=dialects, threads=threads, track=track)
    if as_json:
        show_json(_document(found, worst))
    else:
        _show(one, other, found, worst)
    return 0 if found.same else 1


def _document(found: MaskDifferences, worst: int) -> dict[str, object]:
    return {
        "same": found.same,
        "images": found.images,
        "only_in_one": found.only[0],
        "only_in_other": found.only[1],
        "differing": len(found.differing),
        "pixels": found.pixels,
        "mean_dice": found.dice,
        "worst": [
            {"image": image.image_id, "pixels": image.pixels, "dice": image.dice, "areas": image.areas}
            for image in found.differing[:worst]
        ],
    }


def _show(one: Path, other: Path, found: MaskDifferences, worst: int) -> None:
    for path, ids in ((one, found.only[0]), (other, found.only[1])):
        if ids:
            click.echo(f"only in {path}: {len(ids)} images, {', '.join(ids[:3])}{', ...' if len(ids) > 3 else ''}")
    if found.same:
        how = "every row has the same text" if not found.decoded else f"{found.decoded} rows are written otherwise"
        click.echo(f"the same masks of {found.images} images: {how}")
    if not found.differing:
        return
    click.echo(
        f"{len(found.differing)} of {found.images} images differ, in {found.pixels} pixels; mean Dice {found.dice:.6f}"
    )
    rows = [(image.image_id, image.pixels, f"{image.dice:.6f}", *image.areas) for image in found.differing[:worst]]
    if rows:
        click.echo(table([("IMAGE", "PIXELS", "DICE", "AREA IN ONE", "IN OTHER"), *rows]))
