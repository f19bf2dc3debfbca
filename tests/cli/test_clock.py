"""The clock set back, or on, by a year in the middle of the work: nothing is lost, nothing lies, order stays order.

Durations and limits are by clocks that nobody sets; what is compared by time of day is found here.
"""

from __future__ import annotations

import json
import os
import time
from datetime import datetime, timedelta

import pytest

from carvana_ens import open_store
from carvana_ens.project import Project
from carvana_ens.verbs.costs import seconds_by_member
from carvana_ens.verbs.runs import recorded

YEAR = 365 * 24 * 3600
JUMPS = [-YEAR, YEAR] if os.environ.get("CARVANA_ENS_STRESS") else [-YEAR]
SHIFTED = """
import datetime, os, time

now, nanoseconds, Real = time.time, time.time_ns, datetime.datetime

def shift():
    try:
        with open(os.environ["CLOCK_SHIFT"]) as file:
            return int(file.read() or 0)
    except OSError:
        return 0

class Kind(type):
    def __instancecheck__(self, found):
        return isinstance(found, Real)

class Shifted(Real, metaclass=Kind):
    @classmethod
    def now(cls, tz=None):
        return Real.fromtimestamp(time.time(), tz)

time.time = lambda: now() + shift()
time.time_ns = lambda: nanoseconds() + shift() * 10**9
datetime.datetime = Shifted
"""
"""A sitecustomize: every clock of Python that can be set is off by as many seconds as a file says."""


@pytest.fixture
def clock(project, tmp_path_factory, monkeypatch):
    """Processes of the project see a clock that is set by calling this."""
    folder = tmp_path_factory.mktemp("clock")
    (folder / "sitecustomize.py").write_text(SHIFTED)
    monkeypatch.setenv("CLOCK_SHIFT", str(folder / "shift"))
    monkeypatch.setenv("PYTHONPATH", str(folder))

    def put(seconds):
        (folder / "new").write_text(str(seconds))
        (folder / "new").replace(folder / "shift")

    return put


def ran(world, *words, until=lambda: True, then=lambda: None):
    """A command in a process, in which something happens once something is so."""
    process, end = world.process("--project", world.cars, *words), time.monotonic() + 300
    while not until() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    assert process.poll() is None or words[0] != "predict"
    then()
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, (out, err)


def records(world, verb):
    """Of a verb, in the order of their names, and their names."""
    paths = sorted((world.cars / "runs").glob(f"*-{verb}.json"))
    return [json.loads(path.read_text()) for path in paths], [path.name for path in paths]


@pytest.mark.slow
@pytest.mark.parametrize("jump", JUMPS)
def test_a_clock_that_jumps_in_the_middle_of_a_day(project, clock, jump):
    project.did("add-model", "bright-cut", "--name", "one", "--set", "pause=0.1")
    store = project.store("one", "test")
    ran(
        project,
        "predict",
        until=lambda: len(list(store.glob("prob/c/*/0/0"))) >= 2,
        then=lambda: clock(jump),
    )
    ran(project, "predict", "--split", "test", "--fresh")
    (first, second, third), names = records(project, "predict")
    assert [record["split"] for record in (first, second, third)] == ["oof", "test", "test"]
    begun = [datetime.fromisoformat(record["started"]) for record in (first, second, third)]
    off = [moment - begun[0] for moment in begun[1:]]
    assert abs(off[0]) < timedelta(hours=1)
    assert abs(off[1] - timedelta(seconds=jump)) < timedelta(hours=1)  # or the clock did not jump
    assert all(0.1 < record["seconds"] < 200 for record in (first, second, third))
    assert seconds_by_member(Project(project.cars)) == {"one": third["seconds"] / third["images"]}
    clock(-3 * jump)
    ran(project, "pack")
    ran(project, "tune")
    ran(project, "blend", "--weights", "tuned", "-o", project.root / "jumped.csv")
    assert all(record["seconds"] >= 0 for verb in ("pack", "tune", "blend") for record in records(project, verb)[0])
    clock(0)
    assert "8 right, 0 missing, 0 damaged" in project.did("verify").out
    assert records(project, "predict")[1] == names
    whole = open_store(store).fingerprint()
    tuned = json.loads((project.cars / "tuning.json").read_text())
    for path in ("stores", "cache"):
        (project.cars / path).rename(project.root / path)
    project.did("predict")
    project.did("tune")
    project.did("blend", "--weights", "tuned", "-o", project.root / "undisturbed.csv")
    assert open_store(store).fingerprint() == whole
    assert json.loads((project.cars / "tuning.json").read_text()) == tuned
    assert (project.root / "jumped.csv").read_bytes() == (project.root / "undisturbed.csv").read_bytes()


def test_runs_that_end_at_one_time_or_before_the_last_one_are_all_kept_in_order(project, monkeypatch):
    class Stopped(datetime):
        when = datetime.fromisoformat("2030-01-01T00:00:00+00:00")

        @classmethod
        def now(cls, tz=None):
            return cls.when.astimezone(tz)

    monkeypatch.setattr("carvana_ens.verbs.runs.datetime", Stopped)
    for number, year in enumerate((2030, 2030, 2029, 2030, 2031)):
        Stopped.when = Stopped.when.replace(year=year)
        with recorded(Project(project.cars), "predict", number=number):
            pass
    found, names = records(project, "predict")
    assert [record["number"] for record in found] == [0, 1, 2, 3, 4]
    assert [name.partition("-")[0] for name in names] == [
        "20300101T000000000000",
        "20300101T000000000001",
        "20300101T000000000002",
        "20300101T000000000003",
        "20310101T000000000000",
    ]
