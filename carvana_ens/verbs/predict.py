"""predict: probability maps of members into their stores; what is there already is kept, only the rest is predicted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from carvana_ens.data.ids import listed
from carvana_ens.data.images import ImageFolder
from carvana_ens.engine.cluster import Cluster, Workers, connected
from carvana_ens.engine.memory import freed_memory_kept
from carvana_ens.errors import DataError, ProjectError, TrainingError, UsageError
from carvana_ens.learn.ahead import called_apart
from carvana_ens.learn.units import Meter
from carvana_ens.model import MemberConfig, Model
from carvana_ens.project import IMPORTED, Project
from carvana_ens.registry import load_model
from carvana_ens.store.place import Where
from carvana_ens.store.remove import remove_store, take_lock
from carvana_ens.store.schema import DType, Seen
from carvana_ens.store.writer import StoreWriter
from carvana_ens.types import Codes, Json, Say, Size, Track, unsaid, untracked
from carvana_ens.verbs.member_maps import How, MemberMaps
from carvana_ens.verbs.parts import Part, ever_out_of_fold, every_fold_parts, out_of_fold_parts, provenance_of
from carvana_ens.verbs.photo_changes import PhotoPrints, current_maps
from carvana_ens.verbs.plugin_calls import configured
from carvana_ens.verbs.predict_tasks import Order, job_of, orders_of, predict_on, task_size
from carvana_ens.verbs.regions import regions_of
from carvana_ens.verbs.runs import recorded
from carvana_ens.verbs.survivors import Made, all_made_or_failed
from carvana_ens.verbs.versions import installed
from carvana_ens.verbs.workspace import Workspace

_SPLIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Predicted:
    """Maps of one member and split. new: maps that were made just now. missing: maps that are still to be made.

    failed: why, by id, of photos that could not be predicted. meter: the time that it took, of all workers together.
    """

    member: str
    split: str
    path: Where
    images: int
    new: int
    missing: int
    failed: Mapping[str, str]
    meter: Meter


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
    the device. workers: other processes that predict in place of this one. Photos that cannot be predicted are left
    out and listed.

    Raises:
        UsageError: unknown member or fold, or a split and photos that do not belong together.
        ProjectError: a member is not trained, or the project has no such photos.
        DataError: photos without a header that can be read.
        TrainingError: no photo at all can be predicted.
        CarvanaEnsError: no workers, or the scheduler was lost.
    """
    splits = _splits(project, split, images, fold)
    how = How(device, dtype, batch)
    workspace = Workspace(project, say, track)
    configs = project.select(members)
    results = []
    with freed_memory_kept(), _cluster(workers, configs, device) as cluster:
        for config in configs:
            if config.model == IMPORTED:
                say(f"{config.name}: nothing to predict (its maps were imported)")
                continue
            for name in splits:
                if name == "oof":
                    photos, parts, seen = workspace.images, *out_of_fold_parts(workspace, config, fold)
                    ids = ever_out_of_fold(workspace, config)
                else:
                    photos = workspace.test if images is None else ImageFolder(images, say=say)
                    ids = photos.ids
                    parts, seen = every_fold_parts(workspace, config, ids)
                facts = {"member": config.name, "split": name, "device": device}
                with recorded(project, "predict", **facts) as run:
                    if break_lock:
                        take_lock(project.store_path(config.name, name), say)
                    done = _predict_split(workspace, config, name, photos, ids, parts, seen, how, fresh, cluster)
                    run |= {"images": done.new, **_speed(done, cluster)}
                results.append(done)
    return results


def check_complete(predicted: Iterable[Predicted]) -> None:
    """Refuses to go on where photos could not be predicted.

    Raises:
        DataError: names the first with its reason, and the others.
    """
    failed = {image_id: reason for done in predicted for image_id, reason in done.failed.items()}
    if failed:
        (image_id, reason), *others = failed.items()
        more = f"; neither could {listed([name for name, _ in others])}" if others else ""
        raise DataError(f"{image_id} could not be predicted: {reason}{more}")


def _speed(done: Predicted, cluster: Cluster | None) -> dict[str, Json]:
    """For the record of the run: photos a second of prediction (by each worker), and the networks' part of the time."""
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


