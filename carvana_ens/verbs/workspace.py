"""What most verbs need of a project: its photos, masks, groups and fold tables, opened when they are asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path

from carvana_ens.data.dataset import LabelledImages, matched_ids
from carvana_ens.data.folds import FoldTable, make_folds, read_folds, write_folds
from carvana_ens.data.ids import groups, listed, photos_of_view, views
from carvana_ens.data.images import ImageFolder
from carvana_ens.data.masks import MaskSource, open_masks
from carvana_ens.data.mixed import Part
from carvana_ens.data.pseudo import PseudoLabels
from carvana_ens.errors import DataError, ProjectError
from carvana_ens.files import digest
from carvana_ens.project import FILE, DataConfig, ExtraConfig, FoldsConfig, Project
from carvana_ens.types import Say, Track, unsaid, untracked

DEFAULT_FOLDS = 5


class Workspace:
    """A project's data. Photos and masks are found on first use, so that a verb opens only what it needs."""

    def __init__(self, project: Project, say: Say = unsaid, track: Track = untracked) -> None:
        self.project = project
        self.say = say
        self.track = track
        self._pseudo: dict[str, PseudoLabels] = {}

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
        data = self.project.data
        return open_masks(self._folder("masks"), data.categories, data.dialect)

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

    @cached_property
    def extra(self) -> list[Part]:
        """The second data sets, photos with masks that every fold is trained on; ``extra1:`` and so on before ids.

        Raises:
            DataError: photos and masks that do not match, or that the project's own photos may be of, too.
        """
        known = set(self.groups.values())
        return [
            open_extra(number, config, self.project.data, known, self.say)
            for number, config in enumerate(self.project.data.extra, 1)
        ]

    def pseudo(self, name: str) -> PseudoLabels:
        """Pseudo-labels by name.

        Raises:
            ProjectError: there are none of that name, or they cannot be read.
            DataError: some are of the project's own groups, or their photos are gone.
        """
        if name not in self._pseudo:
            labels = PseudoLabels(self.project.pseudo_folder(name), self.project.root)
            check_apart(self.groups_of(labels.ids), set(self.groups.values()), f"the pseudo-labels {name}")
            self._pseudo[name] = labels
        return self._pseudo[name]

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
                self._areas(config.by_view),
                config.folds or min(DEFAULT_FOLDS, len(present)),
                config.holdout,
                config.seed,
                rule=config.rule,
                by_view=config.by_view,
                group_pattern=self.project.data.group,
            )
            write_folds(path, table)
            self.say(f"fold table {name}: {len(present)} groups in {table.folds} folds, written to {path}")
        try:
            table.check(self.groups, self.project.data.group)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        return table

    def _areas(self, view: str | None) -> dict[str, float]:
        """Share of object pixels by group, summed over its photos (all views weigh the same, whatever their size), or
        that of one view.
        """
        ids = self.ids
        if view is not None:
            ids = tuple(photos_of_view(view, self.groups, views(self.ids, self.project.data.group)).values())
        areas = dict.fromkeys(sorted(set(self.groups.values())), 0.0)
        for image_id in self.track(ids, len(ids), "mask areas"):
            areas[self.groups[image_id]] += float(self.masks.read(image_id, self.images.size(image_id)).mean())
        return areas

    @cached_property
    def training_digest(self) -> str:
        """sha256 over ids and groups of the training photos."""
        return digest([[image_id, self.groups[image_id]] for image_id in self.ids])


def open_extra(number: int, config: ExtraConfig, data: DataConfig, known: Collection[str], say: Say = unsaid) -> Part:
    """A second data set. number: from 1. data: of the project. known: groups of its training photos.

    Raises:
        DataError: photos and masks that do not match, or photos of these groups.
    """
    images = ImageFolder(config.images, say=say)
    masks = open_masks(config.masks, data.categories if config.masks.suffix.lower() == ".json" else ())
    ids = matched_ids(images, masks)
    check_apart(groups(ids, data.group), known, f"data.extra {number} ({config.images})")
    share = None if config.share is None else Fraction(str(config.share))
    return Part(LabelledImages(images, masks, ids), ids, f"extra{number}:", share)


def check_apart(found: Mapping[str, str], known: Collection[str], what: str) -> None:
    """Refuses images whose group the training photos have: some fold would hold out what its model has seen.

    Args:
        found: the group of each image.
        known: groups of the training photos.
        what: names the images.

    Raises:
        DataError: names the first ids.
    """
    both = [image_id for image_id, group in found.items() if group in known]
    if both:
        raise DataError(
            f"{len(both)} of {len(found)} images of {what} are of groups that the training photos have too, "
            f"{listed(both)}: a model would be trained on what its fold holds out; take them out"
        )


def _check_table(path: Path, table: FoldTable, config: FoldsConfig) -> None:
    same = (
        (config.folds is None or config.folds == table.folds)
        and config.holdout == table.holdout
        and config.seed == table.seed
        and config.rule == table.rule
        and config.by_view == table.by_view
    )
    if not same:
        raise ProjectError(
            f"{path} was made with folds {table.folds}, holdout {table.holdout}, seed {table.seed}, rule {table.rule}, "
            f"by_view {table.by_view}, but {FILE} now says otherwise: change it back, name a new table, or remove the "
            f"file (and train again)"
        )
