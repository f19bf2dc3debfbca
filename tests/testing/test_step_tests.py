"""The checks of steps: a good one passes, and each fault is found and named."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest

from carvana_ens.errors import PluginError, UsageError
from carvana_ens.model import option
from carvana_ens.postprocess import Step
from carvana_ens.testing import StepTests
from carvana_ens.testing.step_checks import STEP_CHECKS, check_step_class, check_step_masks, check_step_options


@dataclass(frozen=True)
class Good(Step):
    """Clears rows, where a member says so."""

    name = "good"
    tried: ClassVar = {"rows": (1, 2)}
    rows: int = option(1, "how many")
    member: str = option("", "which")
    share: float = option(0.25, "of what")
    flip: bool = option(False, "or the others")

    def reads(self):
        return (self.member,) if self.member else ()

    def apply(self, mask, image):
        mask = mask & (image.codes(self.member or "one") > 99)
        mask[: self.rows] = self.flip
        return mask


class TestGood(StepTests):
    step = Good
    options: ClassVar[Mapping] = {"rows": 3, "member": "third", "flip": True}


class TestLargest(StepTests):
    step = "largest"


def test_all_checks_pass():
    for check in STEP_CHECKS:
        check(Good, {"member": "new"})


class Bare(Step):
    """No dataclass."""

    name = "bare"

    def apply(self, mask, image):
        return mask


def made(parents=(Good,), **attributes):
    return dataclass(frozen=True)(type("Made", parents, {"__doc__": "A step.", "name": "made", **attributes}))


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (int, "step int: it is not derived from carvana_ens.Step"),
        (Bare, "step Bare: it is no dataclass of its own"),
        (made(name="Made"), "name is 'Made': set it to lower-case words"),
        (made((Step,), apply=Bare.apply, name=None), "name is None"),
        (made(__doc__=None), "it has no docstring"),
        (made((Step,)), "apply is missing"),
        (made(tried={"row": (1,)}), r"tried names \['row'\], which are no options"),
        (made(__annotations__={"area": int}, area=3), "option area has no default or no help"),
        (made(__annotations__={"area": list}, area=field(default_factory=list)), "option area has no default"),
    ],
)
def test_faults_of_the_class(step, told):
    with pytest.raises(PluginError, match=told):
        check_step_class(step, {})


def test_faults_of_options():
    with pytest.raises(PluginError, match="candidates is empty"):
        check_step_options(made(candidates=lambda self: ()), {})
    with pytest.raises(PluginError, match=r"a candidate is Good\(.*same class"):
        check_step_options(made(candidates=lambda self: (Good(),)), {})
    grown = made(__post_init__=lambda self: object.__setattr__(self, "rows", self.rows + 1))
    with pytest.raises(PluginError, match="another one after its way through JSON"):
        check_step_options(grown, {})
    with pytest.raises(UsageError, match="step made: it has no option 'row': did you mean 'rows'"):
        check_step_options(made(), {"row": 1})


def writes(self, mask, image):
    mask[0] = True
    return mask


def sneaks(self, mask, image):
    mask.base.fill(True)
    return mask


COUNT = itertools.count()


@pytest.mark.parametrize(
    ("apply", "told"),
    [
        (writes, "ValueError: assignment destination is read-only"),
        (sneaks, "it changed the mask that it was given, of 1x1"),
        (lambda self, mask, image: mask.astype(np.uint8), "answered with uint8"),
        (lambda self, mask, image: mask[:, :-1], "answered with bool"),
        (lambda self, mask, image: None, "answered with NoneType"),
        (lambda self, mask, image: mask ^ (next(COUNT) % 7 == 0), "answers otherwise in a second thread"),
        (lambda self, mask, image: mask & (image.codes("nobody") > 0), "has no map of member 'nobody'"),
    ],
)
def test_faults_of_answers(apply, told):
    with pytest.raises((PluginError, UsageError), match=told):
        check_step_masks(made(apply=apply), {})


def test_a_class_without_a_step():
    with pytest.raises(PluginError, match="TestNone names no step"):
        type("TestNone", (StepTests,), {}).setup_class()
    with pytest.raises(PluginError, match="step 'no-such-step' is unknown"):
        type("TestOther", (StepTests,), {"step": "no-such-step"}).setup_class()
