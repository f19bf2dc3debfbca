"""Which checkpoints make which maps of a member, and what is said of it in their store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from carvana_ens.data.folds import FoldTable
from carvana_ens.errors import ProjectError, StaleError, UsageError
from carvana_ens.files import sha256_file
from carvana_ens.model import MemberConfig, Model
from carvana_ens.project import FILE, Project
from carvana_ens.registry import Entry, load_model
from carvana_ens.store.schema import PENDING, Provenance, Seen
from carvana_ens.verbs.train import DONE, chosen_folds, read_done, task_digest, untrained_reason
from carvana_ens.verbs.workspace import Workspace


@dataclass(frozen=True)
class Part:
    """Photos that the same checkpoints predict, with the folds these belong to (empty: no fold model)."""

    ids: tuple[str, ...]
    checkpoints: Mapping[str, Path | None]


def _has_fold_models(config: MemberConfig) -> bool:
    return config.checkpoint is None and load_model(config.model)[0].trainable


def ever_out_of_fold(workspace: Workspace, config: MemberConfig) -> tuple[str, ...]:
    """The training photos that some fold holds out; all where the member has no fold models."""
    if not _has_fold_models(config):
        return workspace.ids
    table = workspace.fold_table(config.folds)
    held_out = {i for fold in range(table.folds) for i in table.held_out(fold, workspace.groups)}
    return tuple(image_id for image_id in workspace.ids if image_id in held_out)


def out_of_fold_parts(workspace: Workspace, config: MemberConfig, fold: int | None) -> tuple[list[Part], Seen]:
    """Training photos by the fold model that has not seen them. fold: only that one's.

    Raises:
        UsageError: an unknown fold, or one of a member without folds.
        ProjectError: a fold is not trained, or a checkpoint is gone or another (StaleError).
    """
    if not _has_fold_models(config):
        if fold is not None:
            raise UsageError(f"--fold means nothing to {config.name}: {untrained_reason(config)}")
        return [Part(workspace.ids, _foreign(workspace.project, config))], _seen_of_unfolded(config)
    table = workspace.fold_table(config.folds)
    parts = []
    for number in chosen_folds(config, table, fold):
        ids = tuple(table.held_out(number, workspace.groups))
        parts.append(Part(ids, {str(number): fold_checkpoint(workspace, config, table, number)}))
    return parts, "fold table"


def every_fold_parts(workspace: Workspace, config: MemberConfig, ids: tuple[str, ...]) -> tuple[list[Part], Seen]:
    """Photos by all fold models.

    Raises:
        ProjectError: a fold is not trained, or a checkpoint is gone or another (StaleError).
    """
    if not _has_fold_models(config):
        return [Part(ids, _foreign(workspace.project, config))], _seen_of_unfolded(config)
    table = workspace.fold_table(config.folds)
    checkpoints = {str(number): fold_checkpoint(workspace, config, table, number) for number in range(table.folds)}
    return [Part(ids, checkpoints)], "fold table"


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


def provenance_of(
    workspace: Workspace,
    config: MemberConfig,
    split: str,
    parts: Sequence[Part],
    seen: Seen,
    model: type[Model],
    entry: Entry,
) -> Provenance:
    """What the store of a split says of where its maps come from."""
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
            files = {fold: path for fold, path in part.checkpoints.items() if path is not None}
            # a sha256 that the member has was compared when its file was looked up
            checkpoints |= {fold: config.sha256 or sha256_file(path) for fold, path in files.items()}
    return Provenance(
        member=config.to_json(),
        split=split,
        seen=seen,
        plugin={"model": config.model, "distribution": entry.distribution, "version": entry.version},
        checkpoints=checkpoints,
        fold_table=fold_table,
        averaging={"tta": model.output, "folds": "probabilities"},
    )
