"""run: train, predict, tune, blend and report in one go."""

from __future__ import annotations

from pathlib import Path

from carvana_ens.engine.cluster import Workers
from carvana_ens.errors import ProjectError, UsageError
from carvana_ens.learn.parallel import team_here
from carvana_ens.output.submission import check_suffix
from carvana_ens.project import Project
from carvana_ens.types import Say, Track, unsaid, untracked
from carvana_ens.verbs.blend import Blended, blend
from carvana_ens.verbs.predict import check_complete, predict
from carvana_ens.verbs.regions import rounds
from carvana_ens.verbs.report import report as report_page
from carvana_ens.verbs.train import Report, train, unreported
from carvana_ens.verbs.tune import tune


def run(
    project: Project,
    output: Path,
    *,
    device: str = "auto",
    break_lock: bool = False,
    threads: int | None = None,
    workers: Workers | None = None,
    say: Say = unsaid,
    report: Report = unreported,
    watch: Report = unreported,
    track: Track = untracked,
) -> Blended:
    """Every step of the project up to ``output`` and its report; each keeps what an earlier run finished.

    ``report`` and ``watch`` as in ``train``, ``break_lock`` as in ``predict``. workers: do all but training
    and the report.

    Raises:
        UsageError: several processes that torchrun started: only training is for them.
        ProjectError: the project has no masks to tune with, or no test photos.
    """
    check_suffix(output)
    if team_here().size > 1:
        raise UsageError("run is for one process: start carvana-ens train with torchrun, then run without it")
    data = project.data
    if data.images is None or data.masks is None or data.test is None:
        raise ProjectError(
            f"{project.file} needs data.images, data.masks and data.test for run: use blend for maps alone"
        )
    for members in rounds(project) or [[]]:
        say("train")
        train(project, members, device=device, say=say, report=report, watch=watch, track=track)
        say("predict")
        predicted = predict(
            project, members, device=device, break_lock=break_lock, workers=workers, say=say, track=track
        )
        check_complete(predicted)
    say("tune")
    tune(project, workers=workers, say=say, track=track)
    say("blend")
    done = blend(project, output, weights="tuned", threads=None if workers else threads, workers=workers, track=track)
    say("report")
    report_page(project, threads=threads, say=say, track=track)
    return done
