"""carvana-ens tune."""

from __future__ import annotations

import dataclasses

import click

from carvana_ens.cli.common import json_option, open_project, say, show_json, table, track


@click.command(short_help="Find weights and threshold on out-of-fold maps.")
@click.argument("members", nargs=-1)
@click.option("--rounds", type=click.IntRange(1), default=20, show_default=True, help="Choices of the greedy search.")
@json_option
@click.pass_context
def command(ctx: click.Context, members: tuple[str, ...], rounds: int, as_json: bool) -> None:
    """Find weights and threshold of MEMBERS (default: all) on their out-of-fold maps; writes tuning.json.

    Greedy selection with replacement; every threshold is tried, exactly.

    \b
    Example:
      carvana-ens tune
    """
    from carvana_ens.verbs.tune import tune

    done = tune(open_project(ctx), members, rounds=rounds, say=say, track=track)
    if as_json:
        show_json(dataclasses.asdict(done.tuning))
        return
    tuning = done.tuning
    rows = [(name, tuning.weights[name], f"{tuning.singles[name]:.6f}") for name in tuning.weights]
    click.echo(table([("MEMBER", "WEIGHT", "DICE ALONE"), *rows]))
    scores = ", ".join(f"{name} {score:.6f}" for name, score in tuning.scores.items())
    click.echo(f"threshold {tuning.threshold}; {tuning.metric} of {tuning.images} out-of-fold photos: {scores}")
    click.echo("these are the scores on the maps that were tuned on; expect a little less on new photos")
    click.echo(f"wrote {done.path}")
