"""carvana-ens verify."""

from __future__ import annotations

import dataclasses

import click

from carvana_ens.cli.common import (
    chosen_workers,
    json_option,
    open_project,
    show_json,
    threads_option,
    track,
    worker_options,
)


@click.command(short_help="Check every stored map.")
@click.argument("members", nargs=-1)
@threads_option
@worker_options
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    members: tuple[str, ...],
    threads: int | None,
    workers: int | None,
    scheduler: str | None,
    worker_limit: float | None,
    as_json: bool,
) -> int:
    """Read every map of MEMBERS (default: all) and compare it with its checksum; exit code 1 if one is damaged.

    \b
    Example:
      carvana-ens verify
    """
    from carvana_ens.verbs.verify import verify

    chosen = chosen_workers(workers, scheduler, worker_limit)
    results = verify(open_project(ctx), members, threads=threads, workers=chosen, track=track)
    if as_json:
        show_json([dataclasses.asdict(result) for result in results])
    else:
        for result in results:
            click.echo(f"{result.path}: {result.right} right, {result.missing} missing, {len(result.damage)} damaged")
            for line in result.damage:
                click.echo(f"  {line}")
    return 1 if any(result.damage for result in results) else 0
