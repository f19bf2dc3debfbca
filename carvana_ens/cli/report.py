"""carvana-ens report."""

from __future__ import annotations

from pathlib import Path

import click

from carvana_ens.cli.common import FILE, json_option, open_project, say, show_json, threads_option, track


@click.command(short_help="One HTML page: scores, members, curves, worst photos.")
@click.option("-o", "--output", type=FILE, help="The page.  [default: report.html in the project]")
@click.option("--worst", type=click.IntRange(0), default=6, show_default=True, help="Out-of-fold photos to show.")
@click.option(
    "--odd",
    type=click.IntRange(0),
    default=6,
    show_default=True,
    help="Test photos to show; 0: test maps are not read.",
)
@threads_option
@json_option
@click.pass_context
def command(ctx: click.Context, output: Path | None, worst: int, odd: int, threads: int | None, as_json: bool) -> None:
    """Write one HTML page about what tune found: honest scores, members, curves, and photos to look at.

    The page needs no server and no network. Test photos are shown on which members disagree, or whose masks are unlike
    those of the training photos.

    \b
    Example:
      carvana-ens report
      carvana-ens report --worst 20 -o /tmp/look.html
    """
    from carvana_ens.verbs.report import report

    done = report(open_project(ctx), output, worst=worst, odd=odd, threads=threads, say=say, track=track)
    if as_json:
        looks = [{"id": one.image_id, "distance": one.distance, "reasons": one.reasons} for one in done.odd]
        show_json({"path": str(done.path), "worst": dict(done.worst), "odd": looks})
        return
    for one in done.odd:
        click.echo(f"look at {one.image_id}: {'; '.join(one.reasons)}")
    click.echo(f"wrote {done.path}")