def _predict_split(
    workspace: Workspace,
    config: MemberConfig,
    split: str,
    photos: ImageFolder,
    ids: tuple[str, ...],
    parts: Sequence[Part],
    seen: Seen,
    how: How,
    fresh: bool,
    cluster: Cluster | None,
) -> Predicted:
    project = workspace.project
    model, entry = load_model(config.model)
    unloaded = configured(model, config, project.root)  # refused before a store remembers the settings
    path = project.store_path(config.name, split)
    provenance = provenance_of(workspace, config, split, parts, seen, model, entry)
    sizes = _sizes(photos, ids)
    if fresh:
        remove_store(path)  # after all that can be refused
    new = 0
    opened = partial(StoreWriter, path, ids, sizes, provenance, how.dtype)
    groups = workspace.groups_of(ids) if unloaded.context == "group" else None
    prints = PhotoPrints(photos, project.cache, groups)
    with current_maps(opened, prints, f"{config.name} {split}", workspace.say, workspace.track) as writer:
        todo = set(writer.missing())
        asked = [image_id for part in parts for image_id in part.ids if image_id in todo]
        meter = Meter()
        made: Iterator[tuple[str, str | None]]
        if cluster is None:
            made = _written(_maps(workspace, config, split, photos, parts, todo, unloaded, how, meter), writer)
        else:
            task = task_size(len(todo), cluster.count())
            orders = _orders(workspace, config, split, photos, parts, todo, how, writer, task)
            made = predict_on(cluster, orders, writer, meter, workspace.say)
        failed: dict[str, str] = {}
        for image_id, reason in workspace.track(made, len(asked), f"{config.name} {split}"):
            if reason is None:
                new += 1
            else:
                failed[image_id] = reason
        if failed and len(writer.missing()) == len(ids):
            image_id, reason = next(iter(failed.items()))
            raise TrainingError(f"none of {len(failed)} photos could be predicted, {image_id}: {reason}")
        return Predicted(config.name, split, path, len(ids), new, len(writer.missing()), failed, meter)


def _sizes(photos: ImageFolder, ids: Sequence[str]) -> list[Size]:
    """The size of each photo, which a store must know of all.

    Raises:
        DataError: some have no header that can be read; names them.
    """
    sizes, broken = [], dict[str, DataError]()
    for image_id in ids:
        try:
            sizes.append(photos.size(image_id))
        except DataError as error:
            broken[image_id] = error
    if broken:
        reason = next(iter(broken.values()))
        more = f" (and {len(broken) - 1} more: {listed(list(broken)[1:])})" if len(broken) > 1 else ""
        raise DataError(f"{reason}{more}")
    return sizes


def _written(maps: Iterable[Made], writer: StoreWriter) -> Iterator[tuple[str, str | None]]:
    """Writes each map while the next one is made."""

    def write(image_id: str, made: Codes | str) -> tuple[str, str | None]:
        if isinstance(made, str):
            return image_id, made
        writer.write_codes(image_id, made)
        return image_id, None

    return called_apart(partial(write, *made) for made in maps)


def _maps(
    workspace: Workspace,
    config: MemberConfig,
    split: str,
    photos: ImageFolder,
    parts: Sequence[Part],
    todo: set[str],
    model: Model,
    how: How,
    meter: Meter,
) -> Iterator[Made]:
    for part in parts:
        wanted = [image_id for image_id in part.ids if image_id in todo]
        if not wanted:
            continue
        regions = regions_of(workspace.project, config, split, part.ids)
        checkpoints = list(part.checkpoints.values())
        maps = MemberMaps(
            workspace.project, config, type(model), photos, regions, checkpoints, how, meter, workspace.say
        )
        yield from all_made_or_failed(maps, model, part.ids, workspace.groups_of(part.ids), wanted)


def _orders(
    workspace: Workspace,
    config: MemberConfig,
    split: str,
    photos: ImageFolder,
    parts: Sequence[Part],
    todo: set[str],
    how: How,
    writer: StoreWriter,
    task: int,
) -> Iterator[Order]:
    for part in parts:
        if not todo.isdisjoint(part.ids):
            regions_of(workspace.project, config, split, part.ids)  # refused here, before work goes out
            job = job_of(workspace.project, config, split, photos, part.checkpoints.values(), how, writer)
            yield from orders_of(job, part.ids, workspace.groups_of(part.ids), frozenset(todo), task)
