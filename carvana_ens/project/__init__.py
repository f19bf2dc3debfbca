"""ensemble.toml: the data, the members and the fold tables of a project."""

from __future__ import annotations

from carvana_ens.project.config import (
    FILE,
    IMPORTED,
    SCHEMA,
    DataConfig,
    ExtraConfig,
    FoldsConfig,
    Project,
    check_pseudo_name,
    find_project,
)
from carvana_ens.project.edit import add_member, create_project, drop_member, table_name

__all__ = [
    "FILE",
    "IMPORTED",
    "SCHEMA",
    "DataConfig",
    "ExtraConfig",
    "FoldsConfig",
    "Project",
    "add_member",
    "check_pseudo_name",
    "create_project",
    "drop_member",
    "find_project",
    "table_name",
]
