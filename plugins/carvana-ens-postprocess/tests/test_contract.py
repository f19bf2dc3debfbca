from __future__ import annotations

from typing import ClassVar

from carvana_ens.testing import StepTests


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
