"""What is installed, in one line: workers must say the same."""

from __future__ import annotations

from collections.abc import Sequence

from carvana_ens import __version__
from carvana_ens.registry import find_model, list_steps


def installed(models: Sequence[str] = (), steps: Sequence[str] = ()) -> str:
    """Versions of carvana-ens and of the packages that these models and steps are from.

    Raises:
        PluginError: a model is not installed.
    """
    sources = {find_model(name).source for name in models}
    return ", ".join([f"carvana-ens {__version__}", *sorted(sources.union(step_sources(steps)))])


def step_sources(names: Sequence[str]) -> list[str]:
    """The packages that have steps of these names, with their versions, sorted."""
    return sorted({entry.source for entry in list_steps().entries if entry.name in names}) if names else []
