"""demo: the whole job on drawn photos, from sample data to a scored submission with pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from carvana_ens.ensemble.tuning import read_tuning
from carvana_ens.errors import ProjectError
from carvana_ens.project import FILE, DataConfig, FoldsConfig, Project
from carvana_ens.types import Say, Size, Track, unsaid, untracked
from carvana_ens.verbs.blend import blend
from carvana_ens.verbs.evaluate import evaluate
from carvana_ens.verbs.members import add_model, init
from carvana_ens.verbs.report import FILE as REPORT
from carvana_ens.verbs.run import run
from carvana_ens.verbs.sample_data import sample_data
from carvana_ens.verbs.show import show
from carvana_ens.verbs.train import Report, unreported

CARS, VIEWS, SIZE = 9, 8, Size(320, 480)
FOLDS = 2
MEMBERS: tuple[tuple[str, Size | None, dict[str, str]], ...] = (
    ("timm-unet", Size(160, 224), {"epochs": "18"}),
    ("unet-gray", Size(80, 112), {"epochs": "14"}),
    ("difference", None, {}),
)
"""Model, input size and options of each member: small enough for two processor cores and a few minutes."""


@dataclass(frozen=True)
class Demonstrated:
    """project: the folder. dice: mean Dice on the test photos of the blend and of every member alone."""

    project: Path
    submission: Path
    report: Path
    pictures: list[Path]
    dice: dict[str, float]
    out_of_fold: dict[str, float]


def demo(
    folder: Path,
    *,
    device: str = "auto",
    say: Say = unsaid,
    report: Report = unreported,
    track: Track = untracked,
) -> Demonstrated:
    """Makes ``folder/sample`` and ``folder/cars``, and runs every step there; a stopped demo goes on.

    Raises:
        PluginError: one of the models is not installed.
    """
    sample, root = folder / "sample", folder / "cars"
    if not sample.exists():
        say(f"sample-data: {CARS} cars, {VIEWS} views each, {SIZE}")
        sample_data(sample, cars=CARS, views=VIEWS, size=SIZE, track=track)
    if not (root / FILE).is_file():
        say("init")
        data = DataConfig(sample / "train_hq", sample / "train_masks", sample / "test_hq")
        init(root, data, FoldsConfig(folds=FOLDS), say=say)
    project = Project(root)
    for model, size, options in MEMBERS:
        if model not in project.members:
            say(f"add-model {model}")
            add_model(project, model, size=size, tta=("hflip",) if size else (), options=options)
            project = Project(root)
    if list(project.members) != [model for model, _, _ in MEMBERS]:
        raise ProjectError(f"{root} is not the demo's own project any more: choose another folder")
    submission = root / "submission.csv.gz"
    run(project, submission, device=device, say=say, report=report, track=track)
    say("evaluate, show")
    truth = sample / "test_masks"
    dice = {"blend": evaluate(submission, truth, track=track).dice}
    for name in project.members:
        alone = root / "alone" / f"{name}.csv.gz"
        blend(project, alone, weights=f"{name}=1", track=track)
        dice[name] = evaluate(alone, truth, track=track).dice
    pictures = _pictures(project, sample, track)
    return Demonstrated(root, submission, root / REPORT, pictures, dice, dict(read_tuning(project.tuning_file).scores))


def _pictures(project: Project, sample: Path, track: Track) -> list[Path]:
    training = sorted(path.stem for path in (sample / "train_hq").iterdir())
    look: list[tuple[str, Callable[[Path], object]]] = [
        ("look.png", lambda path: show(project, path, training[:: max(1, len(training) // 4)][:4], weights="tuned")),
        ("mosaic.png", lambda path: show(project, path, as_mosaic=True, weights="tuned", track=track)),
    ]
    pictures = []
    for name, draw in look:
        path = project.root / name
        draw(path)
        pictures.append(path)
    return pictures
