"""What members cost: measured seconds to predict a photo, and bytes of its map."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from carvana_ens.ensemble.pareto import MemberCost
from carvana_ens.errors import UsageError
from carvana_ens.project import Project
from carvana_ens.store.place import place_of
from carvana_ens.store.store import open_store


def seconds_by_member(project: Project) -> dict[str, float]:
    """Seconds a photo of the last run of ``predict`` that made maps of a member; without those never predicted here."""
    found: dict[str, float] = {}
    for path in sorted((project.root / "runs").glob("*-predict.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            images = int(record["images"])
            if images > 0:
                found[str(record["member"])] = float(record["seconds"]) / images
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a record of another version says nothing of cost
    return found


def bytes_of_map(project: Project, member: str) -> int:
    """Bytes of one out-of-fold map as it is stored, on average; 0 where there are none."""
    path = project.store_path(member, "oof")
    place = place_of(path)
    return place.size() // max(1, len(open_store(path).ids)) if place.exists() else 0


def member_costs(project: Project, members: Sequence[str], *, need_seconds: bool = False) -> Mapping[str, MemberCost]:
    """Costs by member. need_seconds: refuse a member of unknown speed, which otherwise counts as 0 s.

    Raises:
        UsageError: no run says how long a member takes.
    """
    seconds = seconds_by_member(project)
    unknown = [member for member in members if member not in seconds]
    if unknown and need_seconds:
        raise UsageError(
            f"nobody knows how long {', '.join(unknown)} takes for a photo: no run of predict in {project.root}/runs "
            f"made maps of it; use --max-models, or predict a split here"
        )
    return {member: MemberCost(seconds.get(member, 0.0), bytes_of_map(project, member)) for member in members}
