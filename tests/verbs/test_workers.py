"""Work on other processes: schedulers and workers as a user starts them, killed, hanging and given broken photos."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections import Counter

import numpy as np
import pytest
import zarr

from carvana_ens import open_store
from carvana_ens.engine.cluster import Workers
from carvana_ens.ensemble import passes
from carvana_ens.errors import StoreError
from carvana_ens.project import Project
from carvana_ens.verbs import blend as blend_verb
from carvana_ens.verbs import verify as verify_verb
from carvana_ens.verbs.tune import tune

pytest.importorskip("distributed", reason="needs the extra [dist]")
SECONDS = 120  # for what must happen; nothing here waits for time to pass
STRESS = bool(os.environ.get("CARVANA_ENS_STRESS"))
MANY = 64
"""Workers of this machine that tune, blend and verify in the long form."""


@pytest.fixture
def troubled(project, plugins, oracle):
    """A project of 42 test photos. checksums: of the maps that the model ``trouble`` makes of them in one process."""

    def made():
        for number in range(4, 40):
            oracle.save_photo(project.test, f"b22_{number:02d}")
        settings = (project.cars / "ensemble.toml").read_text()
        project.did("add-model", "trouble")
        project.did("predict", "--split", "test")
        found = checksums(project.store("trouble", "test"))
        (project.cars / "ensemble.toml").write_text(settings)
        for name in ("stores", "runs"):
            shutil.rmtree(project.cars / name)
        return found

    project.checksums = project.kept("troubled", made)
    return project


@pytest.fixture
def three(project, plugins, monkeypatch):
    """A project with maps of three members, and tasks of few images, so that each worker gets some."""
    members = ("a", 1.0, 0, 40), ("b", 2.0, 2, 60), ("c", 1.5, -1, 90)
    project.kept("three for workers", lambda: project.imported(*members))
    monkeypatch.setattr(passes, "_IMAGES", 1)
    monkeypatch.setattr(blend_verb, "_TASK", 1)
    monkeypatch.setattr(verify_verb, "_TASK", 1)
    return project


def ended(process):
    """Code, output and error lines of a command."""
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err.splitlines()


def checksums(store):
    """Of all maps, as they are recorded."""
    return open_store(store).records.tolist()


def forget(store, numbers):
    """Takes done records away, as if the maps had not been made yet."""
    zarr.open_group(store, mode="r+")["done"][np.array(numbers)] = 0


def outcome(world, *where):
    """What tune, blend and verify say and write."""
    for path in (world.cars / "cache").glob("searches-*"):
        path.unlink()
    shutil.rmtree(world.root / "masks", ignore_errors=True)
    output = ("-o", world.root / "out.csv", "--masks", world.root / "masks")
    mended = ("--weights", "a=2,b=1", "--threshold", "0.45", "--postprocess", "emptied:row=20,kept-by:member=c")
    said = [
        world.did("tune", "--spaces", "probability,rank", "--cut", "best", "--postprocess", "largest", *where),
        world.did("blend", "--weights", "tuned", "-o", world.root / "tuned.csv.gz", *where),
        world.did("blend", *mended, *output, *where),
        world.did("verify", *where),
    ]
    files = [world.cars / "tuning.json", world.root / "tuned.csv.gz", world.root / "out.csv"]
    files += sorted((world.root / "masks").iterdir())
    return [done.out for done in said], {path.name: path.read_bytes() for path in files}


@pytest.mark.slow  # the first one: each worker that there is would load torch
def test_networks_of_folds(project, farm):
    torch = pytest.importorskip("torch")
    project.did("add-model", "net-everywhere", "--tta", "hflip", "--set", "epochs=1", "--set", "rate=0.03")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as Dask's workers have it, unless told otherwise
    try:
        project.did("train")
        stores = {split: project.store("net-everywhere", split) for split in ("oof", "test")}
        expected = {}
        for where in ((), ("--scheduler", farm(1 + STRESS).address)):
            done = project.did("predict", "--device", "cpu", *where)
            assert "oof.zarr: 8 maps predicted, 8 in all" in done.out
            for split, store in stores.items():
                found = open_store(store).fingerprint()
                assert expected.setdefault(split, found) == found
                shutil.rmtree(store)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_nothing_depends_on_the_number_of_workers(three, farm):
    expected = outcome(three)
    assert len(expected[1]) == 9
    for workers in (1, 2, 3):
        assert outcome(three, "--scheduler", farm(workers, exactly=True).address) == expected
    if STRESS:
        assert outcome(three, "--workers", MANY) == expected


@pytest.mark.slow
def test_a_worker_killed_while_tune_reads(three, farm):
    three.did("tune")
    before = (three.cars / "tuning.json").read_bytes()
    here = farm(3)
    passed = Counter()

    def killing(items, total, what):
        for item in items:
            if what == "disputed pixels" and not passed[what]:
                here.kill(here.workers[0])
            passed[what, total] += 1
            passed[what] += 1
            yield item

    (three.cars / "cache" / "searches-probability.json").unlink()
    tune(Project(three.cars), workers=Workers(scheduler=here.address), track=killing)
    assert len(here.workers) == 2
    assert passed["disputed pixels", 8] == 8  # progress is shown as it is made elsewhere
    assert (three.cars / "tuning.json").read_bytes() == before


@pytest.mark.slow
def test_damaged_maps_are_refused_as_without_workers(three, farm):
    words = ("blend", "--weights", "a=2,b=1", "-o", three.root / "x.csv")
    for split in ("oof", "test"):
        chunk = three.store("b", split) / "prob" / "c" / "3" / "0" / "0"
        chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    there = ("--scheduler", farm(2).address)
    for command in (("tune",), words):
        told = three.do(*command).error
        assert three.do(*command, *there).error == told
        process = three.process("--project", three.cars, *command, *there)
        assert ended(process) == (1, "", [f"error: {told}"])  # nothing of Dask's own on the terminal
    assert not (three.root / "x.csv").exists()
    assert not (three.cars / "tuning.json").exists()
    found = three.do("verify")
    assert found.code == 1
    assert "5 right, 0 missing, 1 damaged" in found.out
    assert three.do("verify", *there) == found


@pytest.mark.slow
def test_maps_do_not_depend_on_workers_or_stops(troubled, farm):
    troubled.did("add-model", "together")
    troubled.did("add-model", "group-cut")
    troubled.did("predict", "--split", "test")
    stores = [troubled.store(name, "test") for name in ("together", "group-cut")]
    expected = [open_store(store).fingerprint() for store in stores]
    words = ("--project", troubled.cars, "predict", "--split", "test")
    address = farm(3).address
    for where in (("--scheduler", address), ("--workers", "2"))[: 1 + STRESS]:
        for store in stores:
            shutil.rmtree(store)
        code, out, err = ended(troubled.process(*words, *where))
        assert (code, err) == (0, [])  # nothing of Dask's own on the terminal
        assert out.count("42 maps predicted, 42 in all\n") == 2
        assert [open_store(store).fingerprint() for store in stores] == expected
    forget(stores[0], [1, 6, 7, 30])
    before = {path: path.stat().st_mtime_ns for path in stores[0].glob("prob/c/*/0/0")}
    done = troubled.did("predict", "together", "--split", "test", "--scheduler", address)
    assert "test.zarr: 4 maps predicted, 42 in all" in done.out
    assert open_store(stores[0]).fingerprint() == expected[0]
    again = {int(path.parts[-3]) for path, written in before.items() if path.stat().st_mtime_ns != written}
    assert again == {1, 6, 7, 30}  # what was there is not written again
    assert troubled.did("verify", "together").out.count("42 right, 0 missing, 0 damaged") == 1


@pytest.mark.slow
def test_a_killed_worker_a_hanging_one_and_a_broken_photo(troubled, farm, wait_for):
    words = ("--set", "how=sleep", "--set", "at=b22_20", "--set", f"marks={troubled.root}", "--set", "pause=0.05")
    troubled.did("add-model", "trouble", *words)
    broken = troubled.test / "b22_30.jpg"
    broken.write_bytes(broken.read_bytes()[:-900])
    here = farm(3)
    store = troubled.store("trouble", "test")
    command = ("predict", "--split", "test", "--scheduler", here.address, "--worker-limit", "4")
    process = troubled.process("--project", troubled.cars, *command)
    wait_for(lambda: list(store.glob("prob/c/*/0/0")))
    here.kill(here.workers[0])
    code, out, err = ended(process)
    assert code == 3
    assert "test.zarr: 41 maps predicted, 42 in all, 1 missing" in out
    assert len(err) == 1
    assert err[0].startswith("failed: b22_30 (trouble, test): ")
    assert str(broken) in err[0]
    assert open_store(store).missing() == ["b22_30"]
    assert len(list(troubled.root.glob("trouble-*"))) >= 2  # it did hang, and was tried again
    (run,) = (json.loads(path.read_text()) for path in (troubled.cars / "runs").glob("*-predict.json"))
    assert (run["images"], run["failed"]) == (41, ["b22_30"])
    assert run["worker_seconds"] >= 0.05 * 41
    assert troubled.did("verify").out.endswith("41 right, 1 missing, 0 damaged\n")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "raise"])
def test_a_photo_that_ends_every_worker_is_named(troubled, farm, how):
    words = ("--set", f"how={how}", "--set", "at=b22_20", "--set", f"marks={troubled.root}", "--set", "times=0")
    troubled.did("add-model", "trouble", *words)
    where = ("--workers", "2") if how == "kill" else ("--scheduler", farm(2).address)
    done = troubled.do("predict", "--split", "test", *where)
    assert done.code == 3
    assert "test.zarr: 41 maps predicted, 42 in all, 1 missing" in done.out
    reason = {
        "kill": "predicting it ends every worker: a crash, or 1800 s without a map",
        "raise": "member trouble: model trouble cannot predict: ValueError: no such layer",
    }[how]
    (line,) = done.err.splitlines()
    assert line.startswith(f"failed: b22_20 (trouble, test): {reason}")
    assert open_store(troubled.store("trouble", "test")).missing() == ["b22_20"]
    if how == "kill":
        assert len(list(troubled.root.glob("trouble-*"))) >= 3


@pytest.mark.slow
def test_a_lost_scheduler_is_one_line_and_a_rerun_completes(troubled, farm, wait_for):
    troubled.did("add-model", "trouble", "--set", "pause=0.1")
    here = farm(2)
    store = troubled.store("trouble", "test")
    words = ("--project", troubled.cars, "predict", "--split", "test")
    process = troubled.process(*words, "--scheduler", here.address)
    wait_for(lambda: list(store.glob("prob/c/*/0/0")))
    here.kill(here.scheduler)
    code, out, err = ended(process)
    assert (code, out) == (1, "")
    gone = "is gone: what is finished is kept; start it again, and the same command goes on from there"
    assert err == [f"error: the scheduler {here.address} {gone}"]
    left = open_store(store).missing()
    assert left
    assert f"{len(left)} maps predicted, 42 in all" in troubled.did("predict", "--split", "test").out
    assert checksums(store) == troubled.checksums


def group_of(process):
    """The processes of the session that a process began."""
    listed = subprocess.run(["ps", "-eo", "pid=,sid="], capture_output=True, text=True, check=True).stdout
    return [pid for pid, session in map(str.split, listed.splitlines()) if int(session) == process.pid]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL][: 1 + STRESS])
def test_a_stop_leaves_no_worker_behind(troubled, wait_for, number):
    troubled.did("add-model", "trouble", "--set", "pause=0.1")
    store = troubled.store("trouble", "test")
    words = ("--project", troubled.cars, "predict", "--split", "test")
    process = troubled.process(*words, "--workers", "2", start_new_session=True)
    wait_for(lambda: list(store.glob("prob/c/*/0/0")))
    assert len(group_of(process)) >= 3
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
        stopped = "stopped: what is finished is kept; the same command goes on from there"
        assert ended(process) == (130, "", ["", stopped])
    else:
        process.kill()
        assert ended(process)[0] == -signal.SIGKILL
    wait_for(lambda: not group_of(process))
    assert "42 in all\n" in troubled.did("predict", "--split", "test").out
    assert checksums(store) == troubled.checksums


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def networks():
    """Two networks of their own, each with a cable to this one: (name, cable, address here, address there)."""
    made = []
    try:
        for number in range(2):
            name = f"ens{os.getpid()}n{number}"
            cable, end = f"e{os.getpid()}c{number}", f"e{os.getpid()}d{number}"
            here, there = (f"10.231.{os.getpid() % 64 * 4 + number}.{host}" for host in (1, 2))
            try:
                ip("netns", "add", name)
                made.append((name, cable, here, there))
                ip("link", "add", cable, "type", "veth", "peer", "name", end)
                ip("link", "set", end, "netns", name)
                ip("addr", "add", f"{here}/30", "dev", cable)
                ip("link", "set", cable, "up")
                ip("netns", "exec", name, "ip", "addr", "add", f"{there}/30", "dev", end)
                ip("netns", "exec", name, "ip", "link", "set", end, "up")
                ip("netns", "exec", name, "ip", "link", "set", "lo", "up")
            except (OSError, subprocess.CalledProcessError) as error:
                pytest.skip(f"this system lets nobody make networks: {error}")
        yield made
    finally:
        for name, cable, _, _ in made:
            subprocess.run(["ip", "link", "del", cable], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.mark.slow
def test_workers_in_two_networks_of_which_one_is_cut(networks, troubled, farm, wait_for):
    troubled.did("add-model", "trouble", "--set", "pause=0.1")
    here = farm(0, host="0.0.0.0", DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="5s")
    port, logs = here.address.rpartition(":")[2], []
    for name, _, address, own in networks:
        words = (f"tcp://{address}:{port}", "--host", own, "--name", name)
        logs.append(here.work(*words, under=("ip", "netns", "exec", name)))
    wait_for(lambda: all("Registered to:" in log.read_text() for log in logs))
    store = troubled.store("trouble", "test")
    words = ("--project", troubled.cars, "predict", "--split", "test")
    process = troubled.process(*words, "--scheduler", f"tcp://127.0.0.1:{port}")
    wait_for(lambda: list(store.glob("prob/c/*/0/0")))
    ip("link", "set", networks[0][1], "down")
    code, out, err = ended(process)
    assert (code, err) == (0, [])
    assert "test.zarr: 42 maps predicted, 42 in all" in out
    assert checksums(store) == troubled.checksums


def test_options_that_cannot_be_meant(project):
    project.did("add-model", "bright-cut")
    both = ("--workers", "2", "--scheduler", "tcp://127.0.0.1:9")
    assert "give one of the two" in project.do("predict", *both).error
    assert "'here' is no scheduler's address" in project.do("verify", "--scheduler", "here").error
    for verb, words in (("predict", ()), ("verify", ()), ("tune", ()), ("blend", ("-o", project.root / "x.csv"))):
        alone = project.do(verb, *words, "--worker-limit", "5")
        assert (alone.code, alone.error) == (2, "--worker-limit goes with --workers or --scheduler")
    for verb, words in (("verify", ()), ("blend", ("-o", project.root / "x.csv"))):
        done = project.do(verb, *words, "--workers", "2", "--threads", "3")
        assert (done.code, done.error) == (2, "workers have threads of their own: leave out --threads")
    assert not project.store("bright-cut", "test").exists()


def test_a_worker_that_finds_other_maps_blends_nothing(project):
    project.imported(("a", 1.0, 0, 9))
    opened = Project(project.cars)
    asked = blend_verb._Asked("equal", "0.5", "test", "")
    stamp = blend_verb._stamp(opened, asked, asked.opened(opened))
    ids = asked.opened(opened).ids
    order = blend_verb._Order("one", project.cars, asked, blend_verb._Form(None, "carvana"), stamp, ids)
    assert blend_verb._opened(order).ids == ids
    shutil.rmtree(project.store("a", "oof"))
    assert blend_verb._opened(order).ids == ids  # other maps of the project do not matter
    shutil.rmtree(project.store("a", "test"))
    project.maps("a_test", list(ids), 3.0, 1)
    project.did("import", "a", "--from", project.root / "a_test", "--split", "test")
    with pytest.raises(StoreError, match=r"a worker on \S+ finds another project or other maps under"):
        blend_verb._opened(order)
