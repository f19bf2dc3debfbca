"""How JunhongXu trained these networks on Carvana, as recipes: plain option values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carvana_ens import Recipe, Size

MAIN: Mapping[str, Any] = {
    "encoder_weights": "hub",
    "colour": "bgr",
    "normalise": "unit",
    "pad": "none",
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
    "rotation": 0.0,
    "fill": "reflect",
    "light": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "repaint": 0.0,
}

GATED: Mapping[str, Any] = {
    **MAIN,
    "loss": "bce,iou",
    "rate": 5e-3,
    "rate_steps": "11:0.2,31:0.1",
    "stages": "512x512; 1024x1024",
    "batch_size": 2,
    "accumulate": 4,
    "accumulate_as": "sum",
    "warp": 0.0,
    "shift": 0.0,
    "crop": 0.5,
    "crop_part": 0.97,
}
"""Version 6: windows of 1240x1880 out of 1280x1918."""

NOT_HERE = "Not here: its validation photos lie inside its training photos (use --holdout 0.06)"
MODERN = Recipe(
    "the defaults of this version, every one written out, and ImageNet's weights with the input they were trained on",
    options={"encoder_weights": "hub", "colour": "rgb", "normalise": "imagenet"},
)


def main(version: int) -> Mapping[str, Recipe]:
    """JunhongXu's main recipe, for versions 1 to 5."""
    told = f"JunhongXu's main.py: border-weighted BCE, IoU and focal loss, SGD in three steps of the rate. {NOT_HERE}"
    found = {"modern": MODERN, f"s1-refinenet-v{version}": Recipe(told, size=Size(1024, 1024), options=MAIN)}
    if version == 4:
        found["s1-refinenet-v4-curriculum"] = Recipe(
            "the same at 1024x1024, then 1152x1152, then 1280x1792, each 40 epochs from the best of the one before "
            f"(his voters at other sizes: --like). {NOT_HERE}",
            options={**MAIN, "stages": "1024x1024; 1152x1152; 1280x1792"},
        )
    return found


def gated() -> Mapping[str, Recipe]:
    """JunhongXu's recipe of version 6."""
    told = (
        "JunhongXu's refinenetv6_trainer.py: a loss on all seven maps, 512x512 and then 1024x1024 (its last size is "
        f"not told). {NOT_HERE}; its first step after one batch alone"
    )
    return {"modern": MODERN, "s1-refinenet-v6": Recipe(told, options=GATED)}
