"""The recipe of a torch network as flat options, and the two schedules that are plain arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from carvana_ens.model import option

WARM_UP = 0.3
START = 25.0
END = 1e4


@dataclass(frozen=True)
class TorchOptions:
    """How a torch network sees photos and is trained; a plugin may derive from it to add options or change defaults.

    Raises:
        ValueError: an option out of its range.
    """

    epochs: int = option(40, "passes over the training photos")
    batch_size: int = option(2, "photos per training step")
    rate: float = option(3e-3, "peak learning rate of the one-cycle schedule")
    weight_decay: float = option(1e-2, "AdamW's weight decay; biases and normalisation layers get none")
    patience: int = option(0, "stop after so many validations without a better Dice; 0 runs every epoch")
    valid_every: int = option(1, "validate after every so many epochs, and after the last")
    hflip: float = option(0.5, "probability of a left-right flip")
    shift: float = option(0.1, "largest shift, as a part of the height and of the width")
    scale: float = option(0.2, "largest change of size: factors from 1 / (1 + scale) to 1 + scale")
    brightness: float = option(0.2, "largest change of brightness: factors from 1 - brightness to 1 + brightness")
    contrast: float = option(0.2, "largest change of contrast: factors from 1 - contrast to 1 + contrast")
    repaint: float = option(0.5, "probability of painting the object in a random colour, its shading kept")
    colour: Literal["rgb", "bgr", "gray"] = option("rgb", "what the network sees: rgb, bgr or gray (one channel)")
    normalise: Literal["imagenet", "unit", "photo"] = option(
        "imagenet", "imagenet: ImageNet's mean and deviation; unit: 0..1; photo: each photo's own mean and deviation"
    )
    pad: Literal["none", "zero", "edge", "reflect"] = option(
        "none",
        "none: photos are resized to the input size; zero, edge, reflect: they keep their pixels and get black, "
        "border or mirrored ones beside them, up to the member's own size, or to the least that the network takes",
    )
    pad_sides: Literal["after", "both"] = option(
        "after", "where padding lies: after (right and below), or both (half of it left and above)"
    )

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("valid_every", 1), ("patience", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"option {name} is {getattr(self, name)}: it must be at least {least}")
        if self.rate <= 0:
            raise ValueError(f"option rate is {self.rate}: it must be above 0")
        if self.weight_decay < 0:
            raise ValueError(f"option weight_decay is {self.weight_decay}: it must be 0 or more")
        for name in ("hflip", "repaint"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"option {name} is {getattr(self, name)}: a probability lies between 0 and 1")
        for name in ("shift", "scale", "brightness", "contrast"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"option {name} is {getattr(self, name)}: it must be at least 0 and below 1")


def one_cycle(step: int, steps: int, peak: float) -> float:
    """The learning rate of step 0 .. steps - 1: cosine from peak / 25 up to the peak over the first 30 % of the steps,
    then cosine down to peak / 250,000.

    Source: L. N. Smith and N. Topin, Super-Convergence (arXiv 1708.07120), in the two-phase cosine form of
    ``torch.optim.lr_scheduler.OneCycleLR`` with its default numbers. A formula of the step alone needs no state, so
    a resumed run cannot differ from an uninterrupted one.
    """
    first, last = peak / START, peak / START / END
    top = WARM_UP * steps - 1
    if step <= top:
        low, high, part = first, peak, step / top if top > 0 else 1.0
    else:
        low, high, part = last, peak, 1 - (step - top) / max(steps - 1 - top, 1e-9)
    return low + (high - low) * (1 - math.cos(math.pi * part)) / 2
