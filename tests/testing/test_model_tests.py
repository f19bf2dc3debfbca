from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

MODELS = Path(__file__).with_name("tiny_models.py")
NAMES = {
    *("class_attributes", "options", "recipes", "config", "import", "parameters", "fit"),
    *("answers", "repeats", "independence", "predict_all", "calibration"),
}
SOURCE = """
import sys
sys.path.insert(0, FOLDER)
import tiny_plugin
from carvana_ens.testing import ModelTests


class Neighbours(tiny_plugin.Bright):
    def predict(self, batch):
        return super().predict(batch) * batch.images.mean(dtype="float32") / 255


class Unfit(tiny_plugin.Trained):
    calls = 0

    def fit(self, task):
        type(self).calls += 1
        raise RuntimeError(f"call {self.calls}")


class TestTrained(ModelTests):
    model = tiny_plugin.Trained
    options = {"steps": 1}


class TestBright(ModelTests):
    model = tiny_plugin.Bright


class TestNeighbours(ModelTests):
    model = Neighbours


class TestUnfit(ModelTests):
    model = Unfit


class TestUnknown(ModelTests):
    model = "no-such-model-at-all"


class TestNameless(ModelTests):
    pass
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """{class: {test: outcome}} and the output of pytest on SOURCE, in a process of its own."""
    folder = tmp_path_factory.mktemp("session")
    (folder / "tiny_plugin.py").write_text(MODELS.read_text())
    (folder / "test_mine.py").write_text(SOURCE.replace("FOLDER", repr(str(folder))))
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -v -ra -p no:cacheprovider -W error\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "test_mine.py"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
    )
    outcomes = defaultdict(dict)
    for name, test, outcome in re.findall(r"::Test(\w+)::test_(\w+) (PASSED|FAILED|SKIPPED|ERROR)", done.stdout):
        outcomes[name][test] = outcome
    return outcomes, done.stdout + done.stderr


def test_a_good_trainable_model_passes_everything(session):
    outcomes, output = session
    assert outcomes["Trained"] == dict.fromkeys(NAMES, "PASSED"), output


def test_training_is_skipped_where_there_is_none(session):
    outcomes, output = session
    assert outcomes["Bright"] == {**dict.fromkeys(NAMES, "PASSED"), "fit": "SKIPPED"}, output
    assert "Bright is not trainable" in output


def test_one_fault_fails_one_test(session):
    outcomes, output = session
    expected = {**dict.fromkeys(NAMES, "PASSED"), "fit": "SKIPPED", "independence": "FAILED"}
    assert outcomes["Neighbours"] == expected, output
    assert "Refused: model Neighbours: the map of a photo differs" in output


def test_training_that_fails_is_tried_once(session):
    outcomes, output = session
    failed = {name for name, outcome in outcomes["Unfit"].items() if outcome == "FAILED"}
    assert failed == {"fit", "answers", "repeats", "independence", "predict_all", "calibration"}, output
    assert "RuntimeError: call 1" in output
    assert "call 2" not in output


@pytest.mark.parametrize(
    ("name", "words"),
    [("Unknown", "model 'no-such-model-at-all' is unknown"), ("Nameless", "TestNameless names no model")],
)
def test_a_model_that_is_not_there_is_one_clear_error(session, name, words):
    outcomes, output = session
    assert outcomes[name] == dict.fromkeys(NAMES, "ERROR")
    assert words in output


def test_importing_it_needs_neither_pytest_nor_torch():
    code = "import sys, carvana_ens.testing; print(*{'pytest', 'torch', 'zarr', 'numba'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
