"""Kill -9 at random moments of predict, pack and blend: resumed, everything is as if nothing had happened."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import carvana_ens
from carvana_ens import open_store

KILLS, SHARE = (200, 5) if os.environ.get("CARVANA_ENS_STRESS") else (9, 3)
"""In all, and before a verb may end."""
PHOTOS = 70
"""Two chunks of a packed store."""
MEMBERS = ("one", "two")
VERBS = (("predict", "--split", "test"), ("pack",), ("blend", "--weights", "one=2,two=1", "-o"))
OLD = b"img,rle_mask\nwhat was there before\n"

COUNTED = """
import os, sys, time
root, log, hold = sys.argv.pop(1), os.open(sys.argv.pop(1), os.O_WRONLY), sys.argv.pop(1).split(",")
moment, pause, number = int(hold[0]) or 10**9, float(hold[1]), 0

def hook(event, args):
    global number
    if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir") and str(args[0]).startswith(root):
        number += 1
        os.write(log, b".")
        if number >= moment:
            time.sleep(pause)

sys.addaudithook(hook)
from carvana_ens.cli import main
main()
"""
"""The command line, which counts what it does with files of the test's folder, and waits at one of these moments."""


@pytest.fixture
def slow(project):
    """Two members that wait at each photo, and a submission from before."""
    for number in range(PHOTOS - 6):
        shutil.copy(project.test / "b22_01.jpg", project.test / f"d{number:02d}_01.jpg")
    for name, cut in zip(MEMBERS, (110, 125), strict=True):
        project.did("add-model", "bright-cut", "--name", name, "--set", "pause=0.008", "--set", f"cut={cut}")
    (project.root / "out.csv").write_bytes(OLD)
    return project


def started(world, log, verb, moment=0, pause=0.0):
    """A command in a process that waits for so long before its moment-th use of a file, and each one after it."""
    log.write_bytes(b"")
    output = [world.root / "out.csv"] if verb[0] == "blend" else []
    words = (f"{world.root}/", log, f"{moment},{pause}", "--project", world.cars, *verb, *output)
    path = [str(world.site), str(Path(carvana_ens.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-c", COUNTED, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
    )


def contents(store):
    """sha256 of every file of a store by its name there."""
    files = sorted(path for path in store.rglob("*") if path.is_file())
    return {str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def state(world):
    """What a user would compare: each store with maps, records, ids, sizes and provenance, its files, and the text."""
    found = {}
    for name in MEMBERS:
        store = open_store(world.store(name, "test"))
        maps = [hashlib.sha256(store.read(image_id)).hexdigest() for image_id in store.ids]
        said = (store.ids, store.sizes, store.provenance, store.fingerprint(), store.packed is not None)
        found[name] = (maps, store.records.tolist(), said, contents(world.store(name, "test")))
    return found, (world.root / "out.csv").read_bytes()


def done_maps(world, name):
    """Ids whose done record is written, each of a map that is whole; none where the store is not there yet."""
    path = world.store(name, "test")
    if not path.exists():
        return set()
    store = open_store(path)
    done = set(store.ids) - set(store.missing())
    assert [store.damage(image_id) for image_id in done] == [None] * len(done)
    return done


def killed(process, log, moment, seconds):
    """Kills at the moment, or where that is None after so many seconds; False: the process ended before."""
    until = time.monotonic() + (120 if seconds is None else seconds)
    while process.poll() is None and time.monotonic() < until and (moment is None or log.stat().st_size < moment):
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    return process.wait(60) == -signal.SIGKILL


@pytest.mark.slow
def test_killed_again_and_again(slow, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "moments"
    seconds, moments = {}, {}
    for verb in VERBS:
        start = time.monotonic()
        out, err = (process := started(slow, log, verb)).communicate(timeout=600)
        assert process.returncode == 0, (out, err)
        seconds[verb], moments[verb] = time.monotonic() - start, log.stat().st_size
    undisturbed = state(slow)
    draw, kills, inside = random.Random(11), dict.fromkeys(VERBS, 0), 0
    while sum(kills.values()) < KILLS:
        shutil.rmtree(slow.cars / "stores")
        (slow.root / "out.csv").write_bytes(OLD)
        slow.calls()
        for verb in VERBS:
            until = min(kills[verb] + SHARE, kills[verb] + KILLS - sum(kills.values()))
            ended, first = False, True
            while not ended:
                known = {name: done_maps(slow, name) for name in MEMBERS}
                before = contents(slow.cars / "stores") if (slow.cars / "stores").exists() else {}
                if kills[verb] >= until:
                    process = started(slow, log, verb)
                    process.wait(600)
                elif first or draw.random() < 0.6:  # before a file is used, or soon after; the first time for certain
                    moment = draw.randint(1, moments[verb] * (8 if first else 11) // 10)
                    process = started(slow, log, verb, moment, 120.0 if first else draw.choice((0.0, 0.0002, 120.0)))
                    kills[verb] += killed(process, log, moment, None)
                else:  # at a moment of the clock
                    process = started(slow, log, verb)
                    kills[verb] += killed(process, log, None, draw.uniform(0, 1.1) * seconds[verb])
                first = False
                out, err = process.communicate(timeout=300)
                for call in slow.calls("predict"):
                    assert known[call[1]].isdisjoint(call[2:]), "a map that was done is predicted again"
                ended = process.returncode == 0
                assert ended or process.returncode == -signal.SIGKILL, (out, err)
                if not ended:
                    inside += (slow.cars / "stores").exists() and contents(slow.cars / "stores") != before
                    assert (slow.root / "out.csv").read_bytes() in (OLD, undisturbed[1])
        slow.did("verify", "--gc")
        assert state(slow) == undisturbed
        assert [path for path in slow.root.rglob("*") if ".partial" in path.name] == []
    assert min(kills.values()) >= KILLS // 8
    assert inside >= KILLS // 8  # or few kills came while maps were written
