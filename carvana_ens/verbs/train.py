"""train: every fold of the members that can be trained; finished folds are kept, stopped ones go on.

Under torchrun all processes come through here in step; the first alone decides, locks and writes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from carvana_ens.data.folds import FoldTable
from carvana_ens.engine.memory import freed_memory_kept
from carvana_ens.errors import PluginError, StaleError, TrainingError, UsageError
from carvana_ens.files import digest, sha256_file, write_json
from carvana_ens.learn.history import WatchedTask
from carvana_ens.learn.parallel import Team, team_here
from carvana_ens.model import FitResult, MemberConfig, options_json
from carvana_ens.project import IMPORTED, Project
from carvana_ens.registry import load_model
from carvana_ens.store.lock import WriterLock
from carvana_ens.types import Json, Say, Track, unsaid, untracked
from carvana_ens.verbs.history import draw_member
from carvana_ens.verbs.plugin_calls import calling, configured
from carvana_ens.verbs.regions import seen_by
from carvana_ens.verbs.runs import recorded
from carvana_ens.verbs.training_data import training_samples, training_stamp
from carvana_ens.verbs.workspace import Workspace

DONE = "done.json"
Report = Callable[[str, int, Mapping[str, float]], None]
"""Called after each epoch, or after each step, with member, fold and the numbers."""


def unreported(member: str, fold: int, numbers: Mapping[str, float]) -> None:
    pass


@dataclass(frozen=True)
class Trained:
    """One fold model. dice: mean Dice on its held-out photos, at the network's input size. new: trained just now."""

    member: str
    fold: int
    checkpoint: Path
    dice: float
    epochs: int
    new: bool


def train(
    project: Project,
    members: Sequence[str] = (),
    *,
    fold: int | None = None,
    device: str = "auto",
    fresh: bool = False,
    say: Say = unsaid,
    report: Report = unreported,
    watch: Report = unreported,
    track: Track = untracked,
) -> list[Trained]:
    """Trains the named members (default: all), all folds or one.

    A finished fold is not trained again; with ``fresh`` it is. Members that need no training are passed over, with a
    line that says so when they were named. What is known of a member's epochs is drawn into its folder of checkpoints.
    ``report`` is told of each epoch, ``watch`` of each step (torch networks).

    Raises:
        UsageError: unknown member, or a fold that its table does not have.
        StaleError: a fold was finished with other settings.
    """
    team = team_here()
    team.meet(device)
    job = _Job(Workspace(project, say, track), team, device, fresh, report, watch)
    results: list[Trained] = []
    for config in project.select(members):
        reason = untrained_reason(config)
        if reason is not None:
            say(f"{config.name}: nothing to train ({reason})")
            continue
        table = team.of_first(lambda name=config.folds: job.workspace.fold_table(name))  # type: ignore[misc]
        with freed_memory_kept():
            folds = [job.fold(config, table, number) for number in chosen_folds(config, table, fold)]
        if team.first and any(fold_model.new for fold_model in folds):
            _draw(project, config.name, say)
        results += folds
    return results


def _draw(project: Project, member: str, say: Say) -> None:
    try:
        draw_member(project, member)
    except TrainingError as error:
        say(f"{member}: its history is not drawn ({error})")


def untrained_reason(config: MemberConfig) -> str | None:
    """Why a member has nothing to train, or None when it has.

    Raises:
        PluginError: the member's model cannot be loaded.
    """
    if config.model == IMPORTED:
        return "its maps were imported"
    if config.checkpoint is not None:
        return f"it predicts with {config.checkpoint}"
    if config.like is not None:
        return f"it uses the checkpoints of {config.like}"
    if not load_model(config.model)[0].trainable:
        return f"model {config.model} needs no training"
    return None


def chosen_folds(config: MemberConfig, table: FoldTable, fold: int | None) -> range:
    """All folds of the table, or the one asked for.

    Raises:
        UsageError: the table has no such fold.
    """
    if fold is None:
        return range(table.folds)
    if not 0 <= fold < table.folds:
        raise UsageError(
            f"fold {fold} is not in fold table {table.name} of {config.name}: it has 0 to {table.folds - 1}"
        )
    return range(fold, fold + 1)


