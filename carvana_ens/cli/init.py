"""carvana-ens init."""

from __future__ import annotations

from pathlib import Path

import click

from carvana_ens.cli.common import ANY_PATH, FOLDER, say


@click.command(short_help="Make a project.")
@click.argument("folder", type=FOLDER)
@click.option("--images", type=FOLDER, help="Training photos, <id>.jpg or .png.")
@click.option("--masks", type=ANY_PATH, help="Their masks: a folder, an RLE CSV (img,rle_mask), or COCO JSON.")
@click.option("--test", type=FOLDER, help="Photos to predict.")
@click.option(
    "--group", help="What no fold may split: capture group of a regex on the id.  [default: id up to the last _]"
)
@click.option(
    "--category", "categories", multiple=True, help="COCO category of the object; may be given more than once."
)
@click.option("--folds", type=click.IntRange(1), help="Number of folds.  [default: 5, or the number of groups if less]")
@click.option("--holdout", type=float, help="In place of --folds: share of the groups to hold out, for example 0.2.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the default fold table.")
def command(
    folder: Path,
    images: Path | None,
    masks: Path | None,
    test: Path | None,
    group: str | None,
    categories: tuple[str, ...],
    folds: int | None,
    holdout: float | None,
    seed: int,
) -> None:
    """Make a project: write FOLDER/ensemble.toml.

    Without photos the project only blends maps that are imported.

    \b
    Example:
      carvana-ens init cars --images train_hq --masks train_masks --test test_hq
    """
    from carvana_ens.project import DataConfig, FoldsConfig
    from carvana_ens.verbs.members import init

    data = DataConfig(images=images, masks=masks, test=test, group=group, categories=categories)
    done = init(folder, data, FoldsConfig(folds, holdout, seed), say=say)
    for line in done.lines:
        click.echo(line)
    click.echo(
        f"wrote {done.project.file}; next: cd {folder} and carvana-ens add-model (carvana-ens models lists them)"
    )
