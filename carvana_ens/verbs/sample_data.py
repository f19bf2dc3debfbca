"""sample-data: drawn studio photos in Carvana's layout."""

from __future__ import annotations

from pathlib import Path

from carvana_ens.data.sample import SampleReport, make_sample
from carvana_ens.types import Size, Track, untracked


def sample_data(
    folder: Path,
    *,
    cars: int = 6,
    views: int = 16,
    size: Size,
    seed: int = 0,
    track: Track = untracked,
) -> SampleReport:
    """Draws the photos and masks of ``cars`` cars; see ``data.sample``.

    Raises:
        UsageError: too few cars or views, or too small a size.
        DataError: the folder is there and not empty.
    """
    return make_sample(folder, cars, views, size, seed, track)
