"""cutout: the whole ensemble on new photos, and what it finds cut out of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from carvana_ens.core.weights import parse_threshold
from carvana_ens.data.ids import EXTENSIONS, groups, id_of, listed
from carvana_ens.engine import default_threads
from carvana_ens.engine.cluster import Workers
from carvana_ens.ensemble.blending import exact_weights
from carvana_ens.ensemble.steps import parse_steps, steps_text, unblended
from carvana_ens.ensemble.tuning import read_tuning
from carvana_ens.errors import DataError, StaleError, UsageError
from carvana_ens.output.cutouts import Finish, contact_sheet
from carvana_ens.output.drawing import check_suffix
from carvana_ens.output.rims import check_installed
from carvana_ens.postprocess import Step
from carvana_ens.project import IMPORTED, Project
from carvana_ens.types import Say, Track, unsaid, untracked
from carvana_ens.verbs.blend import TUNED, tuned_steps
from carvana_ens.verbs.cutout_batch import Asked, Batch, Elsewhere
from carvana_ens.verbs.regions import first_pass, rounds
from carvana_ens.verbs.runs import recorded
from carvana_ens.verbs.status import status

SHEET = 48
"""Cutouts on a sheet, at most."""


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
        threads: photos that are cut out at a time, fewer where they are large; None: the processors.
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
            elsewhere = Elsewhere(project.root, Path(folder))
            asked = Asked(weights, threshold, steps, finish, members, device, threads or default_threads(), workers)
            batch = Batch(elsewhere, asked, found, targets, failed, say, track)
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
