"""replay: the submission of a lock made again, perhaps on another machine, and what differs when it is another."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from carvana_ens import __version__
from carvana_ens.data.folds import read_folds, write_folds
from carvana_ens.data.images import ImageFolder
from carvana_ens.ensemble.blending import Blend
from carvana_ens.ensemble.lock_file import (
    Difference,
    Lock,
    LockedMember,
    Sides,
    maps_digest,
    member_differences,
    read_lock,
)
from carvana_ens.ensemble.steps import PostProcessed, parse_steps
from carvana_ens.errors import DataError, PluginError, ProjectError, StaleError
from carvana_ens.files import sha256_file
from carvana_ens.model import MemberConfig
from carvana_ens.output.submission import check_suffix, write_submission
from carvana_ens.project import FILE, IMPORTED, Project
from carvana_ens.registry import find_model
from carvana_ens.store.place import place_of
from carvana_ens.store.schema import Provenance, ids_digest
from carvana_ens.store.store import ProbabilityStore, open_store
from carvana_ens.types import Say, Track, unsaid, untracked
from carvana_ens.verbs.blend import post_processed
from carvana_ens.verbs.predict import check_complete, predict
from carvana_ens.verbs.regions import first_pass, rounds
from carvana_ens.verbs.runs import recorded
from carvana_ens.verbs.train import DONE, read_done
from carvana_ens.verbs.versions import step_sources
from carvana_ens.verbs.workspace import Workspace

_PIECE = 1 << 20
_SIDES = Sides("in the lock", "here")


@dataclass(frozen=True)
class Found:
    """What of a lock is otherwise here. missing: members with maps to be predicted. refused: why no replay can hold."""

    differences: list[Difference]
    missing: list[str]
    refused: list[str]


@dataclass(frozen=True)
class Replayed:
    """path: what was written; None for a dry run. same: whether its text is the lock's; None for a dry run.

    differences: of the project, found before. predicted: members whose maps were missing. reasons: for another text.
    """

    path: Path | None
    images: int
    same: bool | None
    differences: list[str]
    refused: list[str]
    predicted: list[str]
    reasons: list[str]


def replay(
    project: Project,
    path: Path,
    output: Path | None,
    *,
    predict_missing: bool = True,
    anyway: bool = False,
    images: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    say: Say = unsaid,
    track: Track = untracked,
) -> Replayed:
    """Makes the submission of a lock again: predicts maps that are missing, and blends as the lock says.

    Weights, threshold, space, cut and steps are the lock's, whatever ``tuning.json`` has now. output: None for a dry
    run, which says what differs and does nothing. anyway: also where the maps cannot be the lock's. images: the photos
    of a split that the project does not know.

    Raises:
        ProjectError: no lock, or a damaged one.
        StaleError: what makes the maps differs, in words.
        CarvanaEnsError: all that ``predict`` and ``blend`` refuse.
    """
    if output is not None:
        check_suffix(output)
    lock = read_lock(path)
    found = found_here(project, lock, images)
    for difference in found.differences:
        say(difference.text)
    steps = parse_steps(lock.steps)
    if output is None:
        texts = [one.text for one in found.differences]
        return Replayed(None, lock.images, None, texts, found.refused, found.missing, [])
    if found.refused and not anyway:
        more = f" ({len(found.refused)} such differences are named above)" if len(found.refused) > 1 else ""
        raise StaleError(
            f"this project cannot make the maps of {path}: {found.refused[0]}{more}; put back what the lock has, or "
            f"make what there is now with --anyway"
        )
    with recorded(project, "replay", lock=str(path), split=lock.split) as run:
        if predict_missing and found.missing:
            _predict(project, lock, found.missing, images, device, say, track)
        chosen = {name: open_store(project.store_path(name, lock.split)) for name in lock.weights}
        plain = Blend(chosen, lock.weights, lock.threshold, space=lock.space, cut=lock.cut)
        combined = post_processed(project, plain, steps, lock.split) if steps else plain
        written = write_submission(output, track(combined.rles(threads), len(combined.ids), "replay"))
        same = text_digest(output) == lock.submission_sha256
        run |= {"images": written, "same": same}
    reasons = [] if same else _reasons(project, lock, combined, found)
    texts = [one.text for one in found.differences]
    return Replayed(output, written, same, texts, found.refused, found.missing if predict_missing else [], reasons)


def _predict(
    project: Project, lock: Lock, missing: list[str], images: Path | None, device: str, say: Say, track: Track
) -> None:
    for name, table in lock.fold_tables.items():
        if not project.fold_file(name).is_file():
            write_folds(project.fold_file(name), table)
    configs = [config for config in project.select(missing) if config.model != IMPORTED]
    looking = any(first_pass(project, config) is not None for config in configs)
    # only where the order matters: it takes every member of the project, also those whose plugin is not here
    names = [name for names in rounds(project) for name in names if name in missing] if looking else missing
    for name in names:
        dtype, split = lock.members[name].dtype, lock.split
        check_complete(
            predict(project, [name], split=split, images=images, device=device, dtype=dtype, say=say, track=track)
        )


def _reasons(project: Project, lock: Lock, combined: Blend | PostProcessed, found: Found) -> list[str]:
    """Why the text is another, as far as that can be told."""
    reasons = []
    if ids_digest(combined.ids) != lock.ids_sha256:
        reasons.append(f"the images are others: {lock.images} in the lock, {len(combined.ids)} here")
    for name in combined.members if isinstance(combined, PostProcessed) else combined.stores:
        store = open_store(project.store_path(name, lock.split))
        if maps_digest(store) != lock.members[name].maps:
            named = (f"member {name},", f"member {name}:")
            known = any(one.maps and one.text.startswith(named) for one in found.differences)
            why = "" if known else ", though nothing else of it does: other photos of the same names, or another device"
            reasons.append(f"the maps of {name} differ from the lock's{why}")
    return reasons or ["all maps are the lock's: its steps or carvana-ens itself made other masks of them"]


def found_here(project: Project, lock: Lock, images: Path | None = None, *, made: bool = False) -> Found:
    """What of a lock is otherwise in a project. images: see ``replay``. made: the lock was just made here, so that
    its maps are those of the project; what would make them is looked at nevertheless.

    Raises:
        StoreError: a store that cannot be read.
        ProjectError: a fold table that cannot be read.
    """
    differences: list[Difference] = []
    refused, missing = [], []
    for name, member in lock.members.items():
        store = _store(project, name, lock.split)
        there = store is not None and (made or maps_digest(store) == member.maps)
        if store is not None and not there:
            own = [
                *member_differences(name, member.provenance, _stated(store), Sides("in the lock", "in the maps here")),
                *_SIDES.differ(f"member {name}, codes", member.dtype, store.dtype, maps=True),
            ]
            again = f"carvana-ens predict {name} --fresh makes them anew"
            own.append(Difference(f"member {name}: its {lock.split} maps here are others ({again})", maps=True))
        else:
            own = list(_made_otherwise(project, name, member))
        if store is None:
            missing.append(name)
        differences += own
        refused += [] if there else [one.text for one in own if one.maps]
    photos = [] if lock.photos_sha256 is None else _photos(project, lock, images)
    differences += photos
    refused += [one.text for one in photos] if missing else []
    names = [step.strip().partition(":")[0] for step in lock.steps.split(",") if step]
    packages = ", ".join(lock.step_packages), ", ".join(step_sources(names))
    differences += _SIDES.differ("packages of post-processing steps", *packages)
    differences += _SIDES.differ("carvana-ens", lock.carvana_ens, __version__)
    return Found(differences, missing, refused)


def _store(project: Project, name: str, split: str) -> ProbabilityStore | None:
    """The maps of a member; None while they are not all there."""
    path = project.store_path(name, split)
    if not place_of(path).exists():
        return None
    store = open_store(path)
    return None if store.missing() else store


def _stated(store: ProbabilityStore) -> Provenance:
    return dataclasses.replace(store.provenance, source=None)


def _made_otherwise(project: Project, name: str, member: LockedMember) -> Iterator[Difference]:
    """What is otherwise in what would make a member's maps now."""
    was = member.provenance
    if name not in project.members:
        yield Difference(f"member {name}: in the lock, not in {FILE} here", maps=True)
        return
    config = project.member(name)
    if config.model == IMPORTED or was.plugin is None:
        yield from _SIDES.differ(
            f"member {name}", _kind(was.plugin is None), _kind(config.model == IMPORTED), maps=True
        )
        return
    plugin = was.plugin
    try:
        entry = find_model(config.model)
        plugin = {"model": config.model, "distribution": entry.distribution, "version": entry.version}
    except PluginError as error:
        yield Difference(f"member {name}, plugin: {error}", maps=True)
    table = was.fold_table
    file = project.fold_file(config.folds)
    if table is not None and file.is_file():
        table = {"name": config.folds, "digest": read_folds(file).digest}
    now = dataclasses.replace(
        was, member=config.to_json(), plugin=plugin, checkpoints=_checkpoints(project, config, was), fold_table=table
    )
    yield from member_differences(name, was, now, _SIDES)


