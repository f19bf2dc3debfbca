"""Calls into plugins: whatever they raise becomes one line that says whose fault it is, and where."""

from __future__ import annotations

import dataclasses
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from carvana_ens.errors import CarvanaEnsError, PluginError, UsageError
from carvana_ens.model import MemberConfig, Model, path_options


@contextmanager
def calling(model: type[Model], config: MemberConfig, what: str) -> Iterator[None]:
    """Runs a block that calls ``model``. what: what the plugin is to do, for the message ("train fold 0").

    Raises:
        PluginError: the plugin raised an exception that is not ours; names member, model, exception and line.
    """
    try:
        yield
    except (CarvanaEnsError, MemoryError):
        raise
    except Exception as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise PluginError(
            f"member {config.name}: model {config.model} cannot {what}: {told} ({_place(model, error)}); "
            f"report it to the author of the model",
            name=config.model,
            reason=told,
        ) from error


def configured(model: type[Model], config: MemberConfig, root: Path | None = None) -> Model:
    """The model of a member, with its options checked and nothing loaded yet.

    root: the project's folder, where options that name a file are looked up; None leaves them as they are.

    Raises:
        UsageError: an option that the model refuses; names the member.
        PluginError: the plugin raised an exception that is not ours.
    """
    if root is not None:
        files = {
            name: str((root / config.options[name]).absolute())
            for name in path_options(model.Options)
            if config.options.get(name) and (root / str(config.options[name])).is_file()
        }
        config = dataclasses.replace(config, options={**config.options, **files})
    with calling(model, config, "be configured so"):
        try:
            return model(config)
        except UsageError as error:
            raise UsageError(f"member {config.name}: {error}") from error


def _place(model: type[Model], error: Exception) -> str:
    """File and line where it was raised; the plugin's own where it called a library."""
    frames = traceback.extract_tb(error.__traceback__)
    own = getattr(sys.modules.get(model.__module__), "__file__", None)
    frame = next((frame for frame in reversed(frames) if frame.filename == own), frames[-1])
    return f"{frame.filename}, line {frame.lineno}"
