from __future__ import annotations

from typing import ClassVar

import pytest

from carvana_ens.testing import ModelTests


class TestLinkNet18(ModelTests):
    model = "linknet18"
    options: ClassVar = {"epochs": 1}


@pytest.mark.slow
class TestLinkNet34(ModelTests):
    model = "linknet34"
    options: ClassVar = {"epochs": 1}


@pytest.mark.slow
class TestLinkNet50(ModelTests):
    model = "linknet50"
    options: ClassVar = {"epochs": 1, "output_conv": True, "pad": "none"}
