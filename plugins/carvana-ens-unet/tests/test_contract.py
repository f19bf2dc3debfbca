"""Every model keeps the plugin contract. The networks are shrunk: what is checked does not depend on their width."""

from __future__ import annotations

from pathlib import Path

from carvana_ens import Size
from carvana_ens.testing import ModelTests, declared_models

CLASSES = {
    f"Test_{name}": type(
        f"Test_{name}", (ModelTests,), {"model": name, "options": {"epochs": 1, "shrink": 16}, "size": Size(32, 48)}
    )
    for name in declared_models(Path(__file__).parents[1] / "pyproject.toml")
}
globals().update(CLASSES)
