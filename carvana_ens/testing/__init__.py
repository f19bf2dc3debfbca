"""The plugin contract as plain check functions (``checks``), and as a pytest class for plugin authors."""

from __future__ import annotations

from carvana_ens.testing.model_tests import ModelTests as ModelTests
