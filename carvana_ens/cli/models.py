"""carvana-ens models."""

from __future__ import annotations

import dataclasses

import click

from carvana_ens.cli.common import json_option, say, show_json, table


@click.command(short_help="List the installed models, or describe one.")
@click.argument("name", required=False)
@json_option
@click.option("--check", is_flag=True, help="Import every model again, also those that loaded before.")
@click.option("--recipe", metavar="RECIPE", help="Show what this recipe of the model sets.")
def command(name: str | None, as_json: bool, check: bool, recipe: str | None) -> None:
    """List the installed models, with the reason of a broken one; with NAME: its options, recipes and parameters.

    \b
    Example:
      carvana-ens models
      carvana-ens models linknet34
      carvana-ens models linknet34 --recipe s2-linknet34-fma
    """
    from carvana_ens.errors import UsageError
    from carvana_ens.verbs import models

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
        options = [(f"  {o.name}", o.default, o.help) for o in description.options]
        click.echo("options (--set name=value):\n" + table(options) if options else "options: none")
        if description.recipes:
            recipes = [(f"  {r.name}", r.help) for r in description.recipes]
            click.echo("recipes (add-model --recipe name):\n" + table(recipes))
        return
    listed = models.models(check=check)
    for problem in listed.problems:
        say(f"warning: {problem}")
    if as_json:
        show_json(dataclasses.asdict(listed))
        return
    if not listed.models:
        click.echo("no models are installed: pip install 'carvana-ens[models]', or import maps made elsewhere")
        return
    rows = [
        (m.name, m.distribution, m.version or "?", f"BROKEN: {m.reason}" if m.reason else "") for m in listed.models
    ]
    click.echo(table([("NAME", "PACKAGE", "VERSION", ""), *rows]))
