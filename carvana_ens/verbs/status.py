"""status: what of a project is done, and what comes next."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from carvana_ens.ensemble.tuning import check_fresh, check_members, read_tuning
from carvana_ens.errors import CarvanaEnsError, PluginError
from carvana_ens.project import IMPORTED, Project
from carvana_ens.store.place import place_of
from carvana_ens.store.store import open_store
from carvana_ens.verbs.train import DONE, read_done, untrained_reason


@dataclass(frozen=True)
class StoreStatus:
    """done of images maps; problem: why the store cannot be read."""

    split: str
    done: int = 0
    images: int = 0
    seen: str = ""
    problem: str | None = None


@dataclass(frozen=True)
class MemberStatus:
    """training: Dice of each finished fold, by fold, or why nothing is to be trained; problem: of its plugin."""

    name: str
    model: str
    size: str | None
    training: dict[int, float]
    untrained: str | None
    problem: str | None
    stores: list[StoreStatus] = field(default_factory=list)


@dataclass(frozen=True)
class Status:
    """tuning: "fresh", "none", or why it is stale."""

    project: str
    members: list[MemberStatus]
    tuning: str


def status(project: Project) -> Status:
    """Reads what is there; changes nothing and raises for nothing but a broken ensemble.toml."""
    return Status(str(project.root), [_member(project, name) for name in project.members], _tuning(project))


def _member(project: Project, name: str) -> MemberStatus:
    config = project.member(name)
    untrained, problem = None, None
    training: dict[int, float] = {}
    try:
        untrained = untrained_reason(config)
        for folder in sorted((project.root / "checkpoints" / (config.like or name)).glob("fold*")):
            if folder.name.removeprefix("fold").isdecimal() and (folder / DONE).is_file():
                training[int(folder.name.removeprefix("fold"))] = float(read_done(folder / DONE)["dice"])
    except (PluginError, CarvanaEnsError) as error:
        problem = str(error)
    model = "(imported)" if config.model == IMPORTED else config.model
    return MemberStatus(
        name,
        model,
        None if config.size is None else str(config.size),
        training,
        untrained,
        problem,
        _stores(project, name),
    )


def _stores(project: Project, name: str) -> list[StoreStatus]:
    where = project.member_stores(name)
    try:
        paths = place_of(where).stores()
    except CarvanaEnsError as error:
        return [StoreStatus("stores", problem=str(error))]
    stores = []
    for path in paths:
        split = Path(path).stem
        try:
            store = open_store(path)
            missing = len(store.missing())
            stores.append(StoreStatus(split, len(store.ids) - missing, len(store.ids), store.provenance.seen))
        except CarvanaEnsError as error:
            stores.append(StoreStatus(split, problem=str(error)))
    return stores


def _tuning(project: Project) -> str:
    if not project.tuning_file.is_file():
        return "none"
    try:
        tuning = read_tuning(project.tuning_file)
        check_members(project.tuning_file, tuning, project.members)
        check_fresh(
            project.tuning_file,
            tuning,
            {name: open_store(project.store_path(name, "oof")) for name in tuning.weights},
            {},
        )
    except CarvanaEnsError as error:
        return str(error)
    return "fresh"
