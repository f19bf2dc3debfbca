"""What the commands share: the project, progress, output forms, and option types."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from carvana_ens.engine.cluster import Workers
    from carvana_ens.project import Project
    from carvana_ens.types import Size

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])

FAILED_INPUTS = 3
"""Exit code of what is finished but for some inputs, which are listed."""
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
ANY_PATH = click.Path(path_type=Path)


def _known_device(ctx: click.Context, param: click.Parameter, value: str) -> str:  # noqa: ARG001
    """Refuses a device that no framework has, also where no model would ask for it."""
    if re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]+)?", value) is None:
        raise click.BadParameter(f"{value!r} is none of auto, cpu, cuda, cuda:N, mps")
    return value


device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda|mps",
    callback=_known_device,
    help="Where networks run.",
)
threads_option = click.option(
    "--threads", type=click.IntRange(1, 1024), default=None, help="Threads.  [default: the processors there are]"
)
_WORKERS = (
    click.option("--workers", type=click.IntRange(1, 1024), help="Work in this many processes of this machine."),
    click.option("--scheduler", metavar="ADDRESS", help="Work on the workers of this Dask scheduler: tcp://host:port."),
    click.option(
        "--worker-limit",
        type=click.FloatRange(0, min_open=True),
        metavar="SECONDS",
        help="End a worker that finishes nothing for so long, and try its work elsewhere.  [default: 1800]",
    ),
)


def worker_options(command: Command) -> Command:
    """The options that ``chosen_workers`` reads."""
    for option in reversed(_WORKERS):
        command = option(command)
    return command


def chosen_workers(count: int | None, scheduler: str | None, limit: float | None) -> Workers | None:
    """What ``--workers``, ``--scheduler`` and ``--worker-limit`` ask for; None for this process."""
    if count is None and scheduler is None:
        if limit is not None:
            raise click.UsageError("--worker-limit goes with --workers or --scheduler")
        return None
    from carvana_ens.engine.cluster import LIMIT, Workers

    return Workers(count, scheduler, LIMIT if limit is None else limit)


fold_rule_option = click.option(
    "--fold-rule",
    type=click.Choice(["rank", "histogram"]),
    default="rank",
    show_default=True,
    help="Groups go to folds by their rank in mask area, or class by class of its histogram.",
)
by_view_option = click.option(
    "--by-view", metavar="VIEW", help="Mask area of this view decides, such as 05.  [default: all views]"
)
DIALECTS = ("carvana", "column-major", "relative", "coco-uncompressed", "coco-compressed")
dialect_option = click.option(
    "--dialect",
    type=click.Choice(DIALECTS),
    default="carvana",
    show_default=True,
    help="Of the submission's run lengths.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
break_lock_option = click.option(
    "--break-lock", is_flag=True, help="Take the locks that killed writers left on stores at an address."
)
fresh_help = "Make anew what is there already."


class SizeType(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """``HxW``."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        """Reads the text; a usage error says what is wrong with it."""
        from carvana_ens.errors import UsageError
        from carvana_ens.types import Size

        if isinstance(value, Size):
            return value
        try:
            return Size.parse(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


SIZE = SizeType()


def open_project(ctx: click.Context) -> Project:
    """The project of ``--project``, or the nearest one."""
    from carvana_ens.project import Project, find_project

    folder: Path | None = ctx.obj
    return find_project() if folder is None else Project(folder.absolute())


def parse_settings(settings: Iterable[str]) -> dict[str, str]:
    """The values of ``--set OPTION=VALUE`` by option."""
    from carvana_ens.errors import UsageError

    options: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key or key in options:
            raise UsageError(f"--set takes option=value, each option once, got {setting!r}")
        options[key] = value
    return options


def track(items: Iterable[T], total: int, what: str) -> Iterable[T]:
    """A progress bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        return items
    return _bar(items, total, what)


def _bar(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    from tqdm import tqdm

    yield from tqdm(items, total=total, desc=what, leave=False, dynamic_ncols=True)


def say(line: str) -> None:
    """A line for the user that is no result: on standard error."""
    click.echo(line, err=True)


def show_json(document: Any) -> None:
    """A JSON document on standard output."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def table(rows: Iterable[Iterable[object]]) -> str:
    """Rows as aligned columns of text."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )
