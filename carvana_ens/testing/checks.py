"""The plugin contract as plain functions: each takes a model class and its options, and raises PluginError.

``for check in CHECKS: check(model_class, options)`` checks everything. Checks that predict fit a trainable model first,
unless they are given a checkpoint.
"""

from __future__ import annotations

from carvana_ens.testing.calibrated import check_calibration
from carvana_ens.testing.declared import (
    check_class,
    check_config,
    check_import,
    check_options,
    check_parameters,
    check_recipes,
)
from carvana_ens.testing.fitted import check_fit, fit_drawn, fitted_checkpoint
from carvana_ens.testing.predicted import check_answers, check_independence, check_predict_all, check_repeats

DECLARED = (check_class, check_options, check_recipes, check_config, check_import, check_parameters)
"""What a model says of itself."""
PREDICTED = (check_answers, check_repeats, check_independence, check_predict_all, check_calibration)
"""What it answers; these take a checkpoint and a size too."""
CHECKS = (*DECLARED, check_fit, *PREDICTED)
"""All checks; where a later one builds on an earlier one, the earlier one has the plainer message."""

__all__ = [
    "CHECKS",
    "DECLARED",
    "PREDICTED",
    "check_answers",
    "check_calibration",
    "check_class",
    "check_config",
    "check_fit",
    "check_import",
    "check_independence",
    "check_options",
    "check_parameters",
    "check_predict_all",
    "check_recipes",
    "check_repeats",
    "fit_drawn",
    "fitted_checkpoint",
]
