from __future__ import annotations

from typing import ClassVar

import pytest

from carvana_ens import Size
from carvana_ens.testing import ModelTests


@pytest.mark.slow
class TestUnet11(ModelTests):
    model = "unet11"
    options: ClassVar = {"epochs": 1}
    size = Size(32, 48)


@pytest.mark.slow
class TestUnetVgg11V2(ModelTests):
    model = "unet-vgg11-v2"
    options: ClassVar = {"epochs": 1}
    size = Size(32, 48)
