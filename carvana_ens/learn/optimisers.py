"""The optimisers of a recipe: torch's own, their options, and the epochs at which they start anew."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from carvana_ens.model import option

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

Kind: TypeAlias = Literal["adamw", "adam", "sgd", "rmsprop"]


@dataclass(frozen=True)
class OptimiserOptions:
    """What moves the parameters. Carvana's solutions, each as its author had it (momentum and betas as they are here):

    - the Keras U-Nets: sgd, rate 1e-2, nesterov, rate_decay 1e-6
    - JunhongXu: sgd, rate 1e-2, weight_decay 5e-4, decay_all
    - asanakoy (first place): sgd, rate 5e-3, weight_decay 5e-4, decay_all; the VGG nets adam, rate 1e-4, weight_decay 0
    - albu (first place): adam or rmsprop, rate 1e-4, weight_decay 0, clip_norm 1, reset 23, reset_to adam
    - ternaus (first place): adam, rate 1e-4, weight_decay 0, reset every

    Raises:
        ValueError: an option out of its range.
    """

    optimiser: Literal["adamw", "adam", "sgd", "rmsprop"] = option("adamw", "adamw, adam, sgd or rmsprop")
    rate: float = option(3e-3, "learning rate, from which a schedule starts or to which it rises")
    weight_decay: float = option(
        1e-2, "weight decay: adamw takes it off the parameters, the others add it to the gradient"
    )
    decay_all: bool = option(False, "weight decay of every parameter; false: none of biases and normalisation layers")
    momentum: float = option(0.9, "momentum of sgd")
    nesterov: bool = option(False, "Nesterov's momentum for sgd")
    beta1: float = option(0.9, "adam, adamw: decay of the mean gradient")
    beta2: float = option(0.999, "adam, adamw: decay of the mean squared gradient")
    rms_decay: float = option(0.99, "rmsprop: decay of the mean squared gradient")
    epsilon: float = option(1e-8, "adam, adamw, rmsprop: added to the root of the mean squared gradient")
    clip_norm: float = option(0.0, "longest gradient, all parameters as one vector; 0: any")
    clip_value: float = option(0.0, "largest gradient of any one parameter; 0: any")
    reset: str = option("", 'the optimiser forgets its moments after these epochs: "23", "10,20", or "every"')
    reset_to: Literal["same", "adamw", "adam", "sgd", "rmsprop"] = option(
        "same", "the optimiser from the first reset on"
    )

    def __post_init__(self) -> None:
        for name in ("rate", "epsilon"):
            if getattr(self, name) <= 0:
                raise ValueError(f"option {name} is {getattr(self, name)}: it must be above 0")
        for name in ("weight_decay", "clip_norm", "clip_value"):
            if getattr(self, name) < 0:
                raise ValueError(f"option {name} is {getattr(self, name)}: it must be 0 or more")
        for name in ("momentum", "beta1", "beta2", "rms_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"option {name} is {getattr(self, name)}: it must be at least 0 and below 1")
        if self.nesterov and self.momentum == 0:
            raise ValueError("option nesterov is true with momentum 0: give a momentum above 0, or leave it out")
        if re.fullmatch(r"|every|[1-9][0-9]*( *, *[1-9][0-9]*)*", self.reset) is None:
            raise ValueError(f'option reset is {self.reset!r}: write epochs from 1, as in "10,20", or every')
        if self.reset_to != "same" and not self.reset:
            raise ValueError(f"option reset_to is {self.reset_to} without a reset: say after which epochs")


def resets(options: OptimiserOptions, done: int) -> bool:
    """Whether the optimiser starts anew after ``done`` epochs."""
    if options.reset == "every":
        return done > 0
    return done in _epochs(options)


def kind_after(options: OptimiserOptions, done: int) -> Kind:
    """Which optimiser the epoch after ``done`` others has."""
    if options.reset_to == "same" or not any(resets(options, epoch) for epoch in range(1, done + 1)):
        return options.optimiser
    return options.reset_to


def make_optimiser(network: nn.Module, options: OptimiserOptions, kind: Kind) -> Optimizer:
    """A fresh optimiser of the parameters that are trained, with no moments yet.

    Biases and normalisation layers (parameters of one axis) are a group of their own, without weight decay unless
    ``decay_all`` asks for it.
    """
    from torch import optim

    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": options.weight_decay * options.decay_all},
    ]
    groups = [group for group in groups if group["params"]]
    betas = (options.beta1, options.beta2)
    if kind == "sgd":
        return optim.SGD(groups, lr=options.rate, momentum=options.momentum, nesterov=options.nesterov)
    if kind == "rmsprop":
        return optim.RMSprop(groups, lr=options.rate, alpha=options.rms_decay, eps=options.epsilon)
    maker = optim.AdamW if kind == "adamw" else optim.Adam
    return maker(groups, lr=options.rate, betas=betas, eps=options.epsilon)


def _epochs(options: OptimiserOptions) -> set[int]:
    return {int(text) for text in options.reset.split(",") if text}
