"""carvana-ens pseudo-label."""

from __future__ import annotations

import click

from carvana_ens.cli.common import fresh_help, json_option, open_project, say, show_json, threads_option, track


@click.command(short_help="Make training masks of test photos from the blend.")
@click.argument("name", default="pseudo")
@click.option("--weights", default="equal", show_default=True, help="equal, tuned, or name=w,name=w,...")
@click.option(
    "--threshold", help="Where the border lies: tuned, or a number in (0, 1].  [default: tuned with tuned weights, 0.5]"
)
@click.option("--keep", type=float, default=0.5, show_default=True, help="Share of the images to keep, the surest.")
@click.option("--max-doubt", type=float, help="Keep none with a doubtful seam wider than this, in pixels.")
@click.option("--fresh", is_flag=True, help=fresh_help)
@click.option("--dry-run", is_flag=True, help="Say what would be kept, and write nothing.")
@threads_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    name: str,
    weights: str,
    threshold: str | None,
    keep: float,
    max_doubt: float | None,
    fresh: bool,
    dry_run: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Make pseudo-labels NAME (default: pseudo): the members' blended test maps as soft masks for training.

    Kept are the images that the ensemble is surest about: those whose seam of pixels between probability 0.1 and 0.9
    is the narrowest along the object's border. Photos are not copied.

    \b
    Example:
      carvana-ens pseudo-label --weights tuned --keep 0.3
      carvana-ens pseudo-label sure --max-doubt 1.5 --dry-run
      carvana-ens add-model unet-256 --name second --pseudo pseudo --pseudo-share 0.3
    """
    from carvana_ens.verbs.pseudo_label import pseudo_label

    done = pseudo_label(
        open_project(ctx),
        name,
        weights=weights,
        threshold=threshold,
        keep=keep,
        max_doubt=max_doubt,
        fresh=fresh,
        dry_run=dry_run,
        threads=threads,
        say=say,
        track=track,
    )
    if as_json:
        show_json({**vars(done), "folder": str(done.folder), "written": not dry_run})
        return
    verb = "would keep" if dry_run else f"wrote {done.folder}:"
    borderless = f", {done.borderless} without a border" if done.borderless else ""
    click.echo(f"{verb} {done.kept} of {done.images} images, doubt up to {done.doubt:.3g} pixels{borderless}")
