"""The learning rate as a function of the step, the number of epochs and the validations so far: it needs no state, so
that a resumed run cannot differ from an uninterrupted one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from carvana_ens.model import option

WARM_UP = 0.3
START = 25.0
END = 1e4
STEP = r" *([0-9]+) *: *([0-9.eE+-]+) *"


@dataclass(frozen=True)
class ScheduleOptions:
    """How the learning rate moves. Carvana's solutions, each as its author had it:

    - JunhongXu: steps, rate_steps "11:0.5,26:0.1"; RefineNet v6 "11:0.2,31:0.1"
    - asanakoy (first place): steps, "100:0.5,200:0.25"; the VGG nets "10:0.1,15:0.01", cycle 20
    - albu (first place): steps, "12:0.1,23:1,25:0.1,27:0.01,28:1,30:0.1,32:0.01,33:1,35:0.1,37:0.01,38:1"
    - ternaus (first place): steps, "1:0.5,3:0.25,4:1", cycle 5
    - the Keras U-Nets: plateau, plateau_factor 0.333, plateau_patience 3, plateau_least 1e-4, rate_decay 1e-6

    Raises:
        ValueError: an option out of its range.
    """

    schedule: Literal["one-cycle", "constant", "steps", "plateau", "cyclic", "restarts"] = option(
        "one-cycle",
        "one-cycle: up to rate and down; constant; steps: rate_steps; plateau: lower when validation stands still; "
        "cyclic: up and down; restarts: down along a cosine, again and again",
    )
    rate_steps: str = option("", 'steps: "11:0.5,26:0.1" is half the rate after 11 epochs, a tenth after 26')
    cycle: int = option(
        0, "cyclic, restarts: epochs of the (first) cycle; steps: they begin again after so many, 0: no"
    )
    cycle_growth: int = option(1, "restarts: each cycle is so many times as long as the one before")
    cycle_least: float = option(0.1, "cyclic, restarts: the least rate, as a part of rate")
    cycle_decay: float = option(1.0, "cyclic: each cycle rises so many times as high as the one before")
    plateau_factor: float = option(0.1, "plateau: the rate is multiplied by this")
    plateau_patience: int = option(3, "plateau: after more than so many validations without a better one")
    plateau_delta: float = option(1e-4, "plateau: what a validation must gain to be a better one")
    plateau_least: float = option(0.0, "plateau: the least rate")
    rate_decay: float = option(0.0, "any schedule: the rate is divided by 1 + rate_decay x steps so far")

    def __post_init__(self) -> None:
        for name in ("cycle", "plateau_patience", "plateau_delta", "plateau_least", "rate_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"option {name} is {getattr(self, name)}: it must be 0 or more")
        for name in ("plateau_factor", "cycle_decay"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"option {name} is {getattr(self, name)}: it must be above 0 and at most 1")
        if self.plateau_factor == 1:
            raise ValueError("option plateau_factor is 1.0: it must be below 1 to change anything")
        if not 0 <= self.cycle_least < 1:
            raise ValueError(f"option cycle_least is {self.cycle_least}: it must be at least 0 and below 1")
        if self.cycle_growth < 1:
            raise ValueError(f"option cycle_growth is {self.cycle_growth}: it must be at least 1")
        if self.schedule in ("cyclic", "restarts") and self.cycle == 0:
            raise ValueError(f"option schedule is {self.schedule}, which needs option cycle: epochs of a cycle")
        if bool(self.rate_steps) != (self.schedule == "steps"):
            raise ValueError(
                f"options schedule = {self.schedule} and rate_steps = {self.rate_steps!r} do not go together: "
                'steps needs rate_steps, as in "11:0.5,26:0.1", and no other schedule has them'
            )
        parse_steps(self.rate_steps)


class Point(NamedTuple):
    """Where in a training the rate is asked for. step: steps of the optimiser so far. steps: of one epoch. epochs: of
    the whole schedule.
    """

    step: int
    steps: int
    epochs: int


def rate_at(options: ScheduleOptions, rate: float, point: Point, scores: Sequence[float] = ()) -> float:
    """The learning rate of a step.

    Args:
        options: the schedule.
        rate: option ``rate``.
        point: where the step lies.
        scores: every validation so far, the higher the better (only plateau looks at them).
    """
    decay = 1 + options.rate_decay * point.step
    return _scheduled(options, rate, point, scores) / decay


def _scheduled(options: ScheduleOptions, rate: float, point: Point, scores: Sequence[float]) -> float:
    done = point.step / point.steps
    match options.schedule:
        case "constant":
            return rate
        case "steps":
            return rate * step_factor(parse_steps(options.rate_steps), options.cycle, int(done))
        case "plateau":
            return plateau(options, rate, scores)
        case "cyclic":
            return triangle(done / options.cycle, rate, options.cycle_least, options.cycle_decay)
        case "restarts":
            return cosine(cycle_part(done, options.cycle, options.cycle_growth), rate, options.cycle_least)
        case _:
            return one_cycle(point.step, point.epochs * point.steps, rate)


def one_cycle(step: int, steps: int, peak: float) -> float:
    """The learning rate of step 0 .. steps - 1: cosine from peak / 25 up to the peak over the first 30 % of the steps,
    then cosine down to peak / 250,000.

    Source: L. N. Smith and N. Topin, Super-Convergence (arXiv 1708.07120), in the two-phase cosine form of
    ``torch.optim.lr_scheduler.OneCycleLR`` with its default numbers.
    """
    first, last = peak / START, peak / START / END
    top = WARM_UP * steps - 1
    if step <= top:
        low, high, part = first, peak, step / top if top > 0 else 1.0
    else:
        low, high, part = last, peak, 1 - (step - top) / max(steps - 1 - top, 1e-9)
    return low + (high - low) * (1 - math.cos(math.pi * part)) / 2


def parse_steps(text: str) -> list[tuple[int, float]]:
    """(epochs, factor) in order, of ``11:0.5,26:0.1``.

    Raises:
        ValueError: another form, epochs that do not rise, or a factor that is not above 0.
    """
    steps: list[tuple[int, float]] = []
    for part in text.split(",") if text else []:
        match = re.fullmatch(STEP, part)
        try:
            epochs, factor = (int(match[1]), float(match[2])) if match else (0, math.nan)
        except ValueError:
            epochs, factor = 0, math.nan
        if not 0 < factor < math.inf or epochs <= (steps[-1][0] if steps else 0):
            raise ValueError(
                f"option rate_steps has {part!r}: write epochs from 1, rising, and factors above 0, "
                'as in "11:0.5,26:0.1"'
            )
        steps.append((epochs, factor))
    return steps


def step_factor(steps: Sequence[tuple[int, float]], cycle: int, done: int) -> float:
    """What the rate is multiplied with after ``done`` epochs; ``cycle`` > 0: the steps begin again after so many."""
    within = done % cycle if cycle else done
    return next((factor for epochs, factor in reversed(steps) if epochs <= within), 1.0)


def plateau(options: ScheduleOptions, rate: float, scores: Sequence[float]) -> float:
    """The rate that ``torch.optim.lr_scheduler.ReduceLROnPlateau`` has come to after these validations."""
    import torch

    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser,
        mode="max",
        factor=options.plateau_factor,
        patience=options.plateau_patience,
        threshold=options.plateau_delta,
        threshold_mode="abs",
        min_lr=min(options.plateau_least, rate),
        eps=0.0,
    )
    for score in scores:
        schedule.step(score)
    return float(optimiser.param_groups[0]["lr"])


def triangle(cycles: float, peak: float, least: float, decay: float) -> float:
    """Up along a line from ``least`` x peak to the peak and down again, once a cycle; cycle n rises decay^n as high.

    Source: L. N. Smith, Cyclical Learning Rates (arXiv 1506.01186): decay 1 is "triangular", 0.5 "triangular2".
    """
    low = peak * least
    part = cycles % 1
    return low + (peak - low) * (1 - abs(2 * part - 1)) * decay ** math.floor(cycles)


def cycle_part(done: float, first: int, growth: int) -> float:
    """How far the current cycle is, in [0, 1), after ``done`` epochs; the cycles are first x growth^n epochs long."""
    length = float(first)
    while done >= length:
        done -= length
        length *= growth
    return done / length


def cosine(part: float, peak: float, least: float) -> float:
    """Down along half a cosine, from the peak at part 0 to ``least`` x peak at 1.

    Source: I. Loshchilov and F. Hutter, SGDR (arXiv 1608.03983), eq. 5.
    """
    low = peak * least
    return low + (peak - low) * (1 + math.cos(math.pi * part)) / 2
