"""What is installed, in one line: workers must say the same."""

from __future__ import annotations

from collections.abc import Sequence

from carvana_ens import __version__
from carvana_ens.registry import find_model


def installed(models: Sequence[str] = ()) -> str:
    """Versions of carvana-ens and of the packages that these models are from.

    Raises:
        PluginError: a model is not installed.
    """
    sources = sorted({find_model(name).source for name in models})
    return ", ".join([f"carvana-ens {__version__}", *sources])
