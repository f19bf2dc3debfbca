"""How training photos are changed at random, as options; ``augment`` draws and makes the changes. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from carvana_ens.errors import UsageError
from carvana_ens.model import option
from carvana_ens.types import Size

PROBABILITIES = ("hflip", "vflip", "crop", "warp", "light", "gray", "gray_object", "repaint", "clahe")
PARTS = ("shift", "scale", "brightness", "contrast", "saturation", "hsv_saturation", "value")


@dataclass(frozen=True)
class AugmentOptions:
    """Random changes of a training photo and its mask.

    Off unless asked for is what Carvana's solutions found useless or harmful (vertical flip, large rotations), and
    what only some of them used.

    Raises:
        ValueError: an option out of its range.
    """

    hflip: float = option(0.5, "probability of a left-right flip")
    vflip: float = option(0.0, "probability of an up-down flip")
    crop: float = option(0.0, "probability of a random window, enlarged to the whole")
    crop_part: float = option(0.97, "sides of that window, as a part of the photo's")
    warp: float = option(1.0, "probability that shift, scale and rotation are drawn at all")
    shift: float = option(0.1, "largest shift, as a part of the height and of the width")
    scale: float = option(0.2, "largest change of size: factors from 1 / (1 + scale) to 1 + scale")
    scale_least: float = option(0.0, "least factor of size, instead of 1 / (1 + scale); 0: that")
    scale_most: float = option(0.0, "greatest factor of size, instead of 1 + scale; 0: that")
    rotation: float = option(0.0, "largest rotation either way, in degrees")
    fill: Literal["symmetric", "reflect", "edge", "zero"] = option(
        "symmetric", "what comes in from outside: mirrored with or without (reflect) the border pixel, edge, zero"
    )
    soft_masks: bool = option(True, "targets keep the parts of pixels that warps and resizing give; false: 0 or 1")
    patch: str = option("", "HxW: train on random windows of this size at full resolution; empty: on whole photos")
    light: float = option(1.0, "probability of each change of light: brightness, contrast, saturation, HSV")
    brightness: float = option(0.2, "largest change of brightness: factors from 1 - brightness to 1 + brightness")
    contrast: float = option(0.2, "largest change of contrast: factors from 1 - contrast to 1 + contrast")
    saturation: float = option(0.0, "largest change of saturation: factors from 1 - saturation to 1 + saturation")
    hue: float = option(0.0, "largest turn of the hue either way, in degrees of 360")
    hsv_saturation: float = option(0.0, "largest amount added to or taken from the S of HSV, of 1")
    value: float = option(0.0, "largest amount added to or taken from the V of HSV, of 1")
    gray: float = option(0.0, "probability that the photo turns gray")
    gray_object: float = option(0.0, "probability that the object alone turns gray")
    repaint: float = option(0.5, "probability of painting the object in a random colour, its shading kept")
    clahe: float = option(0.0, "probability of contrast-limited histogram equalising (clip 2, 8x8 tiles, on Y of YUV)")

    def __post_init__(self) -> None:
        for name in PROBABILITIES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"option {name} is {getattr(self, name)}: a probability lies between 0 and 1")
        for name in PARTS:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"option {name} is {getattr(self, name)}: it must be at least 0 and below 1")
        for name in ("rotation", "hue"):
            if not 0 <= getattr(self, name) <= 180:
                raise ValueError(f"option {name} is {getattr(self, name)}: degrees lie between 0 and 180")
        if not 0 < self.crop_part <= 1:
            raise ValueError(f"option crop_part is {self.crop_part}: it must be above 0 and at most 1")
        least, greatest = self.sizes
        if not 0 < least <= greatest:
            raise ValueError(
                f"options scale_least and scale_most give factors of size from {least:g} to {greatest:g}: "
                "the least must be above 0 and at most the greatest"
            )
        try:
            _ = self.window
        except UsageError as error:
            raise ValueError(f"option patch: {error}") from error

    @property
    def sizes(self) -> tuple[float, float]:
        """The least and the greatest factor of size."""
        return self.scale_least or 1 / (1 + self.scale), self.scale_most or 1 + self.scale

    @property
    def window(self) -> Size | None:
        """``patch`` as a size; None for whole photos."""
        return Size.parse(self.patch) if self.patch else None
