from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from carvana_ens.testing import ModelTests


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class TestNearest(ModelTests):
    model = "enet"
    options: ClassVar = {"epochs": 1}


class TestUnpooling(ModelTests):
    model = "enet"
    options: ClassVar = {"epochs": 1, "upsampling": "unpooling"}
