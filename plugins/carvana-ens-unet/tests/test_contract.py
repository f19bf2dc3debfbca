"""Every model keeps the plugin contract. The networks are shrunk: what is checked does not depend on their width."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch

from carvana_ens import Size
from carvana_ens.testing import ModelTests

POINTS = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["entry-points"]
CLASSES = {
    f"Test_{name}": type(
        f"Test_{name}", (ModelTests,), {"model": name, "options": {"epochs": 1, "shrink": 16}, "size": Size(32, 48)}
    )
    for name in POINTS["carvana_ens.models"]
}
globals().update(CLASSES)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
