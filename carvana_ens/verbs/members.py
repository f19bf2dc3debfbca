"""init, add-model and remove-model: the verbs that write ensemble.toml."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from carvana_ens.data.folds import make_folds
from carvana_ens.data.ids import groups, photos_of_view, views
from carvana_ens.data.images import ImageFolder
from carvana_ens.data.masks import open_masks
from carvana_ens.errors import CarvanaEnsError, DataError, UsageError
from carvana_ens.files import sha256_file
from carvana_ens.model import (
    PSEUDO_SHARE,
    MemberConfig,
    Model,
    Recipe,
    find_recipe,
    parse_options,
    path_options,
    tta_fault,
)
from carvana_ens.project import (
    IMPORTED,
    DataConfig,
    FoldsConfig,
    Project,
    add_member,
    create_project,
    drop_member,
    table_name,
)
from carvana_ens.registry import load_model
from carvana_ens.store.place import Where, place_of
from carvana_ens.types import Json, Say, Size, unsaid
from carvana_ens.verbs.plugin_calls import configured
from carvana_ens.verbs.regions import first_pass
from carvana_ens.verbs.training_data import check_training
from carvana_ens.verbs.workspace import Workspace, open_extra


@dataclass(frozen=True)
class Initialised:
    """project: as written. lines: what was found."""

    project: Project
    lines: list[str]


def init(root: Path, data: DataConfig, folds: FoldsConfig, stores: str | None = None, say: Say = unsaid) -> Initialised:
    """Checks that photos and masks are there and match, and writes ``root/ensemble.toml``.

    stores: where the maps are to lie, a folder or an address; None: in the project.

    Raises:
        UsageError: masks without photos, a pattern for groups that is none, or folds that cannot be made.
        DataError: a folder is missing or empty, or photos and masks do not match.
        ProjectError: there is a project already.
    """
    lines = []
    if data.masks is not None and data.images is None:
        raise UsageError("--masks needs --images: the photos that the masks belong to")
    if dataclasses.replace(folds, seed=0) != FoldsConfig() and data.masks is None:
        raise UsageError(
            "--folds, --holdout, --fold-rule and --by-view need --images and --masks: without them nothing is trained"
        )
    if data.extra and data.masks is None:
        raise UsageError("--extra needs --images and --masks: the photos that it is mixed with")
    if data.categories and data.masks is None:
        raise UsageError("--category needs --masks: the COCO file that has the categories")
    if data.dialect is not None and data.masks is None:
        raise UsageError("--dialect needs --masks: the RLE table that it is of")
    if stores is not None:
        place_of(stores)  # an address that means nothing, or an extra that is not installed
        lines.append(f"stores at {stores}")
    groups((), data.group)
    if data.images is not None:
        images = ImageFolder(data.images, say=say)
        lines.append(f"{len(images.ids)} training photos in {len(set(groups(images.ids, data.group).values()))} groups")
        if data.masks is not None:
            masks = open_masks(data.masks, data.categories, data.dialect)
            unmasked = sorted(set(images.ids) ^ set(masks.ids))
            if unmasked:
                raise DataError(
                    f"{data.images} and {data.masks} do not match: {len(unmasked)} ids are in one only, "
                    f"first {', '.join(unmasked[:3])}"
                )
            lines.append(f"{len(masks.ids)} masks ({masks.describe})")
            found = groups(images.ids, data.group)
            folds = _checked(folds, found, data.group)
            for number, config in enumerate(data.extra, 1):
                extra = open_extra(number, config, data, set(found.values()), say)
                lines.append(f"{len(extra.ids)} more training photos ({config.images}), never held out")
    if data.test is not None:
        test = ImageFolder(data.test, say=say)
        lines.append(f"{len(test.ids)} test photos in {len(set(groups(test.ids, data.group).values()))} groups")
    return Initialised(create_project(root, data, folds, stores), lines)


def add_model(
    project: Project,
    model: str | None,
    *,
    name: str | None = None,
    size: Size | None = None,
    tta: tuple[str, ...] = (),
    folds: FoldsConfig | None = None,
    checkpoint: Path | None = None,
    sha256: str | None = None,
    out_of_fold: bool = False,
    like: str | None = None,
    seed: int = 0,
    recipe: str | None = None,
    options: Mapping[str, str] | None = None,
    wanted: tuple[str, ...] = (),
    pseudo: str | None = None,
    pseudo_share: float | None = None,
    tile: Size | None = None,
    overlap: int | None = None,
) -> MemberConfig:
    """Adds a member to ensemble.toml after checking that its plugin loads and takes its options.

    recipe: one of the model's; its values are written out, ``options``, ``size`` and ``tta`` go before them. wanted:
    the views to train on. pseudo, pseudo_share: pseudo-labels to mix in; tile, overlap: parts to predict in; see
    ``MemberConfig``.

    Raises:
        UsageError: options that contradict each other or the model, an unknown recipe, or a name that is taken.
        PluginError: the model is not installed, or broken.
    """
    if like is not None:
        other = project.member(like)
        if other.model == IMPORTED:
            raise UsageError(f"member {like} has imported maps and no checkpoints: --like needs a member with a model")
        if other.like is not None:
            raise UsageError(f"member {like} is itself like {other.like}: use --like {other.like}")
        own = options or recipe is not None or folds is not None or checkpoint is not None or wanted or pseudo
        if own or (model is not None and model != other.model):
            raise UsageError(
                f"--like {like} takes model, options, folds, checkpoint and training data from {like}: leave them out"
            )
        if size is None:
            raise UsageError(f"--like {like} makes the same checkpoints a member at another size: give --size HxW")
        model = other.model
    if not model:
        raise UsageError("add-model needs the name of a model, or --like MEMBER; carvana-ens models lists them")
    fault = tta_fault(tta)
    if fault is not None:
        raise UsageError(f"--tta: {fault}")
    if overlap is not None and tile is None:
        raise UsageError("--overlap is what tiles share: give their size with --tile HxW")
    if tile is not None and overlap is not None and overlap >= min(tile):
        raise UsageError(f"--overlap {overlap} is no less than a side of --tile {tile}: tiles would not get on")
    kind, _ = load_model(model)
    chosen = Recipe("") if recipe is None else find_recipe(kind, recipe)
    given = _options(kind, {**chosen.options, **(options or {})}, project.root)
    if folds is not None:
        if not kind.trainable or checkpoint is not None:
            reason = f"model {model} is not trained" if checkpoint is None else "a --checkpoint is not trained again"
            raise UsageError(f"{reason}, so that --folds and --holdout mean nothing: leave them out")
        if (folds.folds, folds.holdout) == (None, None):
            raise UsageError("--fold-rule and --by-view say how folds are made: give --folds N with them, or --holdout")
        folds = _checked(folds, Workspace(project).groups, project.data.group)
    if (wanted or pseudo is not None) and (not kind.trainable or checkpoint is not None):
        raise UsageError(f"member {name or model} is not trained, so that --view and --pseudo mean nothing: leave out")
    if pseudo_share is not None and pseudo is None:
        raise UsageError("--pseudo-share is the share of pseudo-labels: name them with --pseudo NAME")
    relative = None
    if checkpoint is not None:
        if not checkpoint.is_file():
            raise UsageError(f"checkpoint {checkpoint} is not there: give a file")
        found = sha256_file(checkpoint)
        if sha256 not in (None, found):
            raise UsageError(f"checkpoint {checkpoint} has sha256 {found}, not {sha256}: is it the right file?")
        sha256 = found
        relative = _relative(checkpoint, project.root)
    elif sha256 is not None or out_of_fold:
        raise UsageError("--sha256 and --out-of-fold say something of --checkpoint FILE: give one, or leave them out")
    config = MemberConfig(
        name=name or model.rpartition(":")[2],
        model=model,
        size=size or chosen.size,
        tta=tta or chosen.tta,
        folds="default" if folds is None else table_name(project, folds),
        checkpoint=relative,
        sha256=sha256,
        like=like,
        out_of_fold=out_of_fold,
        seed=seed,
        options=given,
        views=wanted,
        pseudo=pseudo,
        pseudo_share=PSEUDO_SHARE if pseudo_share is None else pseudo_share,
        tile=tile,
        overlap=overlap,
    )
    if wanted or pseudo is not None:
        check_training(Workspace(project), config)
    configured(kind, config, project.root)  # a combination that the model refuses is refused now
    first_pass(project, config)
    add_member(project, config, folds)
    return config


def _options(kind: type[Model], values: Mapping[str, Json], root: Path) -> dict[str, Json]:
    """The values as ensemble.toml has them: checked, and files relative to the project."""
    if not values:
        return {}
    parsed = parse_options(kind.Options, values)
    given = {key: getattr(parsed, key) for key in values}
    for key in path_options(kind.Options):
        if given.get(key) and Path(given[key]).is_file():
            given[key] = _relative(Path(given[key]), root)
    return given


def remove_model(project: Project, name: str) -> list[Where]:
    """Takes a member out of ensemble.toml; returns what of it stays where it is.

    Raises:
        UsageError: unknown member, or one that another is like or looks where it found the object.
    """
    users = [member.name for member in project.members.values() if member.options.get("roi") == name]
    if users:
        raise UsageError(f"member {users[0]!r} looks where {name!r} found the object: remove {users[0]!r} first")
    drop_member(project, name)
    checkpoints, stores = project.root / "checkpoints" / name, project.member_stores(name)
    return [*([checkpoints] if checkpoints.exists() else []), *([stores] if _has_stores(stores) else [])]


def _has_stores(where: Where) -> bool:
    try:
        return bool(place_of(where).stores())
    except CarvanaEnsError:  # out of reach: better named than passed over
        return True


def _checked(folds: FoldsConfig, found: Mapping[str, str], pattern: str | None) -> FoldsConfig:
    """The settings of a fold table, one fold where a hold-out is asked for, after a table was made with them."""
    if folds.holdout is not None and folds.folds is None:
        folds = dataclasses.replace(folds, folds=1)
    if folds.folds is not None:
        areas = dict.fromkeys(found.values(), 1.0)
        make_folds("default", areas, folds.folds, folds.holdout, folds.seed, rule=folds.rule)
    if folds.by_view is not None:
        photos_of_view(folds.by_view, found, views(found, pattern))
    return folds


def _relative(path: Path, root: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), root.resolve())).as_posix()
    except ValueError:  # on another drive
        return str(path.resolve())
