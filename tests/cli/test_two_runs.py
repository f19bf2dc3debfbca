"""Two processes at one thing: the second is refused in a line, or both do what they were asked for, whole."""

from __future__ import annotations

import shutil
import time

import pytest

from carvana_ens import open_store


@pytest.fixture
def during(project):
    """Runs a command to its end while another, in a process of its own, is in the middle of the same work."""

    def run(place, first, second):
        mark = project.root / "mark"
        process, until = project.held(place, mark, 400, *first), time.monotonic() + 300
        while not mark.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        other = project.process("--project", project.cars, *second)
        told = other.communicate(timeout=300)
        assert process.poll() is None, "the first had ended before the second did"
        mark.unlink()
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, (out, err)
        return other.returncode, *told, process.pid

    return run


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["predict", "pack"])
def test_the_second_is_told_who_is_at_work_and_disturbs_nothing(project, during, verb):
    project.did("add-model", "bright-cut", "--name", "one")
    project.did("predict", *["--split", "test"] * (verb == "predict"))
    undisturbed = open_store(project.store("one", "test")).fingerprint()
    place, words = "carvana_ens.store.packing:encode", ["pack", "--split", "test"]
    if verb == "predict":
        shutil.rmtree(project.cars / "stores")
        place, words = "carvana_ens.store.hand:StoreHand.put", ["predict", "--split", "test"]
    store = project.store("one", "test")
    code, out, err, pid = during(place, words, words)
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith(f"error: {store} is being written by process {pid} on ")
    assert line.endswith(": wait for it or stop it")
    whole = open_store(store)
    assert whole.fingerprint() == undisturbed
    assert (whole.packed is not None) == (verb == "pack")
    assert "6 right, 0 missing, 0 damaged" in project.did("verify", "--gc").out
    if verb == "predict":
        asked = [image_id for call in project.calls("predict") for image_id in call[2:]]
        assert sorted(asked) == sorted([*whole.ids, *whole.ids])  # once for the store that was removed, once now


@pytest.mark.slow
def test_two_blends_into_one_file_and_two_tunes(project, during):
    for name, cut in (("one", 110), ("two", 125)):
        project.did("add-model", "bright-cut", "--name", name, "--set", f"cut={cut}")
    project.did("predict")
    output, alone = project.root / "out.csv", project.root / "alone.csv"
    first, second = ("one=2,two=1", "one=1,two=2")
    place = "carvana_ens.ensemble.blending:Blend.rle"
    told = during(
        place,
        ["blend", "--weights", first, "-o", output, "--threads", "2"],
        ["blend", "--weights", second, "-o", output],
    )
    assert told[0] == 0, told
    project.did("blend", "--weights", first, "-o", alone)  # it ended last
    assert output.read_bytes() == alone.read_bytes()
    place = "carvana_ens.ensemble.truth:mask_bits"
    told = during(place, ["tune", "--threads", "2"], ["tune"])
    assert told[0] == 0, told
    tuned = (project.cars / "tuning.json").read_text()
    shutil.rmtree(project.cars / "cache")
    project.did("tune")
    assert (project.cars / "tuning.json").read_text() == tuned
    assert [path for path in project.root.rglob("*") if ".partial" in path.name] == []
