"""carvana-ens tune."""

from __future__ import annotations

import dataclasses

import click

from carvana_ens.cli.common import json_option, open_project, say, show_json, table, threads_option, track


@click.command(short_help="Find weights and threshold on out-of-fold maps.")
@click.argument("members", nargs=-1)
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
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Begin nothing new after that many.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the search's random starts.")
@threads_option
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
    threads: int | None,
    as_json: bool,
) -> None:
    """Find weights and threshold of MEMBERS (default: all) on their out-of-fold maps; writes tuning.json.

    Greedy selection with replacement, then each weight in turn; every threshold between --from and --to is tried,
    exactly. Kept is the best of that, equal weights and the best single member.

    \b
    Example:
      carvana-ens tune
      carvana-ens tune --from 0.5 --to 0.5
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
        threads=threads,
        say=say,
        track=track,
    )
    if as_json:
        show_json(dataclasses.asdict(done.tuning))
        return
    tuning = done.tuning
    rows = [(name, tuning.weights[name], f"{tuning.singles[name]:.6f}") for name in tuning.weights]
    click.echo(table([("MEMBER", "WEIGHT", f"{tuning.metric.split()[-1].upper()} ALONE"), *rows]))
    scores = ", ".join(f"{name} {score:.6f}" for name, score in tuning.scores.items())
    click.echo(f"threshold {tuning.threshold}; {tuning.metric} of {tuning.images} out-of-fold photos: {scores}")
    click.echo("these are the scores on the maps that were tuned on; expect a little less on new photos")
    click.echo(f"wrote {done.path}")