def _kind(imported: bool) -> str:
    return "imported" if imported else "predicted"


def _checkpoints(project: Project, config: MemberConfig, was: Provenance) -> dict[str, str]:
    """sha256 of the checkpoints that are here, by fold."""
    files = {}
    if was.fold_table is not None:
        for fold in was.checkpoints:
            folder = project.checkpoint_folder(config, int(fold))
            if (folder / DONE).is_file():
                files[fold] = folder / str(read_done(folder / DONE)["checkpoint"])
    elif config.checkpoint is not None:
        files[""] = project.root / config.checkpoint
    return {fold: sha256_file(file) for fold, file in files.items() if file.is_file()}


def _photos(project: Project, lock: Lock, images: Path | None) -> list[Difference]:
    here = photos_digest(project, lock.split, images)
    return list(_SIDES.differ(f"ids of the {lock.split} photos", lock.photos_sha256, here, maps=True))


def photos_digest(project: Project, split: str, images: Path | None = None) -> str | None:
    """sha256 (hex) of the ids of a split's photos; None where there are none to be found."""
    folder = {"oof": project.data.images, "test": project.data.test}.get(split, images)
    if folder is None or not folder.is_dir():
        return None
    try:
        return ids_digest(ImageFolder(folder).ids if split != "oof" else Workspace(project).ids)
    except (DataError, ProjectError):  # maps made elsewhere need no photos and no masks here
        return None


def text_digest(path: Path) -> str:
    """sha256 (hex) of a submission's text, uncompressed. path: ``.csv`` or ``.csv.gz``.

    Raises:
        DataError: it cannot be read.
    """
    found = hashlib.sha256()
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            while piece := file.read(_PIECE):
                found.update(piece)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}; is the file whole?") from error
    return found.hexdigest()
