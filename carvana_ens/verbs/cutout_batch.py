"""Photos on their way to cutouts: predicted some at a time, blended, cut out; those that cannot be are found."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from carvana_ens.core.expected_dice import blend_cut
from carvana_ens.data.ids import groups
from carvana_ens.data.images import read_image
from carvana_ens.engine import ordered_map
from carvana_ens.engine.cluster import Workers
from carvana_ens.ensemble.blending import Blend
from carvana_ens.ensemble.stack import MapStack
from carvana_ens.errors import DataError, PluginError, TrainingError
from carvana_ens.output.cutouts import Finish, finished, kept_tags, write_cutout
from carvana_ens.output.rims import rim_alpha
from carvana_ens.postprocess import Step
from carvana_ens.project import Project
from carvana_ens.registry import load_model
from carvana_ens.store.place import Where
from carvana_ens.types import ProbabilityMap, Say, Track
from carvana_ens.verbs.blend import open_blend, post_processed
from carvana_ens.verbs.predict import predict

CHUNK = 64
"""Photos, about, whose maps are made and used before those of others: the most that a stop can lose."""
HOPELESS = 8
"""Photos (or groups) that may fail to be predicted before the first cutout: then a member is at fault."""
AT_ONCE = 48_000_000
"""Pixels of all photos that are cut out at the same time, at most, or one photo: each pixel takes about 50 bytes."""
SPLIT = "cutout"
"""Of the stores that maps of new photos lie in."""
_PHOTO = (DataError, TrainingError, PluginError)


class Elsewhere(Project):
    """The project, with the maps of new photos in another folder."""

    def __init__(self, root: Path, folder: Path) -> None:
        super().__init__(root)
        self.folder = folder

    def store_path(self, member: str, split: str) -> Where:
        if split != SPLIT:
            return super().store_path(member, split)
        return self.folder / "stores" / member / f"{split}.zarr"

    @property
    def cache(self) -> Path:
        """Nothing is kept of new photos."""
        return self.folder / "cache"


@dataclass(frozen=True)
class Asked:
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
class Batch:
    """Photos on their way. failed and written grow."""

    project: Elsewhere
    asked: Asked
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
                split=SPLIT,
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
        plain = open_blend(self.project, asked.weights, asked.threshold, SPLIT)
        combined = post_processed(self.project, plain, asked.steps, SPLIT) if asked.steps else plain
        levels = Levels(plain)

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


class Levels:
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
