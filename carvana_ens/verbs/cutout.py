"""cutout: the whole ensemble on new photos, and what it finds cut out of them."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from carvana_ens.core.expected_dice import blend_cut
from carvana_ens.core.weights import parse_threshold
from carvana_ens.data.ids import EXTENSIONS, groups, id_of, listed
from carvana_ens.data.images import read_image
from carvana_ens.engine import default_threads, ordered_map
from carvana_ens.engine.cluster import Workers
from carvana_ens.ensemble.blending import Blend, exact_weights
from carvana_ens.ensemble.stack import MapStack
from carvana_ens.ensemble.steps import parse_steps, steps_text, unblended
from carvana_ens.ensemble.tuning import read_tuning
from carvana_ens.errors import DataError, PluginError, StaleError, TrainingError, UsageError
from carvana_ens.output.cutouts import Finish, contact_sheet, finished, kept_tags, write_cutout
from carvana_ens.output.drawing import check_suffix
from carvana_ens.output.rims import check_installed, rim_alpha
from carvana_ens.postprocess import Step
from carvana_ens.project import IMPORTED, Project
from carvana_ens.registry import load_model
from carvana_ens.store.place import Where
from carvana_ens.types import ProbabilityMap, Say, Track, unsaid, untracked
from carvana_ens.verbs.blend import TUNED, open_blend, post_processed, tuned_steps
from carvana_ens.verbs.predict import predict
from carvana_ens.verbs.regions import first_pass, rounds
from carvana_ens.verbs.runs import recorded
from carvana_ens.verbs.status import status

CHUNK = 64
"""Photos, about, whose maps are made and used before those of others: the most that a stop can lose."""
SHEET = 48
"""Cutouts on a sheet, at most."""
HOPELESS = 8
"""Photos (or groups) that may fail to be predicted before the first cutout: then a member is at fault."""
AT_ONCE = 48_000_000
"""Pixels of all photos that are cut out at the same time, at most, or one photo: each pixel takes about 50 bytes."""
_SPLIT = "cutout"
_PHOTO = (DataError, TrainingError, PluginError)


@dataclass(frozen=True)
class Cutouts:
    """written: files made just now, in the order of the photos. skipped: cutouts that were there. failed: why, by
    photo. weights: exact. postprocess: the steps that masks went through, as text.
    """

    written: list[Path]
    skipped: int
    failed: Mapping[str, str]
    weights: Mapping[str, int]
    postprocess: str


def cutout(
    project: Project,
    photos: Sequence[Path],
    output: Path,
    *,
    weights: str | None = None,
    threshold: str | None = None,
    postprocess: str | None = None,
    finish: Finish | None = None,
    overwrite: bool = False,
    sheet: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    workers: Workers | None = None,
    say: Say = unsaid,
    track: Track = untracked,
) -> Cutouts:
    """Writes ``output/<stem>`` of each photo: what the blend says is the object, with the rest transparent.

    All fold models of each member with a weight predict the photos, and their maps, which are kept in the system's
    temporary folder meanwhile, are blended as ``blend`` does it. Photos that cannot be cut out are listed, and the
    others done. Cutouts that are there are kept, so that a stopped batch goes on.

    Args:
        project: members that can predict.
        photos: files, and folders whose own picture files are meant.
        output: a folder, made where it is missing.
        weights: as ``blend`` has it; None: tuned where tuning is fresh, else equal.
        threshold: as ``blend`` has it.
        postprocess: likewise; None: the tuned steps with tuned weights.
        finish: what to write; None: transparent PNG.
        overwrite: makes anew what is there.
        sheet: draws the first ``SHEET`` cutouts, ``.png`` or ``.jpg``.
        device: where networks run.
        threads: photos that are cut out at a time, fewer where they are large (``AT_ONCE``); None: the processors.
        workers: processes of this machine that predict in place of this one.
        say: told of what is chosen and of what conversions lose.
        track: shows progress.

    Raises:
        UsageError: arguments that cannot be meant, the extra ``cutout`` is missing, members with imported maps, two
            photos of one name, or a cutout that would take the place of a photo.
        ProjectError: a member is not trained, or tuned values are stale.
        PluginError, TrainingError: no photo can be predicted.
    """
    check_installed()
    if workers is not None and workers.scheduler is not None:
        raise UsageError("cutout keeps maps in this machine's temporary folder: give --workers in place of --scheduler")
    finish = finish or Finish()
    if sheet is not None:
        check_suffix(sheet)
        if finish.mask_only or finish.background is not None:
            raise UsageError("--sheet shows transparent cutouts: leave out --background and --mask-only")
    weights = weights or _default_weights(project, say)
    if threshold not in (None, TUNED):
        parse_threshold(threshold)
    if TUNED in (weights, threshold):
        _check_tuned(project)
    steps = parse_steps(tuned_steps(project, weights) if postprocess is None else postprocess)
    project.select(())
    given = read_tuning(project.tuning_file).weights if weights == TUNED else weights
    exact = exact_weights(list(project.members), given, say)
    members = _predicting(project, exact, steps)

    found, failed = _photos(project, photos)
    targets = {image_id: output / f"{image_id}{finish.suffix}" for image_id in found}
    _check_apart(found, targets)
    todo = [image_id for image_id in found if overwrite or not targets[image_id].exists()]
    with recorded(project, "cutout", weights=exact, postprocess=steps_text(steps), members=members) as run:
        with tempfile.TemporaryDirectory(prefix="carvana-ens-cutout-") as folder:
            elsewhere = _Elsewhere(project.root, Path(folder))
            asked = _Asked(weights, threshold, steps, finish, members, device, threads or default_threads(), workers)
            batch = _Batch(elsewhere, asked, found, targets, failed, say, track)
            batch.cut_out(todo)
        run |= {"images": len(batch.written), "failed": sorted(failed)}
    if sheet is not None:
        ready = [image_id for image_id in found if targets[image_id].exists() and str(found[image_id]) not in failed]
        if len(ready) > SHEET:
            say(f"{sheet} shows the first {SHEET} of {len(ready)} cutouts")
        contact_sheet(((image_id, targets[image_id]) for image_id in ready[:SHEET]), sheet)
    return Cutouts(batch.written, len(found) - len(todo), failed, exact, steps_text(steps))


def _default_weights(project: Project, say: Say) -> str:
    tuning = status(project).tuning
    if tuning == "fresh":
        return TUNED
    if tuning != "none":
        say(f"equal weights, for the tuned ones cannot be used: {tuning}")
    return "equal"


def _check_tuned(project: Project) -> None:
    read_tuning(project.tuning_file)
    tuning = status(project).tuning
    if tuning != "fresh":
        raise StaleError(tuning)


def _predicting(project: Project, weights: Mapping[str, int], steps: Sequence[Step]) -> list[str]:
    """The members whose maps are needed, each after the one whose maps it needs itself."""
    needed = [*weights, *unblended(steps, weights)]
    for name in needed:
        config = project.member(name)
        first = None if config.model == IMPORTED else first_pass(project, config)
        if first is not None and first.name not in needed:
            needed.append(first.name)
    imported = [name for name in needed if project.member(name).model == IMPORTED]
    if imported:
        rest = [name for name in project.members if project.member(name).model != IMPORTED]
        hint = f"name weights of the others, --weights {','.join(f'{name}=1' for name in rest)}"
        raise UsageError(
            f"members {', '.join(imported)} have imported maps and no model, so they cannot predict new photos: "
            f"{hint if rest else 'add a member with a model'}"
        )
    return [name for together in rounds(project) for name in together if name in needed]


def _photos(project: Project, given: Sequence[Path]) -> tuple[dict[str, Path], dict[str, str]]:
    """The photos by id, in the order given, and why others cannot be meant."""
    found: dict[str, Path] = {}
    failed: dict[str, str] = {}
    for path in _files(given):
        try:
            image_id = id_of(path)
            groups([image_id], project.data.group)
        except DataError as error:
            failed[str(path)] = str(error)
            continue
        if image_id in found and not found[image_id].samefile(path):
            raise UsageError(f"{found[image_id]} and {path} would both be cut out to {image_id}: take them one by one")
        found[image_id] = path
    if not found and not failed:
        raise UsageError(f"there are no photos in {listed([str(path) for path in given])}: name files or folders")
    return found, failed


def _files(given: Sequence[Path]) -> Iterator[Path]:
    for path in given:
        if not path.is_dir():
            yield path
            continue
        for file in sorted(path.iterdir()):
            if file.suffix.lower() in EXTENSIONS and not file.name.startswith(".") and not file.is_dir():
                yield file


def _check_apart(photos: Mapping[str, Path], targets: Mapping[str, Path]) -> None:
    files = {path.resolve() for path in photos.values()}
    for target in targets.values():
        if target.resolve() in files:
            raise UsageError(f"the cutout {target} would take the place of a photo: give another folder with -o")


class _Elsewhere(Project):
    """The project, with the maps of new photos in another folder."""

    def __init__(self, root: Path, folder: Path) -> None:
        super().__init__(root)
        self.folder = folder

    def store_path(self, member: str, split: str) -> Where:
        if split != _SPLIT:
            return super().store_path(member, split)
        return self.folder / "stores" / member / f"{split}.zarr"

    @property
    def cache(self) -> Path:
        """Nothing is kept of new photos."""
        return self.folder / "cache"


@dataclass(frozen=True)
class _Asked:
    """What to do with every photo."""

    weights: str
    threshold: str | None
    steps: Sequence[Step]
    finish: Finish
    members: Sequence[str]
    device: str
    threads: int
    workers: Workers | None


@dataclass
class _Batch:
    """Photos on their way. failed and written grow."""

    project: _Elsewhere
    asked: _Asked
    photos: Mapping[str, Path]
    targets: Mapping[str, Path]
    failed: dict[str, str]
    say: Say
    track: Track
    written: list[Path] = field(default_factory=list)

    def cut_out(self, todo: Sequence[str]) -> None:
        """Cuts out these photos."""
        self._todo, self._hopeless = frozenset(todo), 0
        chunk: list[list[str]] = []
        workers = self.asked.workers
        most = CHUNK * (1 if workers is None else workers.count or 1)  # processes are started for every chunk
        for unit in self._units(todo):
            chunk.append(unit)
            if sum(map(len, chunk)) >= most:
                self._together(self._readable(chunk))
                chunk = []
        self._together(self._readable(chunk))

    def _units(self, todo: Sequence[str]) -> list[list[str]]:
        """Photos that are predicted together: a group with its views that are done already, or one."""
        kinds = [load_model(self.project.member(name).model)[0] for name in self.asked.members]
        if all(kind.context == "image" for kind in kinds):
            return [[image_id] for image_id in todo]
        found = groups(self.photos, self.project.data.group)
        views: dict[str, list[str]] = {found[image_id]: [] for image_id in todo}
        for image_id, group in found.items():
            if group in views:
                views[group].append(image_id)
        return list(views.values())

    def _readable(self, units: Sequence[Sequence[str]]) -> list[list[str]]:
        """The units without photos that cannot be decoded, which are noted; each is decoded once for this."""
        kept = []
        for unit in units:
            good = []
            for image_id in unit:
                try:
                    read_image(self.photos[image_id], self.say)
                except DataError as error:
                    self._fail(image_id, error)
                else:
                    good.append(image_id)
            if not self._todo.isdisjoint(good):
                kept.append(good)
        return kept

    def _together(self, units: Sequence[list[str]]) -> None:
        """Predicts and cuts out; where that fails, each half by itself, down to the photos that are to blame."""
        if not units:
            return
        ids = [image_id for unit in units for image_id in unit]
        try:
            failed = self._predict(ids)
        except _PHOTO as error:
            if len(units) > 1:
                self._together(units[: len(units) // 2])
                self._together(units[len(units) // 2 :])
                return
            for image_id in ids:
                self._fail(image_id, error)
            self._hopeless += 1
            if self._hopeless >= HOPELESS and not self.written:
                raise
            return
        for image_id, reason in failed.items():
            self._fail(image_id, TrainingError(reason))
        if len(failed) >= HOPELESS and not self.written and len(failed) == len(ids):
            raise TrainingError(f"no photo can be predicted: {next(iter(failed.values()))}")
        if failed:
            whole = ([image_id for image_id in unit if image_id not in failed] for unit in units)
            self._together([unit for unit in whole if unit])

    def _predict(self, ids: Sequence[str]) -> dict[str, str]:
        """Predicts and cuts out all of them, or none: then why, by photo that could not be predicted."""
        asked, folder = self.asked, self.project.folder / "photos"
        folder.mkdir()
        try:
            for image_id in ids:
                _link(self.photos[image_id], folder)
            done = predict(
                self.project,
                asked.members,
                split=_SPLIT,
                images=folder,
                device=asked.device,
                workers=asked.workers,
                track=self.track,
            )
            failed = {image_id: reason for member in done for image_id, reason in member.failed.items()}
            if not failed:
                self._finish([image_id for image_id in ids if image_id in self._todo])
            return failed
        finally:
            for part in ("photos", "stores"):
                shutil.rmtree(self.project.folder / part, ignore_errors=True)

    def _finish(self, ids: Sequence[str]) -> None:
        asked = self.asked
        plain = open_blend(self.project, asked.weights, asked.threshold, _SPLIT)
        combined = post_processed(self.project, plain, asked.steps, _SPLIT) if asked.steps else plain
        levels = _Levels(plain)

        def one(image_id: str) -> tuple[str, Exception | None]:
            path = self.photos[image_id]
            try:
                alpha = rim_alpha(*levels.read(image_id), combined.mask(image_id))
                picture = finished(read_image(path), alpha, asked.finish)
                write_cutout(self.targets[image_id], picture, kept_tags(path))
            except _PHOTO as error:
                return image_id, error
            return image_id, None

        largest = max((math.prod(combined.size(image_id)) for image_id in ids), default=1)
        hands = max(1, min(asked.threads, AT_ONCE // largest))
        for image_id, error in self.track(ordered_map(one, ids, hands), len(ids), "cutouts"):
            if error is None:
                self.written.append(self.targets[image_id])
            else:
                self._fail(image_id, error)

    def _fail(self, image_id: str, error: Exception) -> None:
        if image_id in self._todo:
            self.failed[str(self.photos[image_id])] = str(error)


def _link(photo: Path, folder: Path) -> None:
    """The photo in a folder of its own kind, without a copy where the system can."""
    try:
        (folder / photo.name).symlink_to(photo.absolute())
    except OSError:
        shutil.copyfile(photo, folder / photo.name)


class _Levels:
    """The blend before its cut; to be used from several threads."""

    def __init__(self, blend: Blend) -> None:
        names = sorted(blend.weights)
        self._blend = blend
        self._stack = MapStack([blend.stores[name] for name in names], blend.space.tables(names))
        self._weights = np.array([blend.weights[name] for name in names], np.uint32)

    def read(self, image_id: str) -> tuple[ProbabilityMap, float]:
        """(H, W) levels in [0, 1], and the level of the cut; sums of weight x code fit 32 bits (weights to 2**16)."""
        codes = self._stack.read(image_id)
        sums = np.zeros(codes.shape[1], np.uint32)
        for row, weight in zip(codes, self._weights, strict=True):
            sums += row * weight
        cut = float(self._blend.threshold)
        if self._blend.cut == "expected-dice":
            cut = blend_cut(codes, self._weights)[0] / self._stack.full_scale
        whole = self._stack.full_scale * int(self._weights.sum())
        return (sums / np.float64(whole)).astype(np.float32).reshape(self._blend.size(image_id)), cut
