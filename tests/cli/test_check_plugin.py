"""carvana-ens check-plugin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from carvana_ens.cli.app import app

PLANTED = Path(__file__).parents[1] / "testing" / "planted.py"


@pytest.fixture
def run(fake_site):
    """Runs check-plugin beside a good model (with an option) and one whose maps are stretched."""
    entries = {"loud": "planted:Loud", "stretched": "planted:Stretched"}
    fake_site.add("planted", entries, "2.3", planted=PLANTED.read_text().replace("import jax", "#"))
    return lambda *words: CliRunner().invoke(app, ["check-plugin", *words], standalone_mode=False)


def test_a_table_of_what_held(run):
    done = run("loud", "--set", "gain=0.5")
    assert done.return_value == 0
    title, header, *rows = done.stdout.splitlines()
    assert title == "model loud of planted 2.3"
    assert header.split()[0] == "CHECK"
    assert [row.split()[:2] for row in rows[:2]] == [["load", "held"], ["class", "held"]]
    assert "fit           not tried  not trainable" in rows
    assert len(rows) == 13


def test_a_failed_check_is_exit_code_1(run):
    done = run("stretched")
    assert done.return_value == 1
    assert "calibration   FAILED     every map reaches from 0 to 1" in done.stdout


def test_json(run):
    done = run("stretched", "--json")
    assert done.return_value == 1
    document = json.loads(done.stdout)
    assert document["held"] is False
    assert [check["check"] for check in document["checks"] if check["held"] is False] == ["calibration"]
    assert document["checks"][-1]["about"] == (
        "Maps are not stretched to one range photo by photo, and logits are no probabilities."
    )
