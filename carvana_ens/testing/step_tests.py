"""The contract of post-processing steps as a pytest class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from carvana_ens.errors import PluginError
from carvana_ens.postprocess import Step
from carvana_ens.registry import load_step
from carvana_ens.testing import step_checks
from carvana_ens.types import Json


class StepTests:
    """Derive a class from it whose name starts with Test, name the step, and pytest runs the checks.

        class TestMine(StepTests):
            step = "mine"
            options = {"area": 4}

    Class attributes:
        step: the registered name, or the class of a step that is not registered.
        options: those to check masks with, at a grid of 48x71; others than the defaults where these do nothing there.
    """

    step: ClassVar[str | type[Step]]
    options: ClassVar[Mapping[str, Json]] = {}

    _class: ClassVar[type[Step]]

    @classmethod
    def setup_class(cls) -> None:
        """Finds the step."""
        named = getattr(cls, "step", None)
        if named is None:
            raise PluginError(f"{cls.__name__} names no step: set step = 'its-registered-name' in the class")
        cls._class = load_step(named)[0] if isinstance(named, str) else named

    def test_class_attributes(self) -> None:
        """See ``check_step_class``."""
        step_checks.check_step_class(self._class, self.options)

    def test_options(self) -> None:
        """See ``check_step_options``."""
        step_checks.check_step_options(self._class, self.options)

    def test_masks(self) -> None:
        """See ``check_step_masks``."""
        step_checks.check_step_masks(self._class, self.options)
