"""The check of what a model's numbers mean: stretched photo by photo, or sent through the sigmoid already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from carvana_ens.model import Batch, Model
from carvana_ens.testing.drawn import SIZE, draw_image
from carvana_ens.testing.predicted import answer, trained_on_drawn
from carvana_ens.testing.trial import config_of, loaded, refused
from carvana_ens.types import Image, Json, Size

FADED = ((0, 128, 1.0), (1, 60, 0.02), (2, 200, 0.1), (0, 120, 0.02), (1, 90, 0.3))
"""Photos by number, the level that they are faded to, and what is left of their contrast."""
SAME = 1e-3
"""Of a map's range: least and greatest values as near as this are the same ones."""
WIDE = 0.5
"""Logits within [0, 1] are called probabilities if they reach over this much of it: a network that has hardly been
trained gives nearly one and the same number, which may lie there too."""


def faded(number: int, level: int, contrast: float, size: Size) -> Image:
    """Photo ``number`` behind fog: (H, W, 3) uint8, its levels drawn towards ``level``."""
    photo: Image = np.rint(level + contrast * (draw_image(number, size) - 128.0)).clip(0, 255).astype(np.uint8)
    return photo


def check_calibration(
    model_class: type[Model], options: Mapping[str, Json], checkpoint: Path | None = None, size: Size = SIZE
) -> None:
    """Maps are not stretched to one range photo by photo, and logits are no probabilities.

    A map stretched to [0, 1] says that something is there where nothing is, and cannot be blended with others. Maps
    that come from a sigmoid but are called logits go through the host's sigmoid once more: none is under 0.5 then.

    Arguments as for ``check_answers``.

    Raises:
        PluginError: they are.
    """
    with trained_on_drawn(model_class, options, checkpoint, size) as trained:
        model = loaded(model_class, config_of(model_class, options, size), trained)
        maps = [
            answer(model, Batch(faded(*photo, size)[None], (f"f{place:02d}_01",), (f"f{place:02d}",)))[0]
            for place, photo in enumerate(FADED)
        ]
    lows, highs = (np.array([end(values) for values in maps]) for end in (np.min, np.max))
    spread = float(highs.max() - lows.min())
    if model_class.output == "logits" and lows.min() >= 0 and highs.max() <= 1 and spread > WIDE:
        raise refused(
            model_class,
            f"predict gives logits from {lows.min():.3g} to {highs.max():.3g} on all photos, which look like "
            "probabilities: leave the sigmoid out, or set output = 'probabilities'",
        )
    alike = max(float(np.ptp(lows)), float(np.ptp(highs))) <= SAME * spread
    if alike and spread > 0 and float(np.abs(maps[1] - maps[0]).max()) > SAME * spread:
        raise refused(
            model_class,
            f"every map reaches from {lows[0]:.3g} to {highs[0]:.3g}, also where the photo has hardly any contrast: "
            "do not stretch maps to the range of each photo",
        )
