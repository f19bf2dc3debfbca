"""Types of arguments that a shell can complete."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem


class MemberType(click.types.StringParamType):
    """A member of the project; whether there is one of this name is the verb's affair."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """Members that begin so."""
        from carvana_ens.verbs.completion import member_names

        folder: Path | None = ctx.find_root().params.get("project")
        return [CompletionItem(name) for name in member_names(folder) if name.startswith(incomplete)]


class PluginType(click.types.StringParamType):
    """A model, with ``steps`` a step too; with ``known`` also one of ours that is not installed."""

    def __init__(self, *, steps: bool = False, known: bool = False) -> None:
        self._steps, self._known = steps, known

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """Names that begin so."""
        from carvana_ens.verbs.completion import plugin_names

        names = plugin_names(steps=self._steps, known=self._known)
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


MEMBER = MemberType()
MODEL = PluginType()
PLUGIN = PluginType(steps=True)
KNOWN_PLUGIN = PluginType(steps=True, known=True)
