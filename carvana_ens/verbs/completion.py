"""The names that a shell completes; found without importing what a blend needs, and never with an error."""

from __future__ import annotations

import tomllib
from pathlib import Path


def member_names(folder: Path | None = None) -> list[str]:
    """Members of the project in a folder, or of the nearest one from here upward; none where it cannot be read."""
    here = Path.cwd()
    folders = (here, *here.parents) if folder is None else (folder,)
    file = next((place / "ensemble.toml" for place in folders if (place / "ensemble.toml").is_file()), None)
    try:
        members = {} if file is None else tomllib.loads(file.read_text(encoding="utf-8")).get("members", {})
    except (OSError, ValueError):
        return []
    return sorted(members) if isinstance(members, dict) else []


def plugin_names(*, steps: bool = False, known: bool = False) -> list[str]:
    """Names of the installed models; no plugin is imported. steps: those of steps too. known: our own as well."""
    from carvana_ens.registry import KNOWN_PACKAGES, KNOWN_STEPS, list_models, list_steps

    listed = (*list_models().entries, *(list_steps().entries if steps else ()))
    more = {**KNOWN_PACKAGES, **(KNOWN_STEPS if steps else {})} if known else ()
    return sorted({entry.name for entry in listed}.union(more))
