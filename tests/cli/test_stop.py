"""Ctrl-C and kill in the middle of work, in processes of their own: what is done is kept, the end is the same."""

from __future__ import annotations

import shutil
import signal
import time

import numpy as np
import pytest

from carvana_ens import open_store

MANY = 150


@pytest.fixture
def many(world, oracle):
    """A project without photos, and a folder of many maps."""

    def make():
        world.run("init", world.cars)
        rng = np.random.default_rng(0)
        for number in range(MANY):
            oracle.save_grey(world.root / "maps" / f"{number:03d}_1.png", rng.integers(0, 256, (40, 60), np.uint8))

    world.kept("many", make)
    return world


@pytest.fixture
def slow(project):
    """A project with a model that waits at each photo, and enough test photos for three rounds of reading."""
    project.did("add-model", "bright-cut", "--set", "pause=0.05")
    for number in range(4, 20):
        (project.test / f"b22_{number:02d}.jpg").write_bytes((project.test / "b22_01.jpg").read_bytes())
    return project


def written(store):
    return sum(1 for _ in store.glob("prob/c/*/0/0"))


def stop(process, store, after, signal_number):
    """Ends the process once ``after`` maps are written, and some are done; its exit code and what it said."""
    until = time.monotonic() + 300
    begun = store / "done" / "c" / "0"
    while (written(store) < after or not begun.exists()) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(signal_number)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def check_interrupted(result):
    code, out, err = result
    assert code == 130
    assert out == ""
    lines = [line for line in err.splitlines() if line]
    assert lines == ["stopped: what is finished is kept; the same command goes on from there"]


SLOWLY = """
import time
from carvana_ens.store.hand import StoreHand
real = StoreHand.put
def slowly(*args):
    time.sleep(0.04)
    return real(*args)
StoreHand.put = slowly
from carvana_ens.cli import main
main()
"""
IMPORT = ("import", "net", "--split", "test", "--from")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_import(many, number):
    words = (*IMPORT, many.root / "maps")
    store = many.store("net", "test")
    result = stop(many.process("--project", many.cars, *words, "--threads", "2", script=SLOWLY), store, 20, number)
    if number == signal.SIGINT:
        check_interrupted(result)
    else:
        assert result[0] == -signal.SIGKILL
    missing = len(open_store(store).missing())
    assert 0 < missing < MANY
    if number == signal.SIGKILL:  # as a stop between chunk and record leaves it: a chunk torn or of other content
        left = open_store(store)
        place = store / "prob" / "c" / str(left.index[left.missing()[-1]]) / "0" / "0"
        place.parent.mkdir(parents=True)
        place.write_bytes(b"torn")
        assert many.do("blend", "-o", many.root / "x.csv").code == 1
    assert f"{missing} maps imported, {MANY} in all" in many.did(*words).out
    resumed = open_store(store).fingerprint()
    assert many.did("verify").out.endswith(f"{MANY} right, 0 missing, 0 damaged\n")
    many.did(*words, "--fresh")
    assert open_store(store).fingerprint() == resumed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_predict(slow, number):
    words = ("predict", "--split", "test")
    store = slow.store("bright-cut", "test")
    result = stop(slow.process("--project", slow.cars, *words), store, 3, number)
    if number == signal.SIGINT:
        check_interrupted(result)
    else:
        assert result[0] == -signal.SIGKILL
    before = open_store(store)
    assert 0 < len(before.missing()) < len(before.ids)
    slow.calls()
    slow.did(*words)
    asked = [image_id for call in slow.calls("predict") for image_id in call[2:]]
    assert asked == before.missing()
    resumed = open_store(store).fingerprint()
    slow.did(*words, "--fresh")
    assert open_store(store).fingerprint() == resumed


LONG = {
    "predict": ("carvana_ens.store.hand:StoreHand.put", ["predict", "--split", "oof"]),
    "pack": ("carvana_ens.store.packing:encode", ["pack", "--threads", "2"]),
    "tune": ("carvana_ens.ensemble.truth:mask_bits", ["tune", "--threads", "2"]),
    "blend": ("carvana_ens.ensemble.blending:Blend.rle", ["blend", "--split", "oof", "--threads", "2", "-o"]),
}


def results(world, output):
    """All that the verbs write for the user."""
    store = open_store(world.store("bright-cut", "oof"))
    tuning = world.cars / "tuning.json"
    return (
        store.fingerprint(),
        store.packed is not None,
        tuning.read_text() if tuning.exists() else "",
        output.read_bytes() if output.exists() else b"",
    )


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("verb", LONG)
def test_the_first_stop_lets_an_image_end_and_the_second_does_not(project, verb, times):
    project.did("add-model", "bright-cut")
    output = project.root / "out.csv"
    words = {name: [*more, *([output] if name == "blend" else [])] for name, (_, more) in LONG.items()}
    earlier = list(LONG)[: list(LONG).index(verb)]
    for name in earlier:
        project.did(*words[name])
    mark = project.root / "mark"
    process = project.held(LONG[verb][0], mark, 900, *words[verb])
    until = time.monotonic() + 300
    while not mark.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None, "the image was not waited for"
    if times == 1:
        mark.unlink()
    until = time.monotonic() + 300
    while times == 2 and process.poll() is None and time.monotonic() < until:
        process.send_signal(signal.SIGINT)  # the system may have made one of the first two
        time.sleep(0.5)
    out, err = process.communicate(timeout=300)
    code = process.returncode
    assert (code, out) == (130, "")
    at_once = " at once" * (times == 2)
    said = [line for line in err.splitlines() if line]
    assert said == [f"stopped{at_once}: what is finished is kept; the same command goes on from there"]
    if verb == "predict":
        store = open_store(project.store("bright-cut", "oof"))
        done = [image_id for image_id in store.ids if image_id not in store.missing()]
        assert [store.damage(image_id) for image_id in done] == [None] * len(done)
        assert len(done) == 2 if times == 2 else len(done) >= 3  # with the image that was at hand
    project.did(*words[verb])
    found = results(project, output)
    for place in ("stores", "cache"):
        shutil.rmtree(project.cars / place)
    output.unlink(missing_ok=True)
    for name in [*earlier, verb]:
        project.did(*words[name])
    assert results(project, output) == found


def test_two_writers_are_kept_apart(slow):
    words = ("--project", slow.cars, "predict", "--split", "test")
    process = slow.process(*words)
    store = slow.store("bright-cut", "test")
    until = time.monotonic() + 300
    while written(store) < 1 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    told = slow.run(*words).error
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    assert str(store) in told
    assert f"process {process.pid} on " in told
    slow.did("predict", "--split", "test")
