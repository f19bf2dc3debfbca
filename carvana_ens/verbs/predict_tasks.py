"""predict on workers: photos go out in tasks, maps are written where they are made, and tokens come back.

Photos are cut into units in the order of their ids, as one process that predicts all of them does, whatever is there
already and however many workers there are (``learn.units``), and only what is missing is written. So a map does not
depend on the number of workers, nor on where an earlier run was stopped. A unit that fails is predicted photo by
photo, and the photos that fail then are the ones to name.
"""

from __future__ import annotations

import dataclasses
import itertools
import socket
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from carvana_ens.data.images import ImageFolder
from carvana_ens.engine.cluster import Cluster
from carvana_ens.engine.memory import keep_freed_memory
from carvana_ens.engine.tasks import Died, unordered
from carvana_ens.engine.worker import alive, kept
from carvana_ens.errors import CarvanaEnsError, DataError, ProjectError, StoreError, TrainingError
from carvana_ens.learn.units import Meter, blocks_of
from carvana_ens.model import MemberConfig, Model
from carvana_ens.project import Project
from carvana_ens.registry import load_model
from carvana_ens.store.hand import StoreHand
from carvana_ens.store.place import Where, absolute
from carvana_ens.store.store import open_store
from carvana_ens.store.writer import StoreWriter
from carvana_ens.types import Say
from carvana_ens.verbs.member_maps import How, MemberMaps
from carvana_ens.verbs.plugin_calls import configured
from carvana_ens.verbs.regions import regions_of
from carvana_ens.verbs.survivors import made_or_failed, units_of_block

TASK = 32
"""Photos a task, about, at least: enough to read ahead while a model works."""
MOST = 128
"""At most: few enough that little is lost with a worker. Between two tasks its network waits."""
EACH = 8
"""Tasks for each worker, if there are enough photos."""
HOPELESS = 32
"""Photos that may fail before one succeeds: then the member is at fault, not the photos."""


@dataclass(frozen=True)
class Job:
    """What the tasks of one part share, in values that travel. key: another for each. token: of the store's writer."""

    key: str
    root: Path
    config: MemberConfig
    split: str
    photos: Path
    checkpoints: tuple[Path | None, ...]
    how: How
    store: Where
    token: str


@dataclass(frozen=True)
class Order:
    """Units of photos to predict; groups: of each photo. wanted: those whose maps are missing."""

    job: Job
    units: tuple[tuple[str, ...], ...]
    groups: Mapping[str, str]
    wanted: frozenset[str]


@dataclass(frozen=True)
class Token:
    """What was done: checksums of the maps that were written, why others could not be made, how long it took, and what
    is to be told the user.
    """

    checksums: tuple[tuple[str, int], ...]
    failed: tuple[tuple[str, str], ...]
    meter: Meter = field(default_factory=Meter)
    lines: tuple[str, ...] = ()


def job_of(
    project: Project,
    config: MemberConfig,
    split: str,
    photos: ImageFolder,
    checkpoints: Iterable[Path | None],
    how: How,
    writer: StoreWriter,
) -> Job:
    """A job with every path absolute, as workers need them."""
    files = tuple(None if path is None else path.absolute() for path in checkpoints)
    folder, store = photos.folder.absolute(), absolute(writer.path)
    return Job(uuid.uuid4().hex, project.root.absolute(), config, split, folder, files, how, store, writer.token)


