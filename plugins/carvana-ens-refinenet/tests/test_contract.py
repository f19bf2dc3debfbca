from __future__ import annotations

from typing import ClassVar

import pytest

from carvana_ens import Size
from carvana_ens.testing import ModelTests


@pytest.mark.slow
class TestV2(ModelTests):
    model = "refinenet-v2"
    options: ClassVar = {"epochs": 1}
    size = Size(32, 64)


@pytest.mark.slow
class TestV6(ModelTests):
    model = "refinenet-v6"
    options: ClassVar = {"epochs": 1}
    size = Size(64, 64)
