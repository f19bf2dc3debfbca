"""Kill -9 at random moments of predict, pack and blend: resumed, everything is as if nothing had happened."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time

import pytest

from carvana_ens import CarvanaEnsError, open_store

KILLS = 200 if os.environ.get("CARVANA_ENS_STRESS") else 8
MEMBERS = ("one", "two")
VERBS = (("predict", "--split", "test"), ("pack",), ("blend", "--weights", "one=2,two=1", "-o"))


@pytest.fixture
def slow(project):
    """Two members that wait at each photo, 22 test photos."""
    for number in range(4, 20):
        (project.test / f"b22_{number:02d}.jpg").write_bytes((project.test / "b22_01.jpg").read_bytes())
    for name, cut in zip(MEMBERS, (110, 125), strict=True):
        project.did("add-model", "bright-cut", "--name", name, "--set", "pause=0.03", "--set", f"cut={cut}")
    return project


def words(world, verb):
    """The arguments of a verb's command."""
    return ("--project", world.cars, *verb, *([world.root / "out.csv"] if verb[0] == "blend" else []))


def state(world):
    """What a user would compare: each store with its provenance, and the text."""
    found = {}
    for name in MEMBERS:
        store = open_store(world.store(name, "test"))
        assert [store.damage(image_id) for image_id in store.ids] == [None] * len(store.ids)
        found[name] = (store.fingerprint(), store.provenance, store.packed is not None)
    return found, (world.root / "out.csv").read_bytes()


def done_maps(world, name):
    """Ids whose done record is written; none where the store is not there yet."""
    try:
        store = open_store(world.store(name, "test"))
    except CarvanaEnsError:
        return set()
    return set(store.ids) - set(store.missing())


def anew(world):
    shutil.rmtree(world.cars / "stores")
    (world.root / "out.csv").unlink()


@pytest.mark.slow
def test_killed_again_and_again(slow):
    times = []
    for verb in VERBS:
        start = time.monotonic()
        out, err = (process := slow.process(*words(slow, verb))).communicate(timeout=120)
        assert process.returncode == 0, (out, err)
        times.append(time.monotonic() - start)
    undisturbed = state(slow)
    anew(slow)
    slow.calls()
    draw, kills, inside = random.Random(11), 0, 0
    while kills < KILLS:
        for verb, seconds in zip(VERBS, times, strict=True):
            while True:
                known = {name: done_maps(slow, name) for name in MEMBERS}
                process = slow.process(*words(slow, verb))
                try:
                    process.wait(draw.uniform(0.5, 1.1) * seconds if kills < KILLS else 120)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
                out, err = process.communicate(timeout=120)
                for call in slow.calls("predict"):
                    assert known[call[1]].isdisjoint(call[2:]), "a map that was done is predicted again"
                if process.returncode == 0:
                    break
                assert process.returncode == -signal.SIGKILL, (out, err)
                inside += {name: done_maps(slow, name) for name in MEMBERS} != known
                output = slow.root / "out.csv"
                assert not output.exists() or output.read_bytes() == undisturbed[1]
        assert state(slow) == undisturbed
        slow.did("verify", "--gc")
        left = [path for path in slow.cars.rglob("*") if ".partial" in path.name]
        assert left == []
        if kills < KILLS:
            anew(slow)
    assert inside > 0  # or no kill came while maps were written
