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
