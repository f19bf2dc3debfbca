from __future__ import annotations

from carvana_ens.testing import ModelTests


class TestDifference(ModelTests):
    model = "difference"
