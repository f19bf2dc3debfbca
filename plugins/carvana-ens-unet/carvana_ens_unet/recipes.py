"""How the authors trained these U-Nets on Carvana, as recipes: plain option values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carvana_ens import Recipe

Options = Mapping[str, Any]

PLAIN: Options = {
    "hflip": 0.0,
    "warp": 0.0,
    "shift": 0.0,
    "scale": 0.0,
    "rotation": 0.0,
    "light": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "repaint": 0.0,
    "pad": "none",
}
"""No augmentation, photos squashed."""

KERAS: Options = {
    **PLAIN,
    "colour": "rgb",
    "normalise": "unit",
    "loss": "bce-positive,dice-batch",
    "border": "auto",
    "border_rule": "tensorflow",
    "optimiser": "sgd",
    "rate": 1e-2,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 0.0,
    "schedule": "plateau",
    "plateau_factor": 0.333,
    "plateau_patience": 3,
    "plateau_delta": 1e-4,
    "plateau_least": 1e-4,
    "epochs": 50,
    "drop_last": True,
    "best_by": "dice",
    "patience": 8,
    "min_delta": 1e-5,
    "hflip": 0.5,
    "warp": 0.5,
    "shift": 0.0625,
    "scale_least": 0.9,
    "scale_most": 1.1,
    "fill": "zero",
}
"""The Keras solution: ``rate_decay`` was 1e-6 a mini-batch, and 64 photos made a step of its 1024 network."""

JUNHONGXU: Options = {
    **PLAIN,
    "colour": "bgr",
    "normalise": "unit",
    "loss": "bce,iou,focal-positive",
    "border": "11",
    "border_rule": "torch",
    "optimiser": "sgd",
    "rate": 1e-2,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "decay_all": True,
    "schedule": "steps",
    "rate_steps": "11:0.5,26:0.1",
    "epochs": 40,
    "batch_size": 16,
    "best_by": "dice",
    "hflip": 0.5,
    "warp": 0.5,
    "shift": 0.062,
    "scale_least": 0.91,
    "scale_most": 1.21,
    "fill": "reflect",
}

ASANAKOY: Options = {
    **PLAIN,
    "colour": "rgb",
    "normalise": "unit",
    "loss": "bce,dice-plus",
    "border": "auto",
    "border_rule": "torch",
    "optimiser": "sgd",
    "rate": 5e-3,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "decay_all": True,
    "schedule": "steps",
    "rate_steps": "100:0.5,200:0.25",
    "epochs": 250,
    "batch_size": 1,
    "accumulate": 4,
    "accumulate_as": "sum",
    "best_by": "dice",
    "hflip": 0.5,
    "warp": 0.5,
    "shift": 0.0625,
    "scale_least": 0.91,
    "scale_most": 1.21,
    "rotation": 7.0,
    "fill": "reflect",
    "soft_masks": False,
    "light": 0.5,
    "brightness": 0.5,
    "contrast": 0.5,
    "saturation": 0.3,
    "gray": 0.25,
}

EUGENBOBROV: Options = {
    **PLAIN,
    "loss": "bce=0.5,dice-batch",
    "border": "0",
    "optimiser": "adam",
    "rate": 1e-3,
    "weight_decay": 0.0,
    "schedule": "constant",
}


def keras(name: str, batch_size: int, accumulate: int) -> Mapping[str, Recipe]:
    """The Keras solution's recipe of one network."""
    steps = {"batch_size": batch_size, "accumulate": accumulate, "rate_decay": 1e-6 * accumulate}
    told = (
        "the Keras solution's Unet1024: border-weighted loss, SGD in large steps, rate lowered on a plateau. Not here: "
        "parameters that also move between its steps, its split by photo (use --holdout 0.2), its batch size (not told)"
    )
    return {name: Recipe(told, options={**KERAS, **steps})}


def junhongxu(name: str) -> Mapping[str, Recipe]:
    """JunhongXu's recipe of one network."""
    told = (
        "JunhongXu's main.py: border-weighted BCE, IoU and focal loss, SGD in three steps. Not here: its validation "
        "photos lie inside its training photos (use --folds); which of it his U-Nets were trained with is not told"
    )
    return {name: Recipe(told, options=JUNHONGXU)}


def five_fold(name: str) -> Mapping[str, Recipe]:
    """JunhongXu's recipe of the network that he trained on five folds."""
    told = (
        "JunhongXu's five_fold.py: as his main.py, 60 epochs of 10 photos a step, normalised by each fold's mean and "
        "deviation (--folds 5). Not here: folds by photo, of which each car was in all (folds here keep cars whole)"
    )
    return {name: Recipe(told, options={**JUNHONGXU, "normalise": "fold", "batch_size": 10, "epochs": 60})}


def asanakoy(name: str) -> Mapping[str, Recipe]:
    """The recipe of the first place's networks from scratch."""
    told = (
        "asanakoy (first place), --folds 7: SGD, 250 epochs, one photo at a time, four a step. Not here: folds drawn "
        "at random, the first step after one photo alone, validation with the batch's own normalisation, gray by "
        "other weights of the colours"
    )
    return {name: Recipe(told, options=ASANAKOY)}


def gray(name: str) -> Mapping[str, Recipe]:
    """The recipe of eugenbobrov's gray networks."""
    told = (
        "eugenbobrov: colour means at a quarter of the size, normalised by batch, Adam, 5 epochs (--holdout 0.15). Not "
        "here: photos drawn with repeats, exact 4x4 means (1918 columns are resized to 480), closing of the masks"
    )
    own = {"colour": "mean", "normalise": "batch", "batch_size": 16, "epochs": 5, "best_by": "dice"}
    return {name: Recipe(told, options={**EUGENBOBROV, **own})}


def roi(name: str) -> Mapping[str, Recipe]:
    """The recipe of eugenbobrov's network for crops."""
    told = (
        "eugenbobrov's last version: HSV, mirrored at the border, one photo at a time, Adam, stops at the first epoch "
        "that is no better. Not here: the crops by itself (add --set roi=MEMBER), the odd pixel of padding at the top"
    )
    own = {"colour": "hsv", "normalise": "unit", "pad": "reflect", "pad_sides": "both", "batch_size": 1, "epochs": 10}
    return {name: Recipe(told, options={**EUGENBOBROV, **own, "best_by": "loss", "patience": 1})}
