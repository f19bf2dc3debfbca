"""tune: blend weights and threshold on out-of-fold maps, into tuning.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from carvana_ens.core.weights import parse_threshold, threshold_text
from carvana_ens.engine.cluster import Workers
from carvana_ens.ensemble.objectives import objective_named
from carvana_ens.ensemble.pareto import pick
from carvana_ens.ensemble.steps import parse_steps
from carvana_ens.ensemble.tuner import Asked, Outcome, tune_maps
from carvana_ens.ensemble.tuning import Tuning
from carvana_ens.errors import UsageError
from carvana_ens.project import Project
from carvana_ens.types import Say, Track, unsaid, untracked
from carvana_ens.verbs.costs import member_costs
from carvana_ens.verbs.out_of_fold import out_of_fold, read_by
from carvana_ens.verbs.runs import recorded
from carvana_ens.verbs.workspace import Workspace


@dataclass(frozen=True)
class Tuned:
    """tuning: what was written to path. left_out: training photos that some member has no out-of-fold map of."""

    path: Path
    tuning: Tuning
    left_out: int


def tune(
    project: Project,
    members: Sequence[str] = (),
    *,
    objective: str = "mean-dice",
    low: str | float | Fraction = "0.25",
    high: str | float | Fraction = "0.75",
    rounds: int = 20,
    seconds: float | None = None,
    seed: int = 0,
    honest: bool = True,
    spaces: Sequence[str] = ("probability",),
    cut: str = "threshold",
    postprocess: str = "",
    max_models: int | None = None,
    max_seconds: float | None = None,
    threads: int | None = None,
    workers: Workers | None = None,
    say: Say = unsaid,
    track: Track = untracked,
) -> Tuned:
    """Finds the weights and the threshold that score most on out-of-fold maps, and what to believe of them.

    Masks are decoded once and kept in ``cache/masks`` of the project, and finished searches in ``cache/searches-*``,
    so that a stopped run goes on; both may be removed at any time.
    objective: mean-dice, pooled-dice or mean-iou. low, high: thresholds to search between, every exact one; both the
    same: only that. rounds, seconds, seed: see ``ensemble.search.search``; seconds are shared among all searches.
    The best of joint and separate search, equal weights and the best single member is kept, so none of them scores
    more on these maps. honest: score it on images that it was not tuned on, too: one more search a fold.
    spaces, cut: see ``ensemble.tuner.Asked``. postprocess: steps to try in order, see ``ensemble.steps.parse_steps``.
    max_models, max_seconds: members that may stay, and seconds a photo that they may take together; those that score
    best honestly are then tuned alone. workers: other processes that read maps and masks in place of this one, which
    searches on what they send it, on its own threads; nothing of the outcome depends on them.

    Raises:
        UsageError: unknown member, objective, space or cut, thresholds that are no range, rounds under 1, or limits
            that no ensemble keeps or that take honest scores.
        PluginError: a step that is unknown or fails.
        StoreError: out-of-fold maps are missing, incomplete, damaged, or may have seen their images.
        CarvanaEnsError: no workers, or the scheduler was lost.
    """
    if rounds < 1:
        raise UsageError(f"--rounds takes a whole number from 1, got {rounds}")
    limited = max_models is not None or max_seconds is not None
    if limited and not honest:
        raise UsageError("which members are to stay is decided by honest scores: leave --no-honest out")
    wanted = objective_named(objective)
    asked = Asked(
        parse_threshold(low),
        parse_threshold(high),
        wanted,
        rounds,
        seconds,
        seed,
        tuple(spaces),
        cut,
        parse_steps(postprocess),
        honest,
    )
    names = [config.name for config in project.select(members)]
    costs = member_costs(project, names, need_seconds=max_seconds is not None)
    workspace = Workspace(project, say, track)
    maps = out_of_fold(workspace, names, threads)
    left_out = len(workspace.ids) - len(maps.ids)
    if left_out:
        say(f"{left_out} of {len(workspace.ids)} photos are not out-of-fold for every member and are left out")
    facts = {"objective": objective, "thresholds": [str(asked.low), str(asked.high)], "seed": seed}
    kept = project.cache
    steps = [step.name for step in asked.steps]
    with recorded(project, "tune", members=names, **facts) as run, read_by(workers, project, maps, steps) as read:
        outcome = tune_maps(read, asked, costs, kept)
        if limited:
            if outcome.judged is None:
                raise UsageError(f"which members are to stay cannot be decided: {outcome.reason}")
            picked = pick(outcome.judged.subsets, max_models=max_models, max_seconds=max_seconds)
            say(f"within these limits {', '.join(picked.members)} score best: {picked.score:.6f} honestly")
            maps = maps.only(picked.members)
            outcome = tune_maps(read.only(picked.members), asked, {name: costs[name] for name in picked.members}, kept)
        run |= {"rounds": len(outcome.found.path), "kept": outcome.found.how, "in_time": outcome.found.in_time}
    _remark(outcome, say)
    tuning = Tuning.of(outcome, maps, wanted.name)
    tuning.write(project.tuning_file)
    return Tuned(project.tuning_file, tuning, left_out)


def _remark(outcome: Outcome, say: Say) -> None:
    """Says where more could be had by searching further."""
    found, thresholds = outcome.found, outcome.thresholds
    if not found.in_time:
        say("the time was up before the search was: more --seconds may find better weights")
    if len(thresholds) > 1 and found.best.threshold in (thresholds[0], thresholds[-1]):
        say(
            f"the best threshold, {threshold_text(found.best.threshold)}, is at the end of those that were tried: "
            f"search further with --from and --to"
        )
