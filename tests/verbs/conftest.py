"""Fixtures of world.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

NAME = "carvana_ens_tests_world"
if NAME not in sys.modules:
    spec = importlib.util.spec_from_file_location(NAME, Path(__file__).parents[1] / "verbs" / "world.py")
    sys.modules[NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[NAME])
here = sys.modules[NAME]
drawn, site, run = here.drawn, here.site, here.run
world, project, oracle = here.world, here.project, here.oracle
