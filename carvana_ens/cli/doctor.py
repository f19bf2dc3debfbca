"""carvana-ens doctor."""

from __future__ import annotations

import dataclasses

import click

from carvana_ens.cli.common import json_option, show_json, table

MARKS = {"ok": "ok", "note": "note", "broken": "BROKEN"}


@click.command(short_help="Say what is installed, and what would not work.")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> int:
    """Examine Python, libraries, extras, kernels, torch, plugins and the project; exit code 1 if something is broken.

    \b
    Example:
      carvana-ens doctor
    """
    from carvana_ens.verbs.doctor import doctor

    found = doctor(ctx.obj)
    if as_json:
        show_json({**dataclasses.asdict(found), "sound": found.sound})
    else:
        click.echo(table([(f.area, f.name, MARKS[f.state], f.text) for f in found.findings]))
        broken = sum(f.state == "broken" for f in found.findings)
        click.echo(f"{broken} broken" if broken else "nothing is broken")
    return 0 if found.sound else 1
