"""What is wrong with a plugin is found by the check that is meant for it, and said."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from carvana_ens.errors import UsageError
from carvana_ens.model import option
from carvana_ens.testing.judged import checks_of, judge_model, judge_step, short_options

PLANTED = Path(__file__).with_name("planted.py")
FAULTS = [
    ("Cropped", "answers", r"shape \(1, 36, 52\) for 1 photo of 37x53: give \(1, 37, 53\)"),
    ("Bytes", "answers", r"gives 30\.\d+ to 164\.\d+ .*probabilities lie in \[0, 1\]"),
    ("Doubles", "answers", "gives float64 .*give float32"),
    ("NotFinite", "answers", "NaN or infinity .*in the map of blank_01"),
    ("Sorted", "independence", "when the photos of a batch change places"),
    ("Neighbours", "independence", "when it is alone in its batch"),
    ("Drawing", "repeats", "called again, after other photos, differs by"),
    ("Remembering", "repeats", "keep nothing from call to call"),
    ("Deaf", "config", "takes the unknown option 'no_such_option'"),
    ("Silent", "options", "gain has the help None: give one line"),
    ("Forgetting", "predict-all", "writes 2 of 3 maps, none for c02_02"),
    ("Stretched", "calibration", "do not stretch maps"),
    ("Sigmoid", "calibration", "leave the sigmoid out"),
    ("Restarting", "fit", "stopped in epoch 2, begins at epoch 1 when it is called again"),
    ("AnotherTasks", "fit", "for a task with another digest"),
    ("Elsewhere", "fit", r"write a file right in task\.directory"),
]


@pytest.fixture
def planted(fake_site):
    """The module planted.py, beside a framework that it imports."""
    fake_site.add("planted", {}, planted=PLANTED.read_text(), jax="")
    return importlib.import_module("planted")


@pytest.mark.parametrize(("name", "check", "words"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_a_planted_fault_is_found_and_named(planted, name, check, words):
    verdicts = [v for v in judge_model(getattr(planted, name), {}) if v.check != "import"]
    first = next(v for v in verdicts if v.held is False)
    assert first.check == check, first.reason
    assert re.search(words, first.reason), first.reason
    assert not first.reason.startswith("model ")


def test_a_framework_imported_at_once(planted):
    verdicts = list(judge_model(planted.Good, {}))
    failed = {v.check: v.reason for v in verdicts if v.held is False}
    assert failed == {"import": "import planted imports jax: import it inside load, where it is used"}
    assert [v.check for v in verdicts] == [name for name, _ in checks_of(step=False)][1:]
    assert [v.check for v in verdicts if v.held is None] == ["fit"]


def test_what_needs_training_that_failed_is_not_tried(planted):
    verdicts = {v.check: v for v in judge_model(planted.Elsewhere, {})}
    assert verdicts["fit"].held is False
    for check in ("answers", "repeats", "independence", "predict-all", "calibration"):
        assert verdicts[check].held is None
        assert verdicts[check].reason == "it needs what training gives, which failed"


def test_a_checkpoint_replaces_training(planted, tmp_path):
    verdicts = {v.check: v for v in judge_model(planted.Elsewhere, {}, tmp_path / "mine.bin")}
    assert (verdicts["fit"].held, verdicts["fit"].reason) == (None, "mine.bin is used in place of training")
    assert verdicts["answers"].held


def test_few_epochs_unless_they_are_given(tiny):
    assert short_options(tiny.Bright, {}) == {}
    assert short_options(tiny.Bright, {"slope": "2", "invert": "true"}) == {"slope": 2.0, "invert": True}
    with pytest.raises(UsageError, match="did you mean 'slope'"):
        short_options(tiny.Bright, {"sloppe": "2"})

    @dataclass(frozen=True)
    class Epochs:
        epochs: int = option(80, "how long")
        rate: float = option(0.1, "how fast")

    trained = type("Long", (tiny.Trained,), {"Options": Epochs})
    assert short_options(trained, {"rate": "0.5"}) == {"epochs": 2, "rate": 0.5}
    assert short_options(trained, {"epochs": "3"}) == {"epochs": 3}


def test_what_a_check_asks_is_one_line():
    for step in (False, True):
        checks = checks_of(step)
        assert checks[0][0] == "load"
        assert len(dict(checks)) == len(checks) > 3
        for name, asked in checks:
            assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)
            assert asked.endswith(".")
            assert "`" not in asked


def test_a_step_is_judged():
    from carvana_ens.registry import load_step

    largest = load_step("largest")[0]
    assert {v.check: v.held for v in judge_step(largest, {})} == {"class": True, "options": True, "masks": True}
    bare = type("Bare", (largest,), {"apply": lambda self, mask, image: mask[:0]})
    verdicts = {v.check: v for v in judge_step(bare, {})}
    assert not verdicts["class"].held
    assert "no dataclass of its own" in verdicts["class"].reason
    assert "answered with bool" in verdicts["masks"].reason
