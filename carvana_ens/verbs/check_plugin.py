"""check-plugin: whether an installed model or step keeps the contract."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from carvana_ens.errors import PluginError, UsageError
from carvana_ens.registry import Entry, find_model, find_step
from carvana_ens.types import Json, Size

SECONDS = 1800.0
"""Checks that take longer are stopped; training on the CPU is among them."""


@dataclass(frozen=True)
class CheckedContract:
    """One check. about: what it asks. held: None where it was not tried; reason: why it failed or was not tried."""

    check: str
    about: str
    held: bool | None
    reason: str


@dataclass(frozen=True)
class CheckedPlugin:
    """kind: "model" or "step". options: those that it was checked with, where they are not its defaults."""

    name: str
    kind: str
    distribution: str
    version: str | None
    options: dict[str, Json] = field(default_factory=dict)
    checks: list[CheckedContract] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether no check failed."""
        return all(check.held is not False for check in self.checks)


def check_plugin(
    name: str,
    *,
    options: Mapping[str, Json] | None = None,
    checkpoint: Path | None = None,
    size: Size | None = None,
    seconds: float = SECONDS,
    on_check: Callable[[CheckedContract], None] = lambda _: None,
) -> CheckedPlugin:
    """Runs the checks of ``carvana_ens.testing`` on a model, or on a step where no model has this name.

    They run in a process of their own, which a plugin may end or keep busy for good.

    Args:
        name: as ``carvana-ens models`` lists it.
        options: of the model or step; a model's ``epochs`` are few unless they are given.
        checkpoint: a model predicts with it, and is not trained.
        size: the model's input size; None: 64x96.
        seconds: what all checks may take together.
        on_check: called with each verdict as it comes.

    Raises:
        PluginError: neither a model nor a step has this name.
        UsageError: an option that it does not have, or that does not fit; a checkpoint or size for a step.
    """
    kind, entry = _found(name)
    if kind == "step" and (checkpoint is not None or size is not None):
        raise UsageError(f"{name} is a step, which has neither checkpoint nor size: leave them out")
    if checkpoint is not None and not checkpoint.is_file():
        raise UsageError(f"checkpoint {checkpoint} is no file: name the file that the model predicts with")
    trial = {
        "name": f"{entry.distribution}:{entry.name}",
        "step": kind == "step",
        "options": dict(options or {}),
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "size": None if size is None else str(size),
    }
    found = CheckedPlugin(entry.name, kind, entry.distribution, entry.version)
    due: list[tuple[str, str]] = []

    def judged(check: str, held: bool | None, reason: str = "") -> None:
        found.checks.append(CheckedContract(check, dict(due)[check], held, reason))
        on_check(found.checks[-1])

    ended = ""
    for answer in _answers(trial, seconds):
        due += answer.get("checks", [])
        found.options.update(answer.get("options", {}))
        ended = answer.get("ended", ended)
        if "refused" in answer:
            raise UsageError(answer["refused"])
        if "verdict" in answer:
            judged(**answer["verdict"])
    if not due:
        raise PluginError(f"the checks of {name} did not start: Python {ended}; what it says stands above", name=name)
    loaded = not found.checks or found.checks[0].held
    for number, (check, _) in enumerate(due[len(found.checks) :]):
        if number == 0 and loaded:
            judged(check, False, f"Python {ended} meanwhile: see what it says above")
        else:
            judged(check, None, "an earlier one put an end to the checks")
    return found


def _found(name: str) -> tuple[str, Entry]:
    try:
        return "model", find_model(name)
    except PluginError as error:
        try:
            return "step", find_step(name)
        except PluginError:
            raise error from None


def _answers(trial: Mapping[str, Json], seconds: float) -> Iterator[dict[str, Any]]:
    """What the checks say, see ``carvana_ens.testing.judged``, and last how their process "ended"."""
    # by its name, not by an import: a plugin can do no harm to this process, and the room of the checks is not ours
    command = [sys.executable, "-m", "carvana_ens.testing.judged", json.dumps(trial)]
    late = threading.Event()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, encoding="utf-8") as process:

        def stop() -> None:
            late.set()
            process.kill()

        limit = threading.Timer(seconds, stop)
        limit.start()
        try:
            for line in process.stdout or ():
                yield json.loads(line)
            process.wait()
        finally:
            limit.cancel()
            process.kill()  # where nobody waits for the rest of the answers
    code = process.returncode
    yield {"ended": f"was stopped after {seconds:g} s" if late.is_set() else f"ended with exit code {code}"}
