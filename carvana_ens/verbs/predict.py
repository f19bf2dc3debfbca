"""predict: probability maps of members into their stores; what is there already is kept, only the rest is predicted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from carvana_ens.data.folds import FoldTable
from carvana_ens.data.images import ImageFolder
from carvana_ens.engine.cluster import Cluster, Workers, connected
from carvana_ens.errors import ProjectError, StaleError, UsageError
from carvana_ens.files import sha256_file
from carvana_ens.learn.units import Meter
from carvana_ens.model import MemberConfig, Model
from carvana_ens.project import FILE, IMPORTED, Project
from carvana_ens.registry import Entry, load_model
from carvana_ens.store.place import Where
from carvana_ens.store.remove import remove_store, take_lock
from carvana_ens.store.schema import PENDING, DType, Provenance, Seen
from carvana_ens.store.writer import StoreWriter
from carvana_ens.types import Codes, Json, Say, Track, unsaid, untracked
from carvana_ens.verbs.member_maps import How, MemberMaps
from carvana_ens.verbs.photo_changes import PhotoPrints, current_maps
from carvana_ens.verbs.plugin_calls import configured
from carvana_ens.verbs.predict_tasks import Order, job_of, orders_of, predict_on
from carvana_ens.verbs.regions import regions_of
from carvana_ens.verbs.runs import recorded
from carvana_ens.verbs.train import DONE, chosen_folds, read_done, task_digest, untrained_reason
from carvana_ens.verbs.versions import installed
from carvana_ens.verbs.workspace import Workspace

_SPLIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Predicted:
    """Maps of one member and split. new: maps that were made just now. missing: maps that are still to be made.

    failed: why, by id, of photos that workers could not predict. meter: the time that it took, of all workers together.
    """

    member: str
    split: str
    path: Where
    images: int
    new: int
    missing: int
    failed: Mapping[str, str]
    meter: Meter


@dataclass(frozen=True)
class _Part:
    """Photos that the same checkpoints predict, with the folds these belong to (empty: no fold model)."""

    ids: tuple[str, ...]
    checkpoints: Mapping[str, Path | None]


def predict(
    project: Project,
    members: Sequence[str] = (),
    *,
    fold: int | None = None,
    split: str | None = None,
    images: Path | None = None,
    device: str = "auto",
    fresh: bool = False,
    break_lock: bool = False,
    dtype: DType = "uint8",
    batch: int | None = None,
    workers: Workers | None = None,
    say: Say = unsaid,
    track: Track = untracked,
) -> list[Predicted]:
    """Predicts the named members (default: all that are not imported).

    Without ``split``: "oof" where there are masks, and "test" where there are test photos. "oof": each training photo
    by the fold model that did not see its group (with ``fold``: only that fold's). Any other split: the mean over the
    fold models, for the test photos or for the photos in ``images``. fresh: makes the stores anew. break_lock: takes
    the locks that killed writers left on these stores. batch: photos that a network is given at once; None: chosen for
    the device. workers: other processes that predict in place of this one; photos that they cannot predict are left
    out and listed, while in this process the first is an error.

    Raises:
        UsageError: unknown member or fold, or a split and photos that do not belong together.
        ProjectError: a member is not trained, or the project has no such photos.
        CarvanaEnsError: no workers, or the scheduler was lost.
    """
    splits = _splits(project, split, images, fold)
    how = How(device, dtype, batch)
    workspace = Workspace(project, say, track)
    configs = project.select(members)
    results = []
    with _cluster(workers, configs, device) as cluster:
        for config in configs:
            if config.model == IMPORTED:
                say(f"{config.name}: nothing to predict (its maps were imported)")
                continue
            for name in splits:
                if name == "oof":
                    photos, parts, seen = workspace.images, *_out_of_fold(workspace, config, fold)
                    ids = _ever_out_of_fold(workspace, config)
                else:
                    photos = workspace.test if images is None else ImageFolder(images, say=say)
                    ids = photos.ids
                    parts, seen = _every_fold(workspace, config, ids)
                facts = {"member": config.name, "split": name, "device": device}
                with recorded(project, "predict", **facts) as run:
                    if break_lock:
                        take_lock(project.store_path(config.name, name), say)
                    done = _predict_split(workspace, config, name, photos, ids, parts, seen, how, fresh, cluster)
                    run |= {"images": done.new, **_speed(done, cluster)}
                results.append(done)
    return results


def _speed(done: Predicted, cluster: Cluster | None) -> dict[str, Json]:
    """For the record of the run: photos a second of prediction, and the part of it that networks were at work."""
    meter, facts = done.meter, dict[str, Json]()
    if meter.photos:
        facts |= {
            "images_per_second": round(meter.photos / meter.seconds, 4),
            "network_share": round(meter.network / meter.seconds, 4),
        }
    if cluster is not None:
        facts |= {"workers": cluster.count(), "worker_seconds": round(meter.seconds, 3), "failed": sorted(done.failed)}
    return facts


@contextmanager
def _cluster(workers: Workers | None, configs: Sequence[MemberConfig], device: str) -> Iterator[Cluster | None]:
    if workers is None:
        yield None
        return
    models = sorted({config.model for config in configs if config.model != IMPORTED})
    with connected(workers, partial(installed, models), device) as cluster:
        yield cluster


def _splits(project: Project, split: str | None, images: Path | None, fold: int | None) -> list[str]:
    if images is not None and split in (None, "oof", "test"):
        raise UsageError("--images needs --split NAME, another name than oof and test, for the maps of these photos")
    if images is None and split not in (None, "oof", "test"):
        raise UsageError(f"split {split!r} needs --images FOLDER: only oof and test are known to the project")
    if split is not None and _SPLIT.fullmatch(split) is None:
        raise UsageError(
            f"split {split!r} cannot name a store: use letters, digits, _ . and -, a letter or digit first"
        )
    if fold is not None and split not in (None, "oof"):
        raise UsageError(f"--fold goes with --split oof; {split} maps are the mean over all folds")
    if split is not None:
        return [split]
    if fold is not None:
        return ["oof"]
    found = ["oof"] * (project.data.images is not None and project.data.masks is not None)
    found += ["test"] * (project.data.test is not None)
    if not found:
        raise ProjectError(f"{project.file} names no photos to predict: add data.images and data.masks, or data.test")
    return found


def _has_fold_models(config: MemberConfig) -> bool:
    return config.checkpoint is None and load_model(config.model)[0].trainable


def _ever_out_of_fold(workspace: Workspace, config: MemberConfig) -> tuple[str, ...]:
    if not _has_fold_models(config):
        return workspace.ids
    table = workspace.fold_table(config.folds)
    held_out = {i for fold in range(table.folds) for i in table.held_out(fold, workspace.groups)}
    return tuple(image_id for image_id in workspace.ids if image_id in held_out)


def _out_of_fold(workspace: Workspace, config: MemberConfig, fold: int | None) -> tuple[list[_Part], Seen]:
    if not _has_fold_models(config):
        if fold is not None:
            raise UsageError(f"--fold means nothing to {config.name}: {untrained_reason(config)}")
        return [_Part(workspace.ids, _foreign(workspace.project, config))], _seen_of_unfolded(config)
    table = workspace.fold_table(config.folds)
    parts = []
    for number in chosen_folds(config, table, fold):
        ids = tuple(table.held_out(number, workspace.groups))
        parts.append(_Part(ids, {str(number): fold_checkpoint(workspace, config, table, number)}))
    return parts, "fold table"


def _every_fold(workspace: Workspace, config: MemberConfig, ids: tuple[str, ...]) -> tuple[list[_Part], Seen]:
    if not _has_fold_models(config):
        return [_Part(ids, _foreign(workspace.project, config))], _seen_of_unfolded(config)
    table = workspace.fold_table(config.folds)
    checkpoints = {str(number): fold_checkpoint(workspace, config, table, number) for number in range(table.folds)}
    return [_Part(ids, checkpoints)], "fold table"


def _seen_of_unfolded(config: MemberConfig) -> Seen:
    if config.checkpoint is None:
        return "none"
    return "declared out-of-fold" if config.out_of_fold else "unknown"


def _foreign(project: Project, config: MemberConfig) -> Mapping[str, Path | None]:
    if config.checkpoint is None:
        return {"": None}
    path = project.root / config.checkpoint
    if not path.is_file():
        raise ProjectError(
            f"the checkpoint of {config.name}, {path}, is not there: put it back or change {project.file}"
        )
    if config.sha256 is not None and sha256_file(path) != config.sha256:
        raise ProjectError(f"the checkpoint of {config.name}, {path}, has another sha256 than {project.file} says")
    return {"": path}


def fold_checkpoint(workspace: Workspace, config: MemberConfig, table: FoldTable, fold: int) -> Path:
    """The checkpoint of a finished fold, trained with the settings that ensemble.toml has now.

    Raises:
        ProjectError: the fold is not trained, its checkpoint is gone, or the settings changed since.
    """
    trained = workspace.project.member(config.like or config.name)
    folder = workspace.project.checkpoint_folder(config, fold)
    if not (folder / DONE).is_file():
        raise ProjectError(f"{trained.name}, fold {fold}, is not trained yet: run carvana-ens train {trained.name}")
    record = read_done(folder / DONE)
    path = folder / str(record["checkpoint"])
    if not path.is_file():
        raise ProjectError(f"{path} is gone: train it anew with carvana-ens train {trained.name} --fresh")
    if record["digest"] != task_digest(workspace, trained, table, fold):
        raise StaleError(
            f"{trained.name}, fold {fold}, was trained with other settings, fold table or photos than {FILE} has now: "
            f"put them back, or train it anew with carvana-ens train {trained.name} --fresh"
        )
    if sha256_file(path) != record["sha256"]:
        raise StaleError(
            f"{path} is not the checkpoint that the training of {trained.name}, fold {fold}, left (its sha256 differs "
            f"from {folder / DONE}): put that one back, or run carvana-ens train {trained.name} --fresh"
        )
    return path


def _predict_split(
    workspace: Workspace,
    config: MemberConfig,
    split: str,
    photos: ImageFolder,
    ids: tuple[str, ...],
    parts: Sequence[_Part],
    seen: Seen,
    how: How,
    fresh: bool,
    cluster: Cluster | None,
) -> Predicted:
    project = workspace.project
    model, entry = load_model(config.model)
    configured(model, config)  # refused before a store is made that would remember the settings
    path = project.store_path(config.name, split)
    provenance = _provenance(workspace, config, split, parts, seen, model, entry)
    sizes = [photos.size(image_id) for image_id in ids]
    if fresh:
        remove_store(path)  # after all that can be refused
    new = 0
    opened = partial(StoreWriter, path, ids, sizes, provenance, how.dtype)
    prints = PhotoPrints(photos, project.root / "cache")
    groups = workspace.groups_of(ids) if model.context == "group" else None
    with current_maps(opened, prints, f"{config.name} {split}", groups, workspace.say, workspace.track) as writer:
        todo = set(writer.missing())
        asked = [image_id for part in parts for image_id in part.ids if image_id in todo]
        meter = Meter()
        made: Iterator[tuple[str, str | None]]
        if cluster is None:
            made = _written(_maps(workspace, config, split, photos, parts, todo, model, how, meter), writer)
        else:
            orders = _orders(workspace, config, split, photos, parts, todo, how, writer)
            made = predict_on(cluster, orders, writer, meter, workspace.say)
        failed: dict[str, str] = {}
        for image_id, reason in workspace.track(made, len(asked), f"{config.name} {split}"):
            if reason is None:
                new += 1
            else:
                failed[image_id] = reason
        return Predicted(config.name, split, path, len(ids), new, len(writer.missing()), failed, meter)


def _written(maps: Iterable[tuple[str, Codes]], writer: StoreWriter) -> Iterator[tuple[str, None]]:
    for image_id, codes in maps:
        writer.write_codes(image_id, codes)
        yield image_id, None


def _maps(
    workspace: Workspace,
    config: MemberConfig,
    split: str,
    photos: ImageFolder,
    parts: Sequence[_Part],
    todo: set[str],
    model: type[Model],
    how: How,
    meter: Meter,
) -> Iterator[tuple[str, Codes]]:
    for part in parts:
        wanted = [image_id for image_id in part.ids if image_id in todo]
        if not wanted:
            continue
        regions = regions_of(workspace.project, config, split, part.ids)
        checkpoints = list(part.checkpoints.values())
        member = MemberMaps(workspace.project, config, model, photos, regions, checkpoints, how, meter, workspace.say)
        yield from member.maps(wanted, workspace.groups_of(part.ids), part.ids)


def _orders(
    workspace: Workspace,
    config: MemberConfig,
    split: str,
    photos: ImageFolder,
    parts: Sequence[_Part],
    todo: set[str],
    how: How,
    writer: StoreWriter,
) -> Iterator[Order]:
    for part in parts:
        if not todo.isdisjoint(part.ids):
            regions_of(workspace.project, config, split, part.ids)  # refused here, before work goes out
            job = job_of(workspace.project, config, split, photos, part.checkpoints.values(), how, writer)
            yield from orders_of(job, part.ids, workspace.groups_of(part.ids), frozenset(todo))


def _provenance(
    workspace: Workspace,
    config: MemberConfig,
    split: str,
    parts: Sequence[_Part],
    seen: Seen,
    model: type[Model],
    entry: Entry,
) -> Provenance:
    project = workspace.project
    checkpoints: dict[str, str] = {}
    fold_table = None
    if _has_fold_models(config):
        table = workspace.fold_table(config.folds)
        fold_table = {"name": table.name, "digest": table.digest}
        for number in range(table.folds):
            # all folds, also when only one is predicted now: the store is one thing, finished fold by fold
            done = project.checkpoint_folder(config, number) / DONE
            checkpoints[str(number)] = str(read_done(done)["sha256"]) if done.is_file() else PENDING
    else:
        for part in parts:
            checkpoints |= {fold: sha256_file(path) for fold, path in part.checkpoints.items() if path is not None}
    return Provenance(
        member=config.to_json(),
        split=split,
        seen=seen,
        plugin={"model": config.model, "distribution": entry.distribution, "version": entry.version},
        checkpoints=checkpoints,
        fold_table=fold_table,
        averaging={"tta": model.output, "folds": "probabilities"},
    )
