"""carvana-ens sample-data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from carvana_ens.cli.common import FOLDER, SIZE, track

if TYPE_CHECKING:
    from carvana_ens.types import Size


@click.command(short_help="Draw photos and masks of cars.")
@click.argument("folder", type=FOLDER)
@click.option("--cars", type=click.IntRange(2), default=6, show_default=True, help="Cars in all; a third is for test.")
@click.option("--views", type=click.IntRange(2, 99), default=16, show_default=True, help="Photos a car.")
@click.option("--size", type=SIZE, metavar="HxW", default="1280x1918", show_default=True, help="Of a photo.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another seed, other cars.")
def command(folder: Path, cars: int, views: int, size: Size, seed: int) -> None:
    """Draw studio photos of cars on a turntable, with masks, in Carvana's own layout.

    \b
    Example:
      carvana-ens sample-data sample --cars 6 --size 320x480
    """
    from carvana_ens.verbs.sample_data import sample_data

    made = sample_data(folder, cars=cars, views=views, size=size, seed=seed, track=track)
    click.echo(f"drew {made.train_images} photos with masks and {made.test_images} test photos in {folder}")
