"""The plugin contract as a pytest class. Pytest itself is imported only where a test is skipped."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from carvana_ens.errors import PluginError
from carvana_ens.model import Model
from carvana_ens.registry import load_model
from carvana_ens.testing import checks
from carvana_ens.testing.drawn import SIZE
from carvana_ens.types import Json, Size


class ModelTests:
    """Derive a class from it whose name starts with Test, name the model, and pytest runs the checks.

        class TestMine(ModelTests):
            model = "mine"
            options = {"epochs": 1}

    Class attributes:
        model: the registered name, or the class of a model that is not registered.
        options: options that make training short; also whatever the model does not work without.
        checkpoint: what it predicts with; None: what its own training gives, or nothing for an untrainable model.
        size: the grid of most photos; it should be small.
    """

    model: ClassVar[str | type[Model]]
    options: ClassVar[Mapping[str, Json]] = {}
    checkpoint: ClassVar[Path | None] = None
    size: ClassVar[Size] = SIZE

    _class: ClassVar[type[Model]]
    _folder: ClassVar[tempfile.TemporaryDirectory[str]]
    _trained: ClassVar[Path | PluginError | None]

    @classmethod
    def setup_class(cls) -> None:
        """Finds the model."""
        named = getattr(cls, "model", None)
        if named is None:
            raise PluginError(f"{cls.__name__} names no model: set model = 'its-registered-name' in the class")
        cls._class = load_model(named)[0] if isinstance(named, str) else named
        # A folder of our own: pytest keeps those of tmp_path, and checkpoints are large.
        cls._folder = tempfile.TemporaryDirectory()
        cls._trained = None

    @classmethod
    def teardown_class(cls) -> None:
        """Removes what training left."""
        cls._folder.cleanup()

    @classmethod
    def _predicts_with(cls) -> Path | None:
        return cls._fitted() if cls.checkpoint is None and cls._class.trainable else cls.checkpoint

    @classmethod
    def _fitted(cls) -> Path:
        """The checkpoint of the one training that all tests share."""
        if cls._trained is None:
            folder = Path(cls._folder.name) / "fit"
            folder.mkdir()
            try:
                cls._trained = checks.fitted_checkpoint(cls._class, cls.options, folder, cls.size)
            except PluginError as error:
                cls._trained = error
        if isinstance(cls._trained, PluginError):
            raise cls._trained
        return cls._trained

    def test_class_attributes(self) -> None:
        """See ``check_class``."""
        checks.check_class(self._class, self.options)

    def test_options(self) -> None:
        """See ``check_options``."""
        checks.check_options(self._class, self.options)

    def test_recipes(self) -> None:
        """See ``check_recipes``."""
        checks.check_recipes(self._class, self.options)

    def test_config(self) -> None:
        """See ``check_config``."""
        checks.check_config(self._class, self.options)

    def test_import(self) -> None:
        """See ``check_import``."""
        checks.check_import(self._class, self.options)

    def test_parameters(self) -> None:
        """See ``check_parameters``."""
        checks.check_parameters(self._class, self.options)

    def test_fit(self) -> None:
        """See ``check_fit``."""
        if not self._class.trainable:
            import pytest

            pytest.skip(f"{self._class.__name__} is not trainable")
        self._fitted()

    def test_answers(self) -> None:
        """See ``check_answers``."""
        checks.check_answers(self._class, self.options, self._predicts_with(), self.size)

    def test_repeats(self) -> None:
        """See ``check_repeats``."""
        checks.check_repeats(self._class, self.options, self._predicts_with(), self.size)

    def test_independence(self) -> None:
        """See ``check_independence``."""
        checks.check_independence(self._class, self.options, self._predicts_with(), self.size)

    def test_predict_all(self) -> None:
        """See ``check_predict_all``."""
        checks.check_predict_all(self._class, self.options, self._predicts_with(), self.size)

    def test_calibration(self) -> None:
        """See ``check_calibration``."""
        checks.check_calibration(self._class, self.options, self._predicts_with(), self.size)
