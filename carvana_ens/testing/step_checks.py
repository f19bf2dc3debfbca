"""The contract of post-processing steps as plain functions: each takes a step's class and options, or raises.

``for check in STEP_CHECKS: check(step_class, options)`` checks everything, and imports numba
and zarr for it.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from carvana_ens.errors import PluginError, UsageError
from carvana_ens.model import options_json
from carvana_ens.postprocess import Step
from carvana_ens.registry import NAME
from carvana_ens.types import Json, Mask, Size

SIZES = (Size(1, 1), Size(1, 9), Size(9, 1), Size(2, 2), Size(48, 71))
MEMBERS = {"one": 2, "other": 1}
"""Weights of the members that drawn images have, beside those that the step reads by name."""


@dataclass(frozen=True)
class DrawnImage:
    """A ``BlendedImage`` in memory. maps: codes by member."""

    id: str
    size: Size
    maps: Mapping[str, NDArray[np.uint8]]
    weights: Mapping[str, int] = field(default_factory=lambda: dict(MEMBERS))

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(sorted(self.maps))

    def codes(self, member: str) -> NDArray[np.uint8]:
        if member not in self.maps:
            raise UsageError(f"image {self.id} has no map of member {member!r}: there are {', '.join(self.members)}")
        return self.maps[member].copy()


def check_step_class(step_class: type[Step], options: Mapping[str, Json]) -> None:  # noqa: ARG001
    """The class is a frozen dataclass with a name, a text on itself, and a default and a help for every option.

    Raises:
        PluginError: it is not.
    """
    if not (isinstance(step_class, type) and issubclass(step_class, Step)):
        raise _refused(step_class, "it is not derived from carvana_ens.Step: register a class that is")
    if "__dataclass_fields__" not in vars(step_class):
        raise _refused(step_class, "it is no dataclass of its own: write @dataclass(frozen=True) above the class")
    name = getattr(step_class, "name", None)
    if not isinstance(name, str) or NAME.fullmatch(name) is None:
        raise _refused(step_class, f"name is {name!r}: set it to lower-case words joined by -")
    if not inspect.cleandoc(vars(step_class).get("__doc__") or "") or step_class.__doc__ == _signature(step_class):
        raise _refused(step_class, "it has no docstring, which carvana-ens models --steps shows: write a line")
    if step_class.apply is Step.apply:
        raise _refused(step_class, "apply is missing: write it")
    for option in dataclasses.fields(step_class):
        if option.default is dataclasses.MISSING or not option.metadata.get("help"):
            raise _refused(step_class, f"option {option.name} has no default or no help: declare it with option(...)")
    lost = set(step_class.tried) - {option.name for option in dataclasses.fields(step_class)}
    if lost:
        raise _refused(step_class, f"tried names {sorted(lost)}, which are no options: name options")


def check_step_options(step_class: type[Step], options: Mapping[str, Json]) -> None:
    """Options survive the way through JSON and through text, and candidates are settings of the step.

    Raises:
        PluginError: they do not.
        UsageError: the options that are checked with cannot be meant.
    """
    from carvana_ens.ensemble.steps import make_step, steps_text

    for step in (make_step(step_class, options), *make_step(step_class, {}).candidates()):
        if type(step) is not step_class:
            raise _refused(step_class, f"a candidate is {step!r}: candidates are of the same class")
        if make_step(step_class, json.loads(json.dumps(options_json(step)))) != step:
            raise _refused(step_class, f"{step!r} is another one after its way through JSON: use plain values")
        texts = dict(piece.split("=", 1) for piece in steps_text([step]).split(":")[1:])
        if make_step(step_class, texts) != step:
            raise _refused(step_class, f"{step!r} is another one after its way through text: use plain values")
    if not make_step(step_class, {}).candidates():
        raise _refused(step_class, "candidates is empty: tuning needs one setting at least")


def check_step_masks(step_class: type[Step], options: Mapping[str, Json]) -> None:
    """Masks of any size and kind give masks of the same size, the same again from other threads, and stay as they are.

    Raises:
        PluginError: they do not, or the step raises.
        UsageError: the options that are checked with cannot be meant.
    """
    from carvana_ens.ensemble.steps import apply_step, make_step

    step = make_step(step_class, options)
    drawn = list(_drawn(step))
    before = [mask.copy() for mask, _ in drawn]
    first = [apply_step(step, mask, image) for mask, image in drawn]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda pair: apply_step(step, *pair), drawn))
    for (mask, image), kept, one, other in zip(drawn, before, first, again, strict=True):
        if not np.array_equal(mask, kept):
            raise _refused(step_class, f"it changed the mask that it was given, of {image.size}: work on a copy")
        if not np.array_equal(one, other):
            raise _refused(step_class, f"it answers otherwise in a second thread, at {image.size}: keep nothing")


STEP_CHECKS = (check_step_class, check_step_options, check_step_masks)
"""All checks; where a later one builds on an earlier one, the earlier one has the plainer message."""


def _drawn(step: Step) -> Iterator[tuple[Mask, DrawnImage]]:
    rng = np.random.default_rng(0)
    for size in SIZES:
        maps = {name: rng.integers(0, 256, size, np.uint8) for name in (*MEMBERS, *step.reads())}
        y, x = np.indices(size)
        oval = np.hypot((y - size.height / 2) / size.height, (x - size.width / 2) / size.width) < 0.3
        masks = (np.zeros(size, np.bool_), np.ones(size, np.bool_), rng.random(size) < 0.5, oval)
        for number, mask in enumerate(masks):
            yield mask, DrawnImage(f"{size}_{number:02d}", size, maps)


def _signature(step_class: type[Step]) -> str:
    """The docstring that ``dataclass`` writes where there is none."""
    return step_class.__name__ + str(inspect.signature(step_class)).replace(" -> None", "")


def _refused(step_class: object, why: str) -> PluginError:
    name = getattr(step_class, "__name__", repr(step_class))
    return PluginError(f"step {name}: {why}", name=name)
