"""All checks of one installed model or step, one verdict after the other, in a process of its own.

``python -m carvana_ens.testing.judged JSON`` with the fields of Trial writes what it finds as lines of JSON, each with
one key: "checks" to come, [name, what it asks] of each; "options" that it checks with; and then a "verdict" of each;
or "refused" where the options cannot be meant. A plugin may end that process; what it prints goes to standard error.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from carvana_ens.ensemble.steps import make_step
from carvana_ens.errors import CarvanaEnsError
from carvana_ens.model import Model, options_json, parse_options
from carvana_ens.postprocess import Step
from carvana_ens.registry import load_model, load_step
from carvana_ens.testing.checks import DECLARED, PREDICTED, check_fit, fitted_checkpoint
from carvana_ens.testing.drawn import SIZE
from carvana_ens.testing.step_checks import STEP_CHECKS
from carvana_ens.types import Json, Size

SHORT_EPOCHS = 2
"""What an option ``epochs`` is set to unless it is given: enough to be stopped and to go on."""
LOADING = ("load", "The plugin can be imported, and registers what its entry point promises.")


@dataclass(frozen=True)
class Trial:
    """What to check: a registered name, a step or a model, and with what; a checkpoint replaces training."""

    name: str
    step: bool = False
    options: Mapping[str, Json] = field(default_factory=dict)
    checkpoint: str | None = None
    size: str | None = None


@dataclass(frozen=True)
class Verdict:
    """held: None where it was not tried. reason: why it failed or was not tried, in one line."""

    check: str
    held: bool | None
    reason: str = ""


def checks_of(step: bool) -> list[tuple[str, str]]:
    """Names of the checks, in their order, and what each asks, in one line."""
    checks = STEP_CHECKS if step else (*DECLARED, check_fit, *PREDICTED)
    asked = [inspect.cleandoc(check.__doc__ or "").partition("\n")[0].replace("``", "") for check in checks]
    return [LOADING, *zip(map(_name, checks), asked, strict=True)]


def judge_step(step_class: type[Step], options: Mapping[str, Json]) -> Iterator[Verdict]:
    """A verdict of each check of a step."""
    for check in STEP_CHECKS:
        yield _verdict(_name(check), lambda check=check: check(step_class, options))  # type: ignore[misc]


def judge_model(
    model_class: type[Model], options: Mapping[str, Json], checkpoint: Path | None = None, size: Size = SIZE
) -> Iterator[Verdict]:
    """A verdict of each check of a model, which is trained once for all of them, or not at all with a checkpoint."""
    for check in DECLARED:
        yield _verdict(_name(check), lambda check=check: check(model_class, options))  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        found = [checkpoint]
        if checkpoint is not None or not model_class.trainable:
            why = "not trainable" if checkpoint is None else f"{checkpoint.name} is used in place of training"
            fit = Verdict(_name(check_fit), None, why)
        else:
            (training := Path(folder) / "fit").mkdir()
            fit = _verdict(
                _name(check_fit),
                lambda: found.append(fitted_checkpoint(model_class, options, training, size)),
            )
        yield fit
        for check in PREDICTED:
            if fit.held is False:
                yield Verdict(_name(check), None, "it needs what training gives, which failed")
            else:
                yield _verdict(_name(check), lambda check=check: check(model_class, options, found[-1], size))  # type: ignore[misc]


def short_options(model_class: type[Model], options: Mapping[str, Json]) -> dict[str, Json]:
    """The options that a model is checked with: those given, as plain values, and few epochs unless these are given.

    Raises:
        UsageError: an option that the model does not have, or a value that does not fit.
    """
    parsed = options_json(parse_options(model_class.Options, options))
    given = {name: parsed[name] for name in options}
    short = model_class.trainable and type(parsed.get("epochs")) is int
    return {"epochs": SHORT_EPOCHS, **given} if short else given


def _name(check: Callable[..., None]) -> str:
    return check.__name__.removeprefix("check_").removeprefix("step_").replace("_", "-")


def _verdict(name: str, check: Callable[[], object]) -> Verdict:
    try:
        check()
    except (Exception, SystemExit) as error:  # noqa: BLE001 (plugins raise anything)
        told = str(error) if isinstance(error, CarvanaEnsError) else f"{type(error).__name__}: {error}"
        return Verdict(name, False, re.sub(r"^(model|step) \w+: ", "", " ".join(told.split())))
    return Verdict(name, True)


def _options(kind: type[Model] | type[Step], given: Mapping[str, Json]) -> dict[str, Json]:
    if issubclass(kind, Step):
        make_step(kind, given)
        return dict(given)
    try:
        return short_options(kind, given)
    except Exception:
        if given:
            raise
        return {}  # its options are at fault, and the checks say how


def _main(trial: Trial, out: TextIO) -> None:
    def tell(what: str, document: Json) -> None:
        out.write(json.dumps({what: document}) + "\n")
        out.flush()

    tell("checks", checks_of(trial.step))
    loaded: list[type[Model] | type[Step]] = []
    load = load_step if trial.step else load_model
    tell("verdict", dataclasses.asdict(_verdict(LOADING[0], lambda: loaded.append(load(trial.name)[0]))))
    for kind in loaded:
        try:
            options = _options(kind, trial.options)
        except CarvanaEnsError as error:
            tell("refused", str(error))
            return
        tell("options", options)
        if issubclass(kind, Step):
            verdicts = judge_step(kind, options)
        else:
            checkpoint = None if trial.checkpoint is None else Path(trial.checkpoint)
            size = SIZE if trial.size is None else Size.parse(trial.size)
            verdicts = judge_model(kind, options, checkpoint, size)
        for verdict in verdicts:
            tell("verdict", dataclasses.asdict(verdict))


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the plugin and its libraries may print: not among the answers
    _main(Trial(**json.loads(sys.argv[1])), answers)
