"""The plugin contract as plain check functions (``checks``) and as a pytest class; what tests of plugins share."""

from __future__ import annotations

from carvana_ens.testing.drawn import draw_photos as draw_photos
from carvana_ens.testing.model_tests import ModelTests as ModelTests
from carvana_ens.testing.package import declared_models as declared_models
from carvana_ens.testing.step_tests import StepTests as StepTests
