"""The recipe of a torch network as flat options. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from carvana_ens.learn.augment_options import AugmentOptions
from carvana_ens.learn.loss_options import LossOptions
from carvana_ens.learn.optimisers import OptimiserOptions
from carvana_ens.learn.schedules import ScheduleOptions
from carvana_ens.learn.stages import stages_of
from carvana_ens.model import option


@dataclass(frozen=True)
class EpochOptions:
    """How often photos are seen, how many make a step, and which epoch is kept.

    Carvana's solutions: the Keras U-Nets patience 8 with min_delta 1e-5, drop_last, and accumulate 14 to 84 (their
    accumulation also moved the parameters between its steps, which is not offered); asanakoy (first place) batch_size
    1, accumulate 4, accumulate_as sum; albu (first place) batch_size 4, drop_last, replay 10, best_by loss; ternaus
    (first place) best_by loss; JunhongXu's stages "1024x1024; 1152x1152; 1280x1792".

    Raises:
        ValueError: an option out of its range.
    """

    epochs: int = option(40, "passes over the training photos")
    batch_size: int = option(2, "photos of a mini-batch, in each process")
    accumulate: int = option(1, "mini-batches of one step: their gradients are collected before the parameters move")
    accumulate_as: Literal["mean", "sum"] = option(
        "mean", "mean: as one batch of all their photos (for losses by photo); sum: gradients added, so longer steps"
    )
    drop_last: bool = option(False, "leave out the last mini-batch of an epoch if it is not full")
    replay: int = option(
        0, "after step 1 of an epoch and every so many more, the step with the worst loss since is done again; 0: never"
    )
    ema: float = option(
        0.0, "validate and keep moving averages of the parameters: ema x average + (1 - ema) x new at each step; 0: no"
    )
    stages: str = option(
        "",
        "a curriculum, each stage from the best parameters of the one before: "
        '"512x768 epochs=10 batch=4 rate=1e-3; 1024x1536 epochs=5 rate=3e-4"',
    )
    valid_every: int = option(1, "validate after every so many epochs, and after the last")
    best_by: Literal["dice", "loss"] = option("dice", "what validation goes by: the highest Dice or the lowest loss")
    patience: int = option(0, "stop after so many validations without a better one; 0 runs every epoch")
    min_delta: float = option(0.0, "what a validation must gain to count as better for patience")

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1),
            ("batch_size", 1),
            ("accumulate", 1),
            ("replay", 0),
            ("valid_every", 1),
            ("patience", 0),
            ("min_delta", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"option {name} is {getattr(self, name)}: it must be at least {least}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"option ema is {self.ema}: it must be at least 0 and below 1")


@dataclass(frozen=True)
class MachineOptions:
    """How the machine computes: speed for a few last digits."""

    precision: Literal["float32", "bfloat16", "float16"] = option(
        "float32", "of the network in training; bfloat16 and float16 are mixed precision, float16 on a GPU alone"
    )
    channels_last: bool = option(True, "images lie pixel by pixel in memory; false: channel by channel")
    compile: Literal["none", "inductor", "aot_eager", "eager"] = option(
        "none", "backend of torch.compile for training; inductor is the fast one"
    )
    ahead: int = option(2, "mini-batches read while one is trained on")

    def __post_init__(self) -> None:
        if self.ahead < 1:
            raise ValueError(f"option ahead is {self.ahead}: it must be at least 1")


COLOURS = (
    "what the network sees: rgb, bgr, hsv (hue, saturation, value, each 0..1), or one channel: gray (luma), mean (of "
    "red, green and blue)"
)
NORMALISING = (
    "unit: 0..1; less mean, by deviation: imagenet: ImageNet's; photo: each photo's own; fold: those of each channel "
    "over the fold's training photos, kept in its checkpoint; batch: the mini-batch's, in prediction the group's"
)


@dataclass(frozen=True)
class InputOptions:
    """How a network sees photos, in training and in prediction.

    Raises:
        ValueError: ImageNet's numbers for colours that are no red, green and blue.
    """

    equalise: bool = option(
        False, "contrast-limited histogram equalising of each photo (clip 2, 8x8 tiles, on Y of YUV) on its own grid"
    )
    colour: Literal["rgb", "bgr", "gray", "mean", "hsv"] = option("rgb", COLOURS)
    normalise: Literal["imagenet", "unit", "photo", "batch", "fold"] = option("imagenet", NORMALISING)
    pad: Literal["none", "zero", "edge", "reflect"] = option(
        "none",
        "none: photos are resized to the input size; zero, edge, reflect: they keep their pixels and get black, "
        "border or mirrored ones beside them, up to the member's own size, or to the least that the network takes",
    )
    pad_sides: Literal["after", "both"] = option(
        "after", "where padding lies: after (right and below), or both (half of it left and above)"
    )
    roi: str = option(
        "", "member in whose finished maps the object is found first: photos are cut to it, and maps are 0 elsewhere"
    )
    roi_margin: int = option(64, "pixels of the photo around what roi has found")

    def __post_init__(self) -> None:
        if self.roi_margin < 0:
            raise ValueError(f"option roi_margin is {self.roi_margin}: it must be 0 or more")
        if self.colour == "hsv" and self.normalise == "imagenet":
            raise ValueError(
                "option normalise is imagenet, whose mean and deviation are of red, green and blue, and colour is hsv: "
                "set normalise to unit, photo, batch or fold"
            )


PARTS = (AugmentOptions, LossOptions, ScheduleOptions, OptimiserOptions, EpochOptions, MachineOptions, InputOptions)


@dataclass(frozen=True)
class TorchOptions(
    InputOptions, MachineOptions, AugmentOptions, LossOptions, ScheduleOptions, OptimiserOptions, EpochOptions
):
    """How a torch network sees photos and is trained.

    A plugin derives from it to add options, or to change defaults: that is how a recipe of its own is written down.

    Raises:
        ValueError: an option out of its range.
    """

    def __post_init__(self) -> None:
        for part in PARTS:
            part.__post_init__(self)
        if self.stages:
            stages_of(self)
