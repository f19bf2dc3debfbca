"""The curriculum of a recipe: stages of training at sizes, rates and augmentations of their own, one after another."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from carvana_ens.errors import UsageError
from carvana_ens.learn.augment_options import AugmentOptions
from carvana_ens.learn.loss_options import LossOptions
from carvana_ens.learn.optimisers import OptimiserOptions
from carvana_ens.learn.schedules import ScheduleOptions
from carvana_ens.model import options_json, parse_options
from carvana_ens.types import Json, Size

if TYPE_CHECKING:
    from carvana_ens.learn.recipe import TorchOptions

SHORT = {"batch": "batch_size"}
OWN = ("epochs", "batch_size", "accumulate", "drop_last")
SIZE = r"[0-9]+x[0-9]+"


@dataclass(frozen=True)
class Stage:
    """size: input size of the photos, None for the member's. options: the member's, with what the stage changes."""

    size: Size | None
    options: TorchOptions


def stages_of(options: TorchOptions) -> tuple[Stage, ...]:
    """The stages that option ``stages`` describes; without it one stage, the options as they are.

    Grammar: stages are separated by ``;``. A stage is words: first a size HxW, if it has one of its own (else that of
    the stage before, or the member's), then ``option=value``, for ``epochs``, ``batch`` and every option of loss,
    augmentation, optimiser and schedule. What a stage does not name is the member's. ::

        512x768 epochs=10 batch=4 rate=1e-3; 1024x1536 epochs=5 rate=3e-4 rotation=5

    Raises:
        ValueError: a text of another form, or an option that a stage cannot have or that is out of its range.
    """
    if not options.stages:
        return (Stage(None, options),)
    stages: list[Stage] = []
    for number, text in enumerate(options.stages.split(";"), 1):
        try:
            size, given = _words(text)
            given = {SHORT.get(name, name): value for name, value in given.items()}
            stage: TorchOptions = parse_options(type(options), {**options_json(options), "stages": "", **given})
        except (UsageError, ValueError) as error:
            raise ValueError(f"option stages, stage {number} ({text.strip()!r}): {error}") from error
        stages.append(Stage(size or (stages[-1].size if stages else None), stage))
    return tuple(stages)


def _words(text: str) -> tuple[Size | None, dict[str, Json]]:
    words = text.split()
    if not words:
        raise ValueError("it is empty: write a size, or option=value, or both")
    size = Size.parse(words.pop(0)) if re.fullmatch(SIZE, words[0]) else None
    given: dict[str, Json] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"{word!r} is no option=value, and a size HxW stands first")
        if SHORT.get(name, name) not in allowed():
            near = difflib.get_close_matches(name, [*SHORT, *allowed()], 1)
            hint = f"did you mean {near[0]!r}?" if near else "set it for the whole member"
            raise ValueError(f"a stage cannot have option {name!r} of its own: {hint}")
        if name in given:
            raise ValueError(f"option {name} stands there twice")
        given[name] = value
    return size, given


def allowed() -> Collection[str]:
    """The options that a stage may have of its own: none that would change the network, or what it is judged by."""
    parts = (OptimiserOptions, ScheduleOptions, AugmentOptions, LossOptions)
    return {*OWN, *(field.name for part in parts for field in dataclasses.fields(part))} - {"dice_rim"}
