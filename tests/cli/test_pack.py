"""carvana-ens pack in a process of its own: its help, and Ctrl-C and kill in the middle of the work."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest

from carvana_ens import open_store

MANY = 150
SLOWLY = """
import time
from carvana_ens.store import packing
real = packing.encode
def slowly(codes):
    time.sleep(0.02)
    return real(codes)
packing.encode = slowly
from carvana_ens.cli import main
main()
"""


@pytest.fixture
def many(world, oracle):
    """A project with one member of many maps, of three chunks when they are packed."""

    def make():
        world.run("init", world.cars)
        rng = np.random.default_rng(0)
        for number in range(MANY):
            oracle.save_grey(world.root / "maps" / f"{number:03d}_1.png", rng.integers(0, 256, (40, 60), np.uint8))
        world.did("import", "net", "--split", "test", "--from", world.root / "maps")

    world.kept("many to pack", make)
    return world


def slowly(world, *words):
    """The command line in a process that packs slowly."""
    return world.process("--project", world.cars, *words, script=SLOWLY)


def chunks(store):
    return sorted(path.name for path in (store / "prob").glob("c.*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("threads", ["1", "3"])
def test_a_stop_leaves_a_whole_store_and_the_next_packing_goes_on(many, number, threads):
    store = many.store("net", "test")
    fingerprint = open_store(store).fingerprint()
    process, until = slowly(many, "pack", "--threads", threads), time.monotonic() + 240
    while not chunks(store) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert out == ""
    if number == signal.SIGINT:
        assert process.returncode == 130
        lines = [line for line in err.splitlines() if line]
        assert lines == ["stopped: what is finished is kept; the same command goes on from there"]
        assert [path.name for path in (store / "prob").iterdir() if path.name.startswith(".")] == []
    else:
        assert process.returncode == -signal.SIGKILL
    left = chunks(store)
    assert left[:1] == ["c.0.0.0"]
    assert len(left) < 3
    stopped = open_store(store)
    assert stopped.packed is None
    assert stopped.fingerprint() == fingerprint
    assert f"{MANY} right, 0 missing, 0 damaged" in many.did("verify").out
    kept = (store / "prob" / "c.0.0.0").stat().st_mtime_ns
    many.did("blend", "-o", many.root / "plain.csv")
    assert f"{MANY} maps packed" in many.did("pack").out
    assert (store / "prob" / "c.0.0.0").stat().st_mtime_ns == kept
    assert open_store(store).fingerprint() == fingerprint
    assert sorted(path.name for path in (store / "prob").iterdir()) == ["c.0.0.0", "c.1.0.0", "c.2.0.0", "zarr.json"]
    many.did("blend", "-o", many.root / "packed.csv")
    assert (many.root / "packed.csv").read_bytes() == (many.root / "plain.csv").read_bytes()


def test_two_packings_are_kept_apart(many):
    store = many.store("net", "test")
    process, until = slowly(many, "pack"), time.monotonic() + 240
    while not chunks(store) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    told = many.do("pack").error
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert f"{store} is being written by process {process.pid} on " in told
    many.did("pack")


def test_the_help_says_what_it_is_for(run):
    text = " ".join(run("pack", "--help").out.split())
    for said in ("Blends of packed stores read a small part of each map", "Any zarr-python", "export --to zarr"):
        assert said in text
