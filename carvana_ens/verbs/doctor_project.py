"""What doctor says of a project: its data, members, stores, disk, and locks that were left behind."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from carvana_ens.project import Project
from carvana_ens.store.lock import holder_named
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
    used = 0
    for member in found.members:
        troubles = [member.problem, *(f"{s.split}: {s.problem}" for s in member.stores if s.problem)]
        taken = _octets(project.root / "stores" / member.name)
        used += taken
        told = "; ".join(trouble for trouble in troubles if trouble)
        stores = ", ".join(f"{s.split} {s.done}/{s.images}" for s in member.stores if not s.problem)
        if told:
            yield f"member {member.name}", "broken", told
        else:
            yield f"member {member.name}", "ok", f"{stores or 'no maps yet'}; {_gigabytes(taken)}"
    if found.tuning not in ("fresh", "none"):
        yield "tuning", "note", f"{found.tuning}; carvana-ens tune makes it anew"
    yield from _locks(project.root)
    free = shutil.disk_usage(project.root).free
    tight = free < TIGHT * used
    yield "disk", "note" if tight else "ok", f"stores take {_gigabytes(used)}; {_gigabytes(free)} are free"


def _octets(folder: Path) -> int:
    """What the files in a folder and below take; those that vanish meanwhile count nothing."""
    total = 0
    for base, _, files in os.walk(folder):
        for file in files:
            try:
                total += (Path(base) / file).lstat().st_size
            except OSError:
                continue
    return total


def _gigabytes(octets: int) -> str:
    return f"{octets / 1e9:.2f} GB"


def _locks(root: Path) -> Iterator[Tried]:
    for note in sorted([*root.glob("stores/*/*.writer.json"), *root.glob("checkpoints/*/*.writer.json")]):
        name = f"lock {note.relative_to(root)}"
        try:
            text = note.read_bytes()
        except OSError:
            continue  # its writer has just ended
        if _left(text):
            yield name, "note", f"left by {holder_named(text)}, which has ended: it stops nobody, and may be deleted"
        else:
            yield name, "note", f"held by {holder_named(text)}"


def _left(text: bytes) -> bool:
    """Whether the process in a note was one of this machine and has ended."""
    try:
        holder = json.loads(text)
        if os.name != "posix" or holder["host"] != socket.gethostname():
            return False
        os.kill(int(holder["pid"]), 0)  # asks whether it is there; nothing is sent
    except ProcessLookupError:
        return True
    except (ValueError, KeyError, TypeError, OSError, OverflowError):
        return False
    return False
