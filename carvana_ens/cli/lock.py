"""carvana-ens lock."""

from __future__ import annotations

from pathlib import Path

import click

from carvana_ens.cli.common import FILE, json_option, open_project, say, show_json, threads_option, track


@click.command(short_help="Write down all that a submission is made of.")
@click.option("-o", "--output", type=FILE, default=Path("ensemble.lock.json"), show_default=True, help="Lock to write.")
@click.option("--weights", default="equal", show_default=True, help="As for blend: equal, tuned, or name=w,name=w,...")
@click.option("--threshold", help="As for blend.  [default: tuned with tuned weights, else 0.5]")
@click.option("--split", default="test", show_default=True, help="Which maps: test, oof, or a name given to predict.")
@click.option("--postprocess", metavar="STEP,STEP,...", help="As for blend.  [default: the tuned ones, or none]")
@click.option("--submission", type=FILE, help="Refuse if this .csv or .csv.gz has another text.")
@threads_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    output: Path,
    weights: str,
    threshold: str | None,
    split: str,
    postprocess: str | None,
    submission: Path | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Write down all that the submission of blend is made of, so that replay can make it again, also elsewhere.

    \b
    Example:
      carvana-ens lock --weights tuned --submission submission.csv.gz
    """
    from carvana_ens.verbs.lock import lock

    done = lock(
        open_project(ctx),
        output,
        weights=weights,
        threshold=threshold,
        split=split,
        postprocess=postprocess,
        submission=submission,
        threads=threads,
        say=say,
        track=track,
    )
    sha = done.lock.submission_sha256
    if as_json:
        show_json({"path": str(done.path), "images": done.lock.images, "sha256": sha, "unlike": done.unlike})
        return
    for line in done.unlike:
        say(f"warning: replay could not make these maps again here: {line}")
    click.echo(f"{done.path}: {len(done.lock.members)} members, {done.lock.images} images, text of sha256 {sha}")
