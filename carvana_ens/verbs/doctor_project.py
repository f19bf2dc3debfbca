"""What doctor says of a project: its data, members, stores, disk, and locks that were left behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from carvana_ens.project import Project
from carvana_ens.store.lock import holder_named, holder_state
from carvana_ens.store.place import is_address, place_of
from carvana_ens.verbs.doctor_probe import Tried
from carvana_ens.verbs.status import status

TIGHT = 0.05
"""A disk with less free than this share of what the stores take is named."""


def examine_project(project: Project) -> Iterator[Tried]:
    """Everything of a project that can be told without reading maps; nothing is changed."""
    yield "project", "ok", str(project.root)
    for name in ("images", "masks", "test"):
        path = getattr(project.data, name)
        if path is not None and not path.exists():
            yield f"data {name}", "broken", f"{path} is not there: mend [data] in {project.file}"
    found = status(project)
    remote = is_address(project.stores)
    if remote:
        yield "stores", "ok", f"at {project.stores}"
    used = 0
    for member in found.members:
        troubles = [member.problem, *(f"{s.split}: {s.problem}" for s in member.stores if s.problem)]
        told = "; ".join(trouble for trouble in troubles if trouble)
        taken = 0 if told and remote else place_of(project.member_stores(member.name)).size()
        used += taken
        stores = ", ".join(f"{s.split} {s.done}/{s.images}" for s in member.stores if not s.problem)
        if told:
            yield f"member {member.name}", "broken", told
        else:
            yield f"member {member.name}", "ok", f"{stores or 'no maps yet'}; {_gigabytes(taken)}"
    if found.tuning not in ("fresh", "none"):
        yield "tuning", "note", f"{found.tuning}; carvana-ens tune makes it anew"
    yield from _locks(project)
    here = project.root if remote or not Path(project.stores).is_dir() else Path(project.stores)
    free = shutil.disk_usage(here).free
    tight = not remote and free < TIGHT * used
    yield "disk", "note" if tight else "ok", f"stores take {_gigabytes(used)}; {_gigabytes(free)} are free"


def _gigabytes(octets: int) -> str:
    return f"{octets / 1e9:.2f} GB"


def _locks(project: Project) -> Iterator[Tried]:
    stores = [] if is_address(project.stores) else Path(project.stores).glob("*/*.writer.json")
    for note in sorted([*stores, *project.root.glob("checkpoints/*/*.writer.json")]):
        name = f"lock {os.path.relpath(note, project.root)}"
        try:
            text = note.read_bytes()
        except OSError:
            continue  # its writer has just ended
        if holder_state(text) == "ended":
            yield name, "note", f"left by {holder_named(text)}, which has ended: it stops nobody, and may be deleted"
        else:
            yield name, "note", f"held by {holder_named(text)}"
