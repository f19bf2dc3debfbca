"""carvana-ens bench."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from carvana_ens.cli.common import ANY_PATH, FILE, FOLDER, SIZE, say, table
from carvana_ens.verbs.bench import COUNTS, KINDS, PARTS

if TYPE_CHECKING:
    from carvana_ens.types import Size
    from carvana_ens.verbs.bench.bars import Bar
    from carvana_ens.verbs.bench.bench import Benched
    from carvana_ens.verbs.bench.race import Contest, Row

HELP = f"""Time each PART (default: all) beside the peers' ways and the limits of this machine, on the same bytes.

\b
{chr(10).join(f"  {name:<12}{what}" for name, what in PARTS.items())}

Every result is compared with a slow twin before anything is timed; then the contestants take turns. A line gives the
median time of an image (of a map, where the title says so) in ms, its spread (median absolute deviation), and how many
times the time of the limit, and of ours, that is. Maps are made from masks. OpenCV, which makes them, and the peers
come with pip install 'carvana-ens[bench]'. All parts take about a quarter of an hour and a few GB of disk.

\b
Example:
  carvana-ens bench
  carvana-ens bench rle blend curve --kind speckled --masks train_masks
  carvana-ens bench submission --maps cars --images 512 --json bench.json
"""


def _counts(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:  # noqa: ARG001
    """Reads ``8,24,49``."""
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of numbers: write for example 8,24,49") from None


@click.command(
    short_help="Time us beside peers and limits.",
    help=HELP,
)
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)), metavar="[PART]...")
@click.option(
    "--kind",
    type=click.Choice([*KINDS, "both", "none"]),
    default="both",
    show_default=True,
    help="Made maps: saturated (nearly all codes 0 or 255), speckled (a third), both; none with --maps.",
)
@click.option("--maps", type=FOLDER, metavar="PROJECT", help="Also take the maps of this project's member stores.")
@click.option(
    "--masks",
    type=ANY_PATH,
    help="Make the maps from these masks.  [default: $CARVANA_ENS_DATA/carvana/train_masks, else drawn ones]",
)
@click.option("--size", type=SIZE, metavar="HxW", help="Size of made maps.  [default: the masks' own, else 1280x1918]")
@click.option("--members", type=click.IntRange(1, 256), default=8, show_default=True, help="Maps an image.")
@click.option(
    "--counts",
    callback=_counts,
    default=",".join(map(str, COUNTS)),
    show_default=True,
    help="Members in the part members.",
)
@click.option("--images", type=click.IntRange(1), default=256, show_default=True, help="Images in a store.")
@click.option(
    "--rounds", type=click.IntRange(1), default=9, show_default=True, help="Turns of each; half where peers are slow."
)
@click.option(
    "--threads", type=click.IntRange(1, 1024), default=2, show_default=True, help="Threads beside as many processes."
)
@click.option(
    "--clock",
    type=click.Choice(["wall", "cpu"]),
    default="wall",
    show_default=True,
    help="cpu: CPU time instead, where one thread is timed; for a machine that others use too.",
)
@click.option("--work", type=FOLDER, help="Where stores and PNGs lie meanwhile.  [default: the temporary folder]")
@click.option("--json", "json_file", type=FILE, help="Also write everything to this file.")
def command(
    parts: tuple[str, ...],
    kind: str,
    maps: Path | None,
    masks: Path | None,
    size: Size | None,
    members: int,
    counts: tuple[int, ...],
    images: int,
    rounds: int,
    threads: int,
    clock: str,
    work: Path | None,
    json_file: Path | None,
) -> None:
    """Parsed here, done by the verb."""
    from carvana_ens.errors import UsageError
    from carvana_ens.files import write_json
    from carvana_ens.project import Project
    from carvana_ens.verbs.bench.bench import bench
    from carvana_ens.verbs.bench.course import Options

    if kind == "none" and maps is None:
        raise UsageError("--kind none leaves no maps: name a project with --maps")
    options = Options(
        parts=tuple(part for part in PARTS if part in parts) or tuple(PARTS),
        kinds=tuple(KINDS) if kind == "both" else () if kind == "none" else (kind,),
        size=size,
        masks=masks,
        members=members,
        counts=counts,
        images=images,
        rounds=rounds,
        threads=threads,
        clock="cpu" if clock == "cpu" else "wall",
    )
    project = None if maps is None else Project(maps.absolute())
    done = bench(options, project=project, work=work, say=say, report=_show)
    if json_file is not None:
        write_json(json_file, done.to_json())
    _close(done)


def _show(contest: Contest) -> None:
    """One block of the report; columns that would be empty are left out."""
    clock = "CPU time" if contest.clock == "cpu" else "wall-clock time"
    click.echo(f"\n{contest.title}  ({contest.kind}; {clock}, median of {contest.rounds} rounds)")
    lines = [("", "ms", "+-", "bytes/map", "x limit", "x ours"), *map(_line, contest.rows)]
    columns = [column for column in zip(*lines, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    for name, *numbers in zip(*columns, strict=True):
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        click.echo(f"  {name.ljust(widths[0])}  {'  '.join(cells)}")
    for name in contest.left_out:
        click.echo(f"  left out: {name} is not installed")


def _line(row: Row) -> tuple[str, ...]:
    held = "" if row.bytes_a_map is None else f"{row.bytes_a_map:,.0f}"
    return (
        row.name,
        f"{row.ms:.3f}",
        f"{row.spread_ms / row.ms:.0%}" if row.ms else "",  # a coarse clock
        held,
        *("" if ratio is None else _ratio(ratio) for ratio in (row.of_limit, row.of_ours)),
    )


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}" if ratio < 100 else f"{ratio:,.0f}"


def _close(done: Benched) -> None:
    """What the numbers hold for, and the bars."""
    here = done.machine
    cache = f"{here.cache >> 20} MiB cache" if here.cache else "cache unknown"
    memory = f"{here.memory / 2**30:.0f} GiB" if here.memory else "memory unknown"
    click.echo(f"\n{here.processor}, {here.processors} processors, {cache}, {memory}; {here.system}, {here.python}")
    click.echo(", ".join(f"{name} {version or '-'}" for name, version in here.versions.items()))
    for facts in done.maps:
        click.echo(facts.line)
    if done.bars:
        rows = [("BAR", "MAPS", "RATIO", "WANTED", ""), *map(_bar, done.bars)]
        click.echo(f"\n{table(rows)}")


def _bar(bar: Bar) -> tuple[str, ...]:
    sign = "at least" if bar.at_least else "at most"
    verdict = {True: "met", False: "MISSED", None: "(set for 1280x1918, 8 members)"}[bar.met]
    return bar.what, bar.kind, _ratio(bar.ratio), f"{sign} {bar.bar:g}", verdict
