"""Training and inference; the only room that imports torch, and only in the files that need it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from carvana_ens.learn.recipe import TorchOptions
    from carvana_ens.learn.torch_model import TorchModel

__all__ = ["TorchModel", "TorchOptions"]


def __getattr__(name: str) -> Any:
    if name == "TorchModel":
        from carvana_ens.learn.torch_model import TorchModel

        return TorchModel
    if name == "TorchOptions":
        from carvana_ens.learn.recipe import TorchOptions

        return TorchOptions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