def task_digest(workspace: Workspace, config: MemberConfig, table: FoldTable, fold: int) -> str:
    """sha256 of all that decides a fold model: model, size, options, seed, fold table, photos and what is mixed in."""
    model, _ = load_model(config.model)
    options = options_json(configured(model, config).options)  # defaults included: a changed default is another task
    size = config.size or model.size
    return digest(
        {
            "model": config.model,
            "size": None if size is None else str(size),
            "options": options,
            "seed": config.seed,
            "folds": table.digest,
            "fold": fold,
            "data": workspace.training_digest,
            **training_stamp(workspace, config),
        }
    )


@dataclass(frozen=True)
class _Job:
    workspace: Workspace
    team: Team
    device: str
    fresh: bool
    report: Report
    watch: Report

    def fold(self, config: MemberConfig, table: FoldTable, fold: int) -> Trained:
        folder = self.workspace.project.checkpoint_folder(config, fold)
        with WriterLock(folder) if self.team.first else nullcontext():
            task = task_digest(self.workspace, config, table, fold)
            kept = self.team.of_first(lambda: None if self.fresh else _kept(config, fold, folder, task))
            if kept is not None:
                return kept
            if not self.team.first and getattr(load_model(config.model)[0], "parallel", False):
                self._fit(config, table, fold, folder, task)
            return self.team.of_first(lambda: self._trained(config, table, fold, folder, task))

    def _trained(self, config: MemberConfig, table: FoldTable, fold: int, folder: Path, task: str) -> Trained:
        _, entry = load_model(config.model)
        if self.fresh and folder.exists():
            (folder / DONE).unlink(missing_ok=True)  # first, so that a stop cannot leave a record of what is gone
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with recorded(self.workspace.project, "train", member=config.name, fold=fold, device=self.device) as run:
            result = self._fit(config, table, fold, folder, task)
            _check_result(config, fold, folder, result)
            run |= {"epochs": result.epochs, "dice": result.dice}
        write_json(
            folder / DONE,
            {
                "digest": task,
                "checkpoint": result.checkpoint.name,
                "sha256": sha256_file(result.checkpoint),
                "dice": result.dice,
                "epochs": result.epochs,
                "plugin": {"distribution": entry.distribution, "version": entry.version},
            },
        )
        return Trained(config.name, fold, result.checkpoint, result.dice, result.epochs, new=True)

    def _fit(self, config: MemberConfig, table: FoldTable, fold: int, folder: Path, task: str) -> FitResult:
        model, _ = load_model(config.model)
        fit = WatchedTask(
            train=training_samples(self.workspace, config, table, fold),
            valid=seen_by(
                self.workspace.project, config, self.workspace.labelled(table.held_out(fold, self.workspace.groups))
            ),
            directory=folder,
            digest=task,
            seed=config.seed * 1000 + fold,
            device=self.device,
            report=lambda numbers: self.report(config.name, fold, numbers),
            watch=lambda numbers: self.watch(config.name, fold, numbers),
        )
        with calling(model, config, f"train fold {fold}"):
            return configured(model, config, self.workspace.project.root).fit(fit)


def _kept(config: MemberConfig, fold: int, folder: Path, task: str) -> Trained | None:
    """The fold model that is finished already."""
    done = folder / DONE
    if not done.is_file():
        return None
    record = read_done(done)
    if record["digest"] != task:
        raise StaleError(
            f"{config.name}, fold {fold}, was trained with other settings, fold table or photos: "
            f"put them back, or train it anew with carvana-ens train {config.name} --fresh"
        )
    return Trained(config.name, fold, folder / record["checkpoint"], record["dice"], record["epochs"], new=False)


def _check_result(config: MemberConfig, fold: int, folder: Path, result: FitResult) -> None:
    fault = None
    if result.checkpoint.parent != folder or not result.checkpoint.is_file():
        fault = f"checkpoint {result.checkpoint}, which is no file in {folder}"
    elif not 0 <= result.dice <= 1:
        fault = f"Dice {result.dice}, which is not in [0, 1]"
    if fault is not None:
        raise PluginError(
            f"member {config.name}, fold {fold}: the model's fit answered {fault}; report it to the author of model "
            f"{config.model}",
            name=config.model,
        )


def read_done(path: Path) -> dict[str, Json]:
    """The record of a finished fold.

    Raises:
        StaleError: it cannot be read.
    """
    try:
        document: dict[str, Json] = json.loads(path.read_text(encoding="utf-8"))
        if not {"digest", "checkpoint", "sha256", "dice", "epochs"} <= document.keys():
            raise ValueError("a key is missing")
        return document
    except (OSError, ValueError, AttributeError) as error:
        raise StaleError(f"{path} cannot be read ({error}): remove it and train the fold again") from error
