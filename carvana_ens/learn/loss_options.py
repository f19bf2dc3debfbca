"""Which loss training minimises, as options; ``losses`` computes what is chosen here. No torch."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import Literal

from carvana_ens.model import option

TERMS = {
    "bce": "binary cross-entropy, mean over pixels; border weights on both classes",
    "bce-positive": "the same, but border weights act on the object alone",
    "dice": "1 - (2 I + 1) / (S + 1), mean over photos",
    "dice-batch": "1 - (2 I + 1) / (S + 1), the batch as one photo",
    "dice-plus": "1 - 2 (I + 1) / (S + 1), mean over photos; below 0 near the end",
    "dice-clamp": "the same, but 0 where it would be below",
    "log-dice": "-log(2 I / S), the batch as one photo",
    "log-dice-plus": "-log(2 (I + 1) / (S + 1)), the log of the mean over photos",
    "iou": "1 - I / (S - I), the batch as one photo, targets cut at 0.5",
    "focal": "focal loss, both classes, gamma 2, alpha 0.25",
    "focal-positive": "focal loss of the object alone, gamma 0.5",
}
"""Every term by name. I = sum(p t), S = sum(p) + sum(t), p = sigmoid(logits), t = target."""


@dataclass(frozen=True)
class LossOptions:
    """The loss of training and the Dice of validation.

    Border weights are those of three Carvana solutions: the target is averaged over a square around each pixel, and a
    pixel whose average is neither near 0 nor near 1 weighs three times as much; ``losses.border_weights`` has the
    formula. The solutions' losses, each as its author had it:

    - asanakoy (first place): ``bce,dice-plus`` or ``bce,log-dice-plus``, border auto
    - albu (first place): ``bce,dice-clamp``, dice_rim 6
    - ternaus (first place): ``bce,log-dice``
    - JunhongXu: ``bce,iou,focal-positive``, border 11; RefineNet v6 ``bce,iou``, border 11
    - the Keras U-Nets: ``bce-positive,dice-batch``, border auto, border_rule tensorflow
    - eugenbobrov: ``bce=0.5,dice-batch``

    Raises:
        ValueError: an option out of its range.
    """

    loss: str = option(
        "bce=1,dice=1", "terms with their weights, term=weight,... (a term alone weighs 1): " + ", ".join(TERMS)
    )
    border: str = option(
        "0", "side in pixels (odd) of the square that finds the object's border for bce and dice terms; auto, 0: none"
    )
    border_rule: Literal["torch", "tensorflow"] = option(
        "torch", "beyond the photo lies background (torch) or nothing (tensorflow); the limits count as border (torch)"
    )
    border_limit: float = option(0.01, "the border is where the mean of the square is this far from 0 and from 1")
    dice_rim: int = option(0, "pixels along the photo's sides that the Dice of validation leaves out")

    def __post_init__(self) -> None:
        parse_loss(self.loss)
        border_side(self.border, 1)
        if not 0 < self.border_limit < 0.5:
            raise ValueError(f"option border_limit is {self.border_limit}: it must be above 0 and below 0.5")
        if self.dice_rim < 0:
            raise ValueError(f"option dice_rim is {self.dice_rim}: it must be 0 or more")


def parse_loss(text: str) -> dict[str, float]:
    """Terms and their weights: ``bce=1,dice=0.5``; a term alone weighs 1.

    Raises:
        ValueError: an unknown or doubled term, or a weight that is not above 0.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        if name not in TERMS:
            near = difflib.get_close_matches(name, TERMS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"use {', '.join(TERMS)}"
            raise ValueError(f"option loss has the term {name!r}, which is unknown: {hint}")
        if name in weights:
            raise ValueError(f"option loss has the term {name!r} twice: add its weights up")
        weights[name] = _weight(name, number) if "=" in part else 1.0
    return weights


def _weight(name: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise ValueError(f"option loss weighs the term {name!r} with {text!r}: write a number above 0")
    return weight


AUTO = {128: 11, 256: 21, 512: 21, 1024: 41, 1280: 51}
"""Side of the square by network height: the table of asanakoy and of the Keras U-Nets (which ends at 1024)."""


def border_side(border: str, height: int) -> int:
    """Side of the border square for maps of this height; 0: no border weights.

    ``auto`` takes the entry of ``AUTO`` whose height is nearest, the lower one of two. The authors' own heights are
    all there; at any other theirs fails.

    Raises:
        ValueError: neither auto, nor 0, nor an odd number of at least 3.
    """
    if border == "auto":
        return AUTO[min(AUTO, key=lambda known: abs(known - height))]
    side = int(border) if border.isascii() and border.isdigit() else -1
    if side != 0 and (side < 3 or side % 2 == 0):
        raise ValueError(f"option border is {border!r}: write auto, 0, or an odd number of pixels from 3")
    return side