def task_size(photos: int, workers: int) -> int:
    """Photos a task, about, for so many in all. No map depends on it."""
    return min(MOST, max(TASK, photos // (EACH * max(1, workers))))


def orders_of(
    job: Job, ids: Sequence[str], groups: Mapping[str, str], todo: frozenset[str], task: int = TASK
) -> Iterator[Order]:
    """The tasks of a part. ids: all its photos, in order. todo: photos whose maps are missing. task: see task_size."""
    model = _unloaded(job)
    wanted = (block for block in blocks_of(model, ids, groups) if not todo.isdisjoint(block))
    units: list[tuple[str, ...]] = []
    for block in itertools.chain(wanted, [None]):
        if units and (block is None or sum(map(len, units)) + len(block) > task):
            yield _order(job, units, groups, todo)
            units = []
        if block is not None:
            units += units_of_block(model, block)


def predict_on(
    cluster: Cluster, orders: Iterable[Order], writer: StoreWriter, meter: Meter, say: Say
) -> Iterator[tuple[str, str | None]]:
    """(id, None) for each map that was made and recorded, (id, reason) for each that cannot be made; in any order.

    meter: counts what all workers do. say: told once what workers have to say.

    Raises:
        CarvanaEnsError: what no photo is to blame for; the maps so far are kept.
    """
    new = failures = 0
    said: set[str] = set()
    for order, token in unordered(cluster, predict_order, orders, _parts):
        if isinstance(token, Died):
            reason = f"predicting it ends every worker: a crash, or {cluster.limit:g} s without a map"
            token = Token((), tuple((image_id, reason) for image_id in _due(order)))  # noqa: PLW2901
        writer.record(token.checksums)
        meter.add(token.meter)
        for line in token.lines:
            if line not in said:
                say(line)
                said.add(line)
        yield from ((image_id, None) for image_id, _ in token.checksums)
        yield from token.failed
        new, failures = new + len(token.checksums), failures + len(token.failed)
        if failures >= HOPELESS and not new:
            image_id, reason = token.failed[0]
            raise TrainingError(f"{failures} photos were tried and none could be predicted, {image_id}: {reason}")


def predict_order(order: Order) -> Token:
    """On a worker: predicts the units and writes the chunks of the wanted maps."""
    opened = kept(order.job.key, partial(_Opened, order.job))
    checksums: list[tuple[str, int]] = []
    failed: list[tuple[str, str]] = []
    for image_id, made in made_or_failed(opened.maps, order.units, order.groups, order.wanted, opened.by_group):
        if isinstance(made, str):
            failed.append((image_id, made))
        else:
            checksums.append((image_id, opened.hand.write_codes(image_id, made)))
            alive()
    return Token(tuple(checksums), tuple(failed), *opened.told())


class _Opened:
    """What a worker keeps from one task of a job to the next."""

    def __init__(self, job: Job) -> None:
        try:
            project = Project(job.root)
            photos = ImageFolder(job.photos)
            self.hand = StoreHand(open_store(job.store), job.token)
            regions = regions_of(project, job.config, job.split, ())  # that they are all there was seen by who asks
        except (DataError, ProjectError, StoreError) as error:
            raise CarvanaEnsError(
                f"a worker on {socket.gethostname()} does not see what this process sees: {error}; workers need "
                f"project, photos and stores under the same paths"
            ) from error
        self.by_group = _unloaded(job).context == "group"
        self._meter, self._lines = Meter(), list[str]()
        model = load_model(job.config.model)[0]
        say = self._lines.append
        keep_freed_memory()
        self.maps = MemberMaps(project, job.config, model, photos, regions, job.checkpoints, job.how, self._meter, say)

    def told(self) -> tuple[Meter, tuple[str, ...]]:
        """What was counted and said since this was asked last."""
        told = dataclasses.replace(self._meter), tuple(self._lines)
        self._meter.__init__()  # type: ignore[misc]
        self._lines.clear()
        return told


def _order(job: Job, units: Sequence[tuple[str, ...]], groups: Mapping[str, str], wanted: frozenset[str]) -> Order:
    ids = list(itertools.chain(*units))
    return Order(job, tuple(units), {image_id: groups[image_id] for image_id in ids}, wanted.intersection(ids))


def _parts(order: Order) -> list[Order]:
    """Smaller orders, with batches that stay what they are as long as they can: units, then photos."""
    model = _unloaded(order.job)
    units: Iterable[tuple[str, ...]] = order.units
    if model.context == "image" and (len(order.units) == 1 or model.batch_size == 1):
        units = ((image_id,) for image_id in _due(order))
    due = (unit for unit in units if not order.wanted.isdisjoint(unit))
    return [_order(order.job, [unit], order.groups, order.wanted) for unit in due]


def _unloaded(job: Job) -> Model:
    """The model as its options make it: what it sees at once may be one of them."""
    return configured(load_model(job.config.model)[0], job.config, job.root)


def _due(order: Order) -> list[str]:
    """The wanted photos in order."""
    return [image_id for image_id in itertools.chain(*order.units) if image_id in order.wanted]
