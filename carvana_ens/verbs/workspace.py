"""What most verbs need of a project: its photos, masks, groups and fold tables, opened when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from carvana_ens.data.dataset import LabelledImages, matched_ids
from carvana_ens.data.folds import FoldTable, make_folds, read_folds, write_folds
from carvana_ens.data.ids import groups
from carvana_ens.data.images import ImageFolder
from carvana_ens.data.masks import MaskSource, open_masks
from carvana_ens.errors import DataError, ProjectError
from carvana_ens.files import digest
from carvana_ens.project import FILE, FoldsConfig, Project
from carvana_ens.types import Say, Track, unsaid, untracked

DEFAULT_FOLDS = 5


class Workspace:
    """A project's data. Photos and masks are found on first use, so that a verb opens only what it needs."""

    def __init__(self, project: Project, say: Say = unsaid, track: Track = untracked) -> None:
        self.project = project
        self.say = say
        self.track = track

    def _folder(self, key: str) -> Path:
        path: Path | None = getattr(self.project.data, key)
        if path is None:
            raise ProjectError(f'{self.project.root / FILE} names no data.{key}: add {key} = "FOLDER" under [data]')
        return path

    @cached_property
    def images(self) -> ImageFolder:
        """The training photos."""
        return ImageFolder(self._folder("images"), say=self.say)

    @cached_property
    def masks(self) -> MaskSource:
        """The masks of the training photos."""
        return open_masks(self._folder("masks"), self.project.data.categories)

    @cached_property
    def test(self) -> ImageFolder:
        """The test photos."""
        return ImageFolder(self._folder("test"), say=self.say)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Ids of the training photos, each with its mask."""
        return tuple(matched_ids(self.images, self.masks))

    @cached_property
    def groups(self) -> Mapping[str, str]:
        """The group of each training photo."""
        return self.groups_of(self.ids)

    def groups_of(self, ids: Sequence[str]) -> Mapping[str, str]:
        """The group of each id, by the project's rule."""
        return groups(ids, self.project.data.group)

    def labelled(self, ids: Sequence[str]) -> LabelledImages:
        """Training photos with their masks."""
        return LabelledImages(self.images, self.masks, ids)

    def fold_table(self, name: str) -> FoldTable:
        """The fold table of that name; made from the masks' areas and written when there is none yet.

        Raises:
            ProjectError: ensemble.toml has other settings than the table was made with.
            DataError: a photo's group is not in the table.
        """
        config = self.project.folds[name]
        path = self.project.fold_file(name)
        present = set(self.groups.values())
        if path.is_file():
            table = read_folds(path)
            _check_table(path, table, config)
        else:
            table = make_folds(
                name,
                self._areas(),
                config.folds or min(DEFAULT_FOLDS, len(present)),
                config.holdout,
                config.seed,
            )
            write_folds(path, table)
            self.say(f"fold table {name}: {len(present)} groups in {table.folds} folds, written to {path}")
        unknown = sorted(present - table.assignment.keys())
        if unknown:
            raise DataError(
                f"{path} does not know group {unknown[0]} ({len(unknown)} in all): "
                f"the photos changed since it was made; remove the file to make it anew"
            )
        return table

    def _areas(self) -> dict[str, float]:
        """Share of object pixels by group, summed over its photos (all views weigh the same, whatever their size)."""
        areas = dict.fromkeys(sorted(set(self.groups.values())), 0.0)
        for image_id in self.track(self.ids, len(self.ids), "mask areas"):
            areas[self.groups[image_id]] += float(self.masks.read(image_id, self.images.size(image_id)).mean())
        return areas

    @cached_property
    def training_digest(self) -> str:
        """sha256 over ids and groups of the training photos."""
        return digest([[image_id, self.groups[image_id]] for image_id in self.ids])


def _check_table(path: Path, table: FoldTable, config: FoldsConfig) -> None:
    same = (
        (config.folds is None or config.folds == table.folds)
        and config.holdout == table.holdout
        and config.seed == table.seed
    )
    if not same:
        raise ProjectError(
            f"{path} was made with folds {table.folds}, holdout {table.holdout}, seed {table.seed}, but {FILE} "
            f"now says otherwise: change it back, name a new table, or remove the file (and "
            f"train again)"
        )
