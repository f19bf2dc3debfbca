"""carvana-ens verify."""

from __future__ import annotations

import dataclasses

import click

from carvana_ens.cli.common import (
    break_lock_option,
    chosen_workers,
    json_option,
    open_project,
    say,
    show_json,
    threads_option,
    track,
    worker_options,
)
from carvana_ens.cli.completed import MEMBER


@click.command(short_help="Check every stored map.")
@click.argument("members", nargs=-1, type=MEMBER)
@click.option("--repair", is_flag=True, help="Mark damaged maps as missing, to be made again; mend damaged zarr.json.")
@click.option("--gc", is_flag=True, help="Remove what killed writers left behind.")
@break_lock_option
@threads_option
@worker_options
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    members: tuple[str, ...],
    repair: bool,
    gc: bool,
    break_lock: bool,
    threads: int | None,
    workers: int | None,
    scheduler: str | None,
    worker_limit: float | None,
    as_json: bool,
) -> int:
    """Read every map of MEMBERS (default: all) and compare it with its checksum; exit code 1 if one is damaged.

    A packed store of which maps are marked becomes a plain one.

    \b
    Example:
      carvana-ens verify
      carvana-ens verify --repair --gc && carvana-ens predict
    """
    from carvana_ens.verbs.verify import verify

    chosen = chosen_workers(workers, scheduler, worker_limit)
    results = verify(
        open_project(ctx),
        members,
        threads=threads,
        workers=chosen,
        repair=repair,
        gc=gc,
        break_lock=break_lock,
        say=say,
        track=track,
    )
    if as_json:
        show_json([dataclasses.asdict(result) for result in results])
    else:
        for result in results:
            click.echo(f"{result.path}: {result.right} right, {result.missing} missing, {len(result.damage)} damaged")
            for line in result.damage:
                click.echo(f"  {line}")
            if result.repaired:
                click.echo(f"  marked {result.repaired} as missing: predict (or import) makes them again")
            if result.restored:
                click.echo(f"  mended {result.restored} things beside the maps")
            if result.removed:
                click.echo(f"  removed what stops had left: {result.removed} things, {result.freed / 1e6:.1f} MB")
    return 1 if any(len(result.damage) > result.repaired + result.restored for result in results) else 0
