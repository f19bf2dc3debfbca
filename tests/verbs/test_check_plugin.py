"""check-plugin: what the checks say, in a process that a plugin may end."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from carvana_ens.errors import PluginError, UsageError
from carvana_ens.types import Size
from carvana_ens.verbs.check_plugin import check_plugin

PLANTED = Path(__file__).parents[1] / "testing" / "planted.py"
NAMES = ("Good", "Loud", "Leaving", "Stretched", "Trained")
STEP = '''
from dataclasses import dataclass
from carvana_ens import Step, option

@dataclass(frozen=True)
class Rim(Step):
    """Clears the rim."""

    name = "rim"
    width: int = option(1, "of the rim")

    def apply(self, mask, image):
        mask = mask.copy()
        mask[: self.width] = False
        return mask if self.width < 5 else mask.astype(int)
'''


@pytest.fixture
def planted(fake_site):
    """A package of models with one fault each, a model that does not load, and a step."""
    text = PLANTED.read_text().replace("import jax", "#")
    entries = {name.lower(): f"planted:{name}" for name in NAMES}
    fake_site.add("planted", {**entries, "lost": "planted:Lost"}, "2.3", planted=text)
    fake_site.add("rim", b"[carvana_ens.postprocess]\nrim = rim_step:Rim\n", rim_step=STEP)


def held(found):
    return {check.check: check.held for check in found.checks}


def test_a_plugin_that_keeps_the_contract_and_prints(planted):
    seen = []
    found = check_plugin("loud", options={"gain": "0.5"}, size=Size(32, 48), on_check=seen.append)
    assert (found.name, found.kind, found.distribution, found.version) == ("loud", "model", "planted", "2.3")
    assert found.held
    assert found.options == {"gain": 0.5}
    assert held(found) == {**dict.fromkeys(held(found), True), "fit": None}
    assert seen == found.checks
    assert len(seen) == 13
    assert all(check.about for check in seen)


def test_a_fault_is_told(planted):
    found = check_plugin("stretched")
    assert not found.held
    failed = {check.check: check.reason for check in found.checks if check.held is False}
    assert failed.keys() == {"calibration"}
    assert failed["calibration"].startswith("every map reaches from 0 to 1")


def test_training_and_a_checkpoint(planted, tmp_path):
    assert held(check_plugin("trained"))["fit"]
    (tmp_path / "mine.json").write_text("{}")
    found = check_plugin("trained", checkpoint=tmp_path / "mine.json")
    assert found.held
    assert held(found)["fit"] is None
    with pytest.raises(UsageError, match=r"yours\.json is no file"):
        check_plugin("trained", checkpoint=tmp_path / "yours.json")


def test_a_plugin_that_ends_python(planted):
    found = check_plugin("leaving")
    verdicts = {check.check: check for check in found.checks}
    assert verdicts["answers"].held is False
    assert verdicts["answers"].reason == "Python ended with exit code 7 meanwhile: see what it says above"
    assert verdicts["parameters"].held
    assert verdicts["repeats"].held is None
    assert verdicts["calibration"].reason == "an earlier one put an end to the checks"


def test_a_plugin_that_does_not_come_back(fake_site, monkeypatch):
    source = "import time\nfrom carvana_ens import Model\nclass Slow(Model):\n    def predict(self, batch): ...\n"
    source += "    def __init__(self, config): time.sleep(600)\n"
    fake_site.add("slow", {"slow": "slow_model:Slow"}, slow_model=source)
    timers = []

    class Timer(threading.Timer):
        """Ends when the test says so."""

        def start(self):
            timers.append(self)

    monkeypatch.setattr(threading, "Timer", Timer)
    found = check_plugin(
        "slow", seconds=7, on_check=lambda done: timers[0].function() if done.check == "recipes" else None
    )
    verdicts = {check.check: check for check in found.checks}
    assert timers[0].interval == 7
    assert verdicts["class"].held
    assert verdicts["config"].held is False
    assert "was stopped after 7 s" in verdicts["config"].reason
    assert verdicts["answers"].held is None


def test_a_plugin_that_cannot_be_imported(planted):
    found = check_plugin("lost")
    assert found.checks[0].held is False
    assert "module 'planted' has no attribute 'Lost'" in found.checks[0].reason
    assert {check.held for check in found.checks[1:]} == {None}


def test_a_step(planted):
    found = check_plugin("rim", options={"width": "3"})
    assert (found.kind, found.held) == ("step", True)
    assert held(found) == {"load": True, "class": True, "options": True, "masks": True}
    assert "answered with int64" in check_plugin("rim", options={"width": "5"}).checks[-1].reason
    with pytest.raises(UsageError, match="rim is a step"):
        check_plugin("rim", size=Size(8, 8))


def test_what_cannot_be_meant(planted):
    with pytest.raises(PluginError, match="model 'louder' is unknown: did you mean 'loud'"):
        check_plugin("louder")
    with pytest.raises(UsageError, match="this model has no option 'gian': did you mean 'gain'"):
        check_plugin("loud", options={"gian": "1"})
    with pytest.raises(UsageError, match="step rim: it has no option 'wide'"):
        check_plugin("rim", options={"wide": "1"})
