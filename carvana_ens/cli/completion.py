"""carvana-ens completion."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

VARIABLE = "_CARVANA_ENS_COMPLETE"
"""What click looks for in the environment, made from the name of the program."""
INSTALLING = {
    "bash": 'in ~/.bashrc:\n#   eval "$(carvana-ens completion bash)"',
    "zsh": 'in ~/.zshrc, after compinit:\n#   eval "$(carvana-ens completion zsh)"',
    "fish": "once:\n#   carvana-ens completion fish > ~/.config/fish/completions/carvana-ens.fish",
}


@click.command(short_help="Print what makes a shell complete verbs, members and models.")
@click.argument("shell", type=click.Choice(list(INSTALLING)))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete verbs, options, members and models, and say where it belongs.

    \b
    Example:
      carvana-ens completion bash
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"this version of click has no completion for {shell}: pip install -U click")
    script = kind(ctx.find_root().command, {}, "carvana-ens", VARIABLE).source()
    click.echo(f"{script.rstrip()}\n\n# To have it in every shell, {INSTALLING[shell]}")
