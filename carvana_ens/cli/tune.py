"""carvana-ens tune."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from carvana_ens.cli.common import (
    chosen_workers,
    json_option,
    open_project,
    say,
    show_json,
    table,
    threads_option,
    track,
    worker_options,
)
from carvana_ens.cli.completed import MEMBER

if TYPE_CHECKING:
    from carvana_ens.ensemble.bootstrap import Interval
    from carvana_ens.ensemble.tuning import Tuning


@click.command(short_help="Find weights and threshold on out-of-fold maps.")
@click.argument("members", nargs=-1, type=MEMBER)
@click.option(
    "--objective",
    type=click.Choice(["mean-dice", "pooled-dice", "mean-iou"]),
    default="mean-dice",
    show_default=True,
    help="The score to make as large as can be.",
)
@click.option("--from", "low", default="0.25", show_default=True, metavar="T", help="Least threshold to try.")
@click.option("--to", "high", default="0.75", show_default=True, metavar="T", help="Greatest; the same: only that one.")
@click.option("--rounds", type=click.IntRange(1), default=20, show_default=True, help="Choices of the greedy search.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Search for that long at most, in all.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the search's random starts.")
@click.option(
    "--spaces",
    default="probability",
    show_default=True,
    metavar="A,B",
    help="Blending spaces to try: probability, logit, rank, temperature, vote; the first stays unless another is "
    "surely better. One alone is taken.",
)
@click.option(
    "--cut",
    type=click.Choice(["threshold", "expected-dice", "best"]),
    default="threshold",
    show_default=True,
    help="Cut each photo where its expected Dice is greatest; best: if that is surely better.",
)
@click.option("--postprocess", default="", metavar="STEPS", help="Steps to try, such as largest,fill-holes:area=400.")
@click.option("--honest/--no-honest", default=True, help="Score on photos not tuned on: a search more for each fold.")
@click.option("--max-models", type=click.IntRange(1), metavar="N", help="Keep the N members at most that score best.")
@click.option(
    "--max-seconds",
    type=click.FloatRange(0, min_open=True),
    metavar="S",
    help="Keep members that take at most S seconds a photo together, as predict measured them.",
)
@threads_option
@worker_options
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    members: tuple[str, ...],
    objective: str,
    low: str,
    high: str,
    rounds: int,
    seconds: float | None,
    seed: int,
    spaces: str,
    cut: str,
    postprocess: str,
    honest: bool,
    max_models: int | None,
    max_seconds: float | None,
    threads: int | None,
    workers: int | None,
    scheduler: str | None,
    worker_limit: float | None,
    as_json: bool,
) -> None:
    """Find weights and threshold of MEMBERS (default: all) on their out-of-fold maps; writes tuning.json.

    Greedy selection with replacement, then each weight in turn; every threshold between --from and --to is tried,
    exactly. Kept is the best of that, equal weights and the best single member. What it scores on the photos that it
    was tuned on is too good; the honest score is of photos that were held out while weights were searched. Workers read
    the maps; the search is done here, on --threads.

    \b
    Example:
      carvana-ens tune
      carvana-ens tune --from 0.5 --to 0.5
      carvana-ens tune --max-models 3
      carvana-ens tune --spaces probability,logit,temperature --cut best --postprocess largest
    """
    from carvana_ens.verbs.tune import tune

    done = tune(
        open_project(ctx),
        members,
        objective=objective,
        low=low,
        high=high,
        rounds=rounds,
        seconds=seconds,
        seed=seed,
        honest=honest,
        spaces=[kind.strip() for kind in spaces.split(",")],
        cut=cut,
        postprocess=postprocess,
        max_models=max_models,
        max_seconds=max_seconds,
        threads=threads,
        workers=chosen_workers(workers, scheduler, worker_limit),
        say=say,
        track=track,
    )
    if as_json:
        show_json(dataclasses.asdict(done.tuning))
        return
    click.echo(summary(done.tuning))
    click.echo(f"wrote {done.path}")


def summary(tuning: Tuning) -> str:
    """What a person wants to know of it."""
    heads = ["MEMBER", "WEIGHT", f"{tuning.metric.split()[-1].upper()} ALONE"]
    rows = [[name, str(tuning.weights[name]), f"{tuning.singles[name]:.6f}"] for name in tuning.weights]
    honest = tuning.honest
    if honest is not None and honest.buys:
        heads.append("BUYS (HONEST DICE)")
        for row in rows:
            row.append(_gain(honest.buys[row[0]]))
    scores = ", ".join(f"{name} {score:.6f}" for name, score in tuning.scores.items())
    lines = [
        table([heads, *rows]),
        f"threshold {tuning.threshold}",
        f"{tuning.metric} of the {tuning.images} out-of-fold photos that were tuned on: {scores}",
    ]
    lines += [f"tried {one.name}: {_gain(one.gain)}; {one.reason or 'kept'}" for one in tuning.tried]
    if tuning.space is not None:
        lines.append(f"weights and threshold are of the blending space {tuning.space['kind']}")
    if tuning.cut != "threshold":
        lines.append("each photo is cut where its expected Dice is greatest; the threshold is not used")
    if tuning.steps:
        lines.append(f"post-processing: {tuning.steps}")
    if tuning.final is not None:
        lines.append(f"Dice with that on the photos that were tuned on: {tuning.final:.6f}")
    if honest is None:
        lines.append(f"no honest score, {tuning.reason}: expect a little less on new photos")
        return "\n".join(lines)
    lines += [
        f"honest Dice, of photos held out while weights were searched: {honest.score}",
        f"optimism, tuned minus honest: {honest.optimism:+.6f}",
        f"honest gain over equal weights: {_gain(honest.over_equal)}; over the best single member: "
        f"{_gain(honest.over_single)}",
    ]
    if honest.could_go:
        last = list(honest.could_go.values())[-1]
        lines.append(f"could go together: {', '.join(honest.could_go)}; Dice lost: {_gain(last)}")
    return "\n".join(lines)


def _gain(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.mean:+.6f}"
    return f"{interval.mean:+.6f} ({interval.low:+.6f} to {interval.high:+.6f})"
