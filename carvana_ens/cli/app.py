"""The command group: its commands are found by name and imported one at a time."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

from carvana_ens import __version__

COMMANDS = {
    "init": "init",
    "models": "models",
    "install": "install",
    "uninstall": "uninstall",
    "new-plugin": "new_plugin",
    "check-plugin": "check_plugin",
    "add-model": "add_model",
    "remove-model": "remove_model",
    "import": "import_maps",
    "export": "export",
    "train": "train",
    "history": "history",
    "predict": "predict",
    "pack": "pack",
    "tune": "tune",
    "blend": "blend",
    "pseudo-label": "pseudo_label",
    "evaluate": "evaluate",
    "report": "report",
    "show": "show",
    "cutout": "cutout",
    "run": "run",
    "status": "status",
    "verify": "verify",
    "lock": "lock",
    "replay": "replay",
    "diff": "diff",
    "doctor": "doctor",
    "completion": "completion",
    "sample-data": "sample_data",
    "demo": "demo",
    "bench": "bench",
}
"""Verbs in the order of a user's day, and the modules of this room that hold them."""


class Commands(click.Group):
    """A group whose commands are modules of this room, each with a ``command``."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"carvana_ens.cli.{COMMANDS[cmd_name]}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f"did you mean {near[0]!r}?" if near else "carvana-ens --help lists them"
            raise click.UsageError(f"verb {args[0]!r} is unknown: {hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="A first try, without data of your own: carvana-ens demo",
)
@click.version_option(__version__, prog_name="carvana-ens")
@click.option(
    "--project",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder with ensemble.toml.  [default: the nearest one, from here upward]",
)
@click.pass_context
def app(ctx: click.Context, project: Path | None) -> None:
    """Ensembles of segmentation models: train or import members, tune their weights, blend them into one submission."""
    ctx.obj = project
