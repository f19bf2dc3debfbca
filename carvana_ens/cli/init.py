"""carvana-ens init."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from carvana_ens.cli.common import ANY_PATH, DIALECTS, FOLDER, by_view_option, fold_rule_option, say


@click.command(short_help="Make a project.")
@click.argument("folder", type=FOLDER)
@click.option("--images", type=FOLDER, help="Training photos, <id>.jpg or .png.")
@click.option(
    "--masks", type=ANY_PATH, help="Their masks: a folder, an RLE CSV (img,rle_mask or others), or COCO JSON."
)
@click.option("--test", type=FOLDER, help="Photos to predict.")
@click.option(
    "--group", help="What no fold may split: capture group of a regex on the id.  [default: id up to the last _]"
)
@click.option(
    "--category", "categories", multiple=True, help="COCO category of the object; may be given more than once."
)
@click.option(
    "--dialect",
    type=click.Choice(DIALECTS),
    help="Of the run lengths, where the masks are an RLE CSV.  [default: carvana]",
)
@click.option("--folds", type=click.IntRange(1), help="Number of folds.  [default: 5, or the number of groups if less]")
@click.option("--holdout", type=float, help="In place of --folds: share of the groups to hold out, for example 0.2.")
@fold_rule_option
@by_view_option
@click.option(
    "--extra",
    "extras",
    type=(FOLDER, ANY_PATH),
    multiple=True,
    metavar="IMAGES MASKS",
    help="More photos with masks, trained on in every fold and never held out; may be given more than once.",
)
@click.option(
    "--extra-share",
    "shares",
    type=float,
    multiple=True,
    help="Share of each mini-batch, one for each --extra.  [default: each photo once an epoch]",
)
@click.option(
    "--stores",
    metavar="ADDRESS|FOLDER",
    help="Where the maps are to lie, such as s3://bucket/cars.  [default: the project's folder stores]",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the default fold table.")
def command(
    folder: Path,
    images: Path | None,
    masks: Path | None,
    test: Path | None,
    group: str | None,
    categories: tuple[str, ...],
    dialect: str | None,
    folds: int | None,
    holdout: float | None,
    fold_rule: Literal["rank", "histogram"],
    by_view: str | None,
    extras: tuple[tuple[Path, Path], ...],
    shares: tuple[float, ...],
    stores: str | None,
    seed: int,
) -> None:
    """Make a project: write FOLDER/ensemble.toml.

    Without photos the project only blends maps that are imported. An address (extra [s3]) takes keys and endpoint from
    the environment, see predict --help.

    \b
    Example:
      carvana-ens init cars --images train_hq --masks train_masks --test test_hq
      carvana-ens init cars --images train_hq --masks train_masks --folds 7 --fold-rule histogram
      carvana-ens init cars --images train_hq --masks train_masks --extra drawn drawn_masks --extra-share 0.2
      carvana-ens init cars --test test_hq --stores s3://bucket/cars
    """
    from carvana_ens.errors import UsageError
    from carvana_ens.project import DataConfig, ExtraConfig, FoldsConfig
    from carvana_ens.verbs.members import init

    if shares and len(shares) != len(extras):
        raise UsageError(f"{len(extras)} --extra and {len(shares)} --extra-share: give one share for each, or none")
    extra = tuple(
        ExtraConfig(*paths, share) for paths, share in zip(extras, shares or [None] * len(extras), strict=True)
    )
    data = DataConfig(images, masks, test, group, categories, extra, dialect)
    done = init(folder, data, FoldsConfig(folds, holdout, seed, fold_rule, by_view), stores, say=say)
    for line in done.lines:
        click.echo(line)
    click.echo(
        f"wrote {done.project.file}; next: cd {folder} and carvana-ens add-model (carvana-ens models lists them)"
    )
