"""carvana-ens models."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from carvana_ens.cli.common import json_option, say, show_json, table
from carvana_ens.cli.completed import PLUGIN

if TYPE_CHECKING:
    from carvana_ens.verbs.models import InstalledModel, InstalledModels, InstalledSteps, OptionDescription


@click.command(short_help="List the installed models or steps, or describe one.")
@click.argument("name", required=False, type=PLUGIN)
@json_option
@click.option("--check", is_flag=True, help="Import every model again, also those that loaded before.")
@click.option("--recipe", metavar="RECIPE", help="Show what this recipe of the model sets.")
@click.option("--steps", is_flag=True, help="Post-processing steps instead of models.")
def command(name: str | None, as_json: bool, check: bool, recipe: str | None, steps: bool) -> None:
    """List the installed models, with the reason of a broken one; with NAME: its options, recipes and parameters.

    \b
    Example:
      carvana-ens models
      carvana-ens models linknet34
      carvana-ens models linknet34 --recipe s2-linknet34-fma
      carvana-ens models --steps
      carvana-ens models --steps roof-repair
    """
    from carvana_ens.errors import UsageError
    from carvana_ens.verbs import models

    if steps:
        if recipe is not None:
            raise UsageError("--recipe shows a recipe of a model, and --steps asks for steps: leave one out")
        _steps(name, as_json, check)
        return
    if recipe is not None:
        if name is None:
            raise UsageError("--recipe shows one of a model's recipes: name the model, as in models NAME --recipe R")
        found = models.describe_recipe(name, recipe)
        if as_json:
            show_json(dataclasses.asdict(found))
            return
        click.echo(f"{found.name}: {found.help}")
        member = [("size", found.size)] * (found.size is not None) + [("tta", flip) for flip in found.tta]
        click.echo(table([*member, *found.options.items()]))
        return
    if name is not None:
        description = models.describe(name)
        if as_json:
            show_json(dataclasses.asdict(description))
            return
        click.echo(f"{description.name}: {description.distribution} {description.version or '?'}")
        click.echo(description.help)
        click.echo(f"parameters: {description.parameters:,} trainable")
        click.echo(f"input size: {description.size or 'the photo itself'}; sees: one {description.context} at a time")
        _options("--set name=value", description.options)
        if description.recipes:
            recipes = [(f"  {r.name}", r.help) for r in description.recipes]
            click.echo("recipes (add-model --recipe name):\n" + table(recipes))
        return
    listed = models.models(check=check)
    none = "no models are installed: pip install 'carvana-ens[models]', or import maps made elsewhere"
    _listing(listed, listed.models, none, as_json)


def _steps(name: str | None, as_json: bool, check: bool) -> None:
    """Lists the steps, or describes one."""
    from carvana_ens.verbs import models

    if name is not None:
        step = models.describe_step(name)
        if as_json:
            show_json(dataclasses.asdict(step))
            return
        click.echo(f"{step.name}: {step.distribution} {step.version or '?'}")
        click.echo(step.help)
        _options(f"{step.name}:name=value", step.options)
        for option, values in step.tried.items():
            click.echo(f"tuning tries {option} {', '.join(map(str, values))}")
        return
    listed = models.steps(check=check)
    none = "no post-processing steps are installed: pip install carvana-ens-postprocess"
    _listing(listed, listed.steps, none, as_json)


def _options(form: str, options: Sequence[OptionDescription]) -> None:
    rows = [(f"  {option.name}", option.default, option.help) for option in options]
    click.echo(f"options ({form}):\n{table(rows)}" if rows else "options: none")


def _listing(
    listed: InstalledModels | InstalledSteps, found: Sequence[InstalledModel], none: str, as_json: bool
) -> None:
    """Shows what is installed, or says that there is ``none``."""
    for problem in listed.problems:
        say(f"warning: {problem}")
    if as_json:
        show_json(dataclasses.asdict(listed))
    elif found:
        rows = [(m.name, m.distribution, m.version or "?", f"BROKEN: {m.reason}" if m.reason else "") for m in found]
        click.echo(table([("NAME", "PACKAGE", "VERSION", ""), *rows]))
    else:
        click.echo(none)
