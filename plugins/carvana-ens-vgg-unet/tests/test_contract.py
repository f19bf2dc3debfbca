from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from carvana_ens import Size
from carvana_ens.testing import ModelTests


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
