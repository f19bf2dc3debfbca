from __future__ import annotations

import re
import sys
import tomllib
import types
from pathlib import Path
from typing import ClassVar

from carvana_ens import parse_steps
from carvana_ens.testing import StepTests
from carvana_ens.testing.step_checks import STEP_CHECKS


class TestLargest(StepTests):
    step = "largest"


class TestFillHoles(StepTests):
    step = "fill-holes"


class TestRemoveIslands(StepTests):
    step = "remove-islands"
    options: ClassVar = {"area": 5}


class TestClosing(StepTests):
    step = "closing"


class TestRoofRepair(StepTests):
    step = "roof-repair"
    options: ClassVar = {"member": "albu", "area": 0, "erode": 0, "grow": 0, "outside": "over-127"}


README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_step_of_the_readme(monkeypatch):
    module = types.ModuleType("my_steps")
    monkeypatch.setitem(sys.modules, "my_steps", module)
    source, registered = (re.search(rf"```{kind}\n(.*?)```", README, re.DOTALL)[1] for kind in ("python", "toml"))
    exec(source, vars(module))
    entries = tomllib.loads(registered)["project"]["entry-points"]["carvana_ens.postprocess"]
    assert entries == {module.TopRows.name: "my_steps:TopRows"}
    for check in STEP_CHECKS:
        check(module.TopRows, {"rows": 3})


def test_the_readme_names_every_option_with_its_default():
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in README.splitlines() if line.startswith("| ")]
    told, step = {}, ""
    for name, _, options, defaults, *_ in rows[1:]:
        step = name.strip("`") or step
        words = zip(options.split(", "), defaults.split(", "), strict=True)
        told |= {(step, option.strip("`")): default.strip("`") for option, default in words}
    declared = {}
    for name in ("largest", "fill-holes", "remove-islands", "closing", "roof-repair"):
        (made,) = parse_steps(name)
        declared |= {(name, option): str(value) or "most weight" for option, value in vars(made).items()}
    assert told == declared
