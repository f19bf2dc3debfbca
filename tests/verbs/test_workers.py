"""Work on other processes: schedulers and workers as a user starts them, killed, hanging and given broken photos."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

import carvana_ens
from carvana_ens import open_store
from carvana_ens.errors import StoreError
from carvana_ens.project import Project
from carvana_ens.verbs import blend as blend_verb

pytest.importorskip("distributed", reason="needs the extra [dist]")
SECONDS = 120  # for what must happen; nothing here waits for time to pass
ENTRIES = """[carvana_ens.models]
together = worker_models:Together
trouble = worker_models:Trouble

[carvana_ens.postprocess]
emptied = worker_models:Emptied
kept-by = worker_models:KeptBy
"""


@pytest.fixture
def plugins(world, oracle, monkeypatch):
    """The world, with a package of models and steps that every process sees."""
    folder = world.root / "site"
    folder.mkdir()
    shutil.copy(Path(__file__).with_name("worker_models.py"), folder)
    oracle.package(folder, "worker_models", ENTRIES)
    source = Path(carvana_ens.__file__).parents[1]
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, [folder, world.site, source])))
    yield world
    sys.modules.pop("worker_models", None)


@pytest.fixture
def troubled(project, plugins, oracle):
    """A project of 42 test photos."""
    for number in range(4, 40):
        oracle.save_photo(project.test, f"b22_{number:02d}")
    return project


@pytest.fixture
def many(plugins, oracle):
    """A project without photos, with three members of 150 maps: more than a task holds."""
    plugins.run("init", plugins.cars)
    ids = [f"{number:03d}_{view}" for number in range(50) for view in range(3)]
    for name, blur, shift in (("a", 1.0, 0), ("b", 2.0, 2), ("c", 1.5, -1)):
        plugins.maps(f"{name}_maps", ids, blur, shift, 9)
        plugins.did("import", name, "--split", "test", "--from", plugins.root / f"{name}_maps")
    return plugins


class Farm:
    """A scheduler and its workers, each a process of its own."""

    def __init__(self, folder: Path, host: str = "127.0.0.1", **environment: str) -> None:
        self.folder = folder
        self.environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1", **environment}
        self.processes: list[subprocess.Popen] = []
        self.scheduler = self.start("scheduler", "--host", host, "--port", "0", "--scheduler-file", "head.json")
        head = folder / "head.json"
        wait_for(lambda: head.exists() and head.read_text().endswith("}"))
        self.address = json.loads(head.read_text())["address"]

    def start(self, kind: str, *words: str, under: tuple[str, ...] = ()) -> subprocess.Popen:
        command = [*under, sys.executable, "-m", "dask", kind, *words, "--no-dashboard"]
        with open(self.folder / f"{kind}{len(self.processes)}.log", "wb") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, env=self.environment, start_new_session=True
            )
        self.processes.append(process)
        return process

    def work(self, count: int) -> list[subprocess.Popen]:
        return [self.start("worker", self.address, "--nthreads", "1") for _ in range(count)]

    def end(self) -> None:
        for process in self.processes:
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that workers have under them
            process.wait()


@pytest.fixture
def farm(plugins):
    farms = []

    def start(workers: int, **options: str) -> Farm:
        folder = plugins.root / f"farm{len(farms)}"
        folder.mkdir()
        farms.append(Farm(folder, **options))
        farms[-1].work(workers)
        return farms[-1]

    yield start
    for each in farms:
        each.end()


def wait_for(ready):
    until = time.monotonic() + SECONDS
    while not ready():
        assert time.monotonic() < until
        time.sleep(0.02)


def ended(process):
    """Code, output and error lines of a command."""
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err.splitlines()


def recorded(store):
    return np.flatnonzero(zarr.open_group(store, mode="r")["done"][:] if (store / "done" / "c").exists() else [])


def forget(store, numbers):
    """Takes done records away, as if the maps had not been made yet."""
    zarr.open_group(store, mode="r+")["done"][np.array(numbers)] = 0


def fingerprint(world, *words):
    """Of the test maps of a member as one process predicts them, in a store that is then taken away."""
    name = words[0]
    world.did("predict", name, "--split", "test")
    found = open_store(world.store(name, "test")).fingerprint()
    shutil.rmtree(world.store(name, "test"))
    return found


@pytest.mark.slow
def test_maps_do_not_depend_on_workers_or_stops(troubled, farm):
    troubled.did("add-model", "together")
    troubled.did("add-model", "group-cut")
    expected = {name: fingerprint(troubled, name) for name in ("together", "group-cut")}
    address = farm(3).address
    for where in (("--scheduler", address), ("--workers", "2")):
        code, out, err = ended(troubled.process("--project", troubled.cars, "predict", "--split", "test", *where))
        assert (code, err) == (0, [])  # nothing of Dask's own on the terminal
        assert out.count("42 maps predicted, 42 in all\n") == 2
        for name, value in expected.items():
            store = troubled.store(name, "test")
            assert open_store(store).fingerprint() == value
            shutil.rmtree(store)
    troubled.did("predict", "together", "--split", "test")
    store = troubled.store("together", "test")
    forget(store, [1, 6, 7, 30])
    before = {path: path.stat().st_mtime_ns for path in store.glob("prob/c/*/0/0")}
    code, out, err = ended(troubled.process("--project", troubled.cars, "predict", "together", "--scheduler", address))
    assert (code, err) == (0, [])
    assert "test.zarr: 4 maps predicted, 42 in all" in out
    assert open_store(store).fingerprint() == expected["together"]
    again = {int(path.parts[-3]) for path, written in before.items() if path.stat().st_mtime_ns != written}
    assert again == {1, 6, 7, 30}  # what was there is not written again
    assert troubled.did("verify", "together").out.count("0 missing, 0 damaged") == 2


@pytest.mark.slow
def test_a_killed_worker_a_hanging_one_and_a_broken_photo(troubled, farm):
    words = ("--set", "how=sleep", "--set", "at=b22_20", "--set", f"marks={troubled.root}", "--set", "pause=0.05")
    troubled.did("add-model", "trouble", *words)
    broken = troubled.test / "b22_30.jpg"
    broken.write_bytes(broken.read_bytes()[:-900])
    here = farm(3)
    store = troubled.store("trouble", "test")
    command = ("predict", "--split", "test", "--scheduler", here.address, "--worker-limit", "4")
    process = troubled.process("--project", troubled.cars, *command)
    wait_for(lambda: list(store.glob("prob/c/*/0/0")))
    os.killpg(here.processes[1].pid, signal.SIGKILL)
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
def test_a_photo_that_ends_every_worker_is_named(troubled, how):
    words = ("--set", f"how={how}", "--set", "at=b22_20", "--set", f"marks={troubled.root}", "--set", "times=0")
    troubled.did("add-model", "trouble", *words)
    command = ("--project", troubled.cars, "predict", "--split", "test", "--workers", "2")
    code, out, err = ended(troubled.process(*command))
    assert code == 3
    assert "test.zarr: 41 maps predicted, 42 in all, 1 missing" in out
    reason = {
        "kill": "predicting it ends every worker: a crash, or 1800 s without a map",
        "raise": "member trouble: model trouble cannot predict: ValueError: no such layer",
    }[how]
    assert len(err) == 1
    assert err[0].startswith(f"failed: b22_20 (trouble, test): {reason}")
    assert open_store(troubled.store("trouble", "test")).missing() == ["b22_20"]
    if how == "kill":
        assert len(list(troubled.root.glob("trouble-*"))) >= 3


@pytest.mark.slow
def test_a_lost_scheduler_is_one_line_and_a_rerun_completes(troubled, farm):
    troubled.did("add-model", "trouble", "--set", "pause=0.1")
    expected = fingerprint(troubled, "trouble")
    here = farm(2)
    store = troubled.store("trouble", "test")
    words = ("--project", troubled.cars, "predict", "--split", "test")
    process = troubled.process(*words, "--scheduler", here.address)
    wait_for(lambda: list(store.glob("prob/c/*/0/0")))
    here.scheduler.kill()
    code, out, err = ended(process)
    assert (code, out) == (1, "")
    gone = "is gone: what is finished is kept; start it again, and the same command goes on from there"
    assert err == [f"error: the scheduler {here.address} {gone}"]
    left = open_store(store).missing()
    assert left
    assert f"{len(left)} maps predicted, 42 in all" in troubled.did("predict", "--split", "test").out
    assert open_store(store).fingerprint() == expected


@pytest.mark.slow
def test_blend_and_verify_say_the_same_on_workers(many, farm):
    words = ("blend", "--weights", "a=2,b=1", "--threshold", "0.45")
    mended = (*words, "--postprocess", "emptied:row=20,kept-by:member=c")
    address = farm(3).address
    expected = {}
    for name, command in (("plain", words), ("mended", mended)):
        done = many.did(*command, "-o", many.root / f"{name}.csv", "--masks", many.root / name)
        expected[name] = (done.out, (many.root / f"{name}.csv").read_bytes())
    assert expected["plain"][1] != expected["mended"][1]
    places = {"plain": ("--workers", "2"), "mended": ("--scheduler", address)}
    for name, command in (("plain", words), ("mended", mended)):
        output, masks = many.root / f"{name}.csv", many.root / name
        before = {path.name: path.read_bytes() for path in masks.iterdir()}
        output.unlink()
        shutil.rmtree(masks)
        process = many.process("--project", many.cars, *command, "-o", output, "--masks", masks, *places[name])
        assert ended(process) == (0, expected[name][0], [])
        assert output.read_bytes() == expected[name][1]
        assert {path.name: path.read_bytes() for path in masks.iterdir()} == before
    chunk = many.store("b", "test") / "prob" / "c" / "77" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    found = many.do("verify")
    assert found.code == 1
    assert "149 right, 0 missing, 1 damaged" in found.out
    process = many.process("--project", many.cars, "verify", "--scheduler", address)
    assert ended(process) == (1, found.out, [])
    refused = many.do(*words, "-o", many.root / "x.csv").error
    process = many.process("--project", many.cars, *words, "-o", many.root / "x.csv", "--scheduler", address)
    assert ended(process) == (1, "", [f"error: {refused}"])
    assert not (many.root / "x.csv").exists()


def group_of(process):
    """The processes of the session that a process began."""
    listed = subprocess.run(["ps", "-eo", "pid=,sid="], capture_output=True, text=True, check=True).stdout
    return [pid for pid, session in map(str.split, listed.splitlines()) if int(session) == process.pid]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stop_leaves_no_worker_behind(troubled, number):
    troubled.did("add-model", "trouble", "--set", "pause=0.1")
    expected = fingerprint(troubled, "trouble")
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
    assert open_store(store).fingerprint() == expected


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
def test_workers_in_two_networks_of_which_one_is_cut(networks, troubled, farm):
    troubled.did("add-model", "trouble", "--set", "pause=0.1")
    expected = fingerprint(troubled, "trouble")
    here = farm(0, host="0.0.0.0", DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="5s")
    port = here.address.rpartition(":")[2]
    for name, _, address, own in networks:
        words = (f"tcp://{address}:{port}", "--host", own, "--nthreads", "1", "--name", name)
        here.start("worker", *words, under=("ip", "netns", "exec", name))
    logs = [here.folder / f"worker{number}.log" for number in (1, 2)]
    wait_for(lambda: all("Registered to:" in log.read_text() for log in logs))
    store = troubled.store("trouble", "test")
    words = ("--project", troubled.cars, "predict", "--split", "test")
    process = troubled.process(*words, "--scheduler", f"tcp://127.0.0.1:{port}")
    wait_for(lambda: list(store.glob("prob/c/*/0/0")))
    ip("link", "set", networks[0][1], "down")
    code, out, err = ended(process)
    assert (code, err) == (0, [])
    assert "test.zarr: 42 maps predicted, 42 in all" in out
    assert open_store(store).fingerprint() == expected


def test_options_that_cannot_be_meant(project):
    project.did("add-model", "bright-cut")
    both = ("--workers", "2", "--scheduler", "tcp://127.0.0.1:9")
    assert "give one of the two" in project.do("predict", *both).error
    assert "'here' is no scheduler's address" in project.do("verify", "--scheduler", "here").error
    for verb, words in (("predict", ()), ("verify", ()), ("blend", ("-o", project.root / "x.csv"))):
        alone = project.do(verb, *words, "--worker-limit", "5")
        assert (alone.code, alone.error) == (2, "--worker-limit goes with --workers or --scheduler")
    for verb, words in (("verify", ()), ("blend", ("-o", project.root / "x.csv"))):
        done = project.do(verb, *words, "--workers", "2", "--threads", "3")
        assert (done.code, done.error) == (2, "workers have threads of their own: leave out --threads")
    assert not project.store("bright-cut", "test").exists()


@pytest.mark.slow
def test_networks_of_folds(troubled, farm, oracle, monkeypatch):
    pytest.importorskip("torch")
    shutil.copy(Path(__file__).with_name("torch_models.py"), troubled.root / "site")
    oracle.package(troubled.root / "site", "torch_models", "[carvana_ens.models]\ntiny-net = torch_models:TinyNet\n")
    troubled.did("add-model", "tiny-net", "--tta", "hflip", "--set", "epochs=1", "--set", "rate=0.03")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as Dask's workers have it, unless told otherwise
    assert ended(troubled.process("--project", troubled.cars, "train"))[0] == 0
    stores = {split: troubled.store("tiny-net", split) for split in ("oof", "test")}
    expected = {}
    for where in ((), ("--scheduler", farm(2).address)):
        code, out, err = ended(troubled.process("--project", troubled.cars, "predict", "--device", "cpu", *where))
        assert (code, err) == (0, [])
        assert "oof.zarr: 8 maps predicted, 8 in all" in out
        for split, store in stores.items():
            assert expected.setdefault(split, open_store(store).fingerprint()) == open_store(store).fingerprint()
            shutil.rmtree(store)


@pytest.mark.slow
def test_what_was_tuned_is_blended_alike(project):
    project.imported(("a", 1.0, 0, 9), ("b", 2.0, 2, 5))
    project.did("tune")
    words = ("blend", "--weights", "tuned", "-o")
    done = project.did(*words, project.root / "here.csv.gz")
    process = project.process("--project", project.cars, *words, project.root / "there.csv.gz", "--workers", "1")
    assert ended(process) == (0, done.out.replace("here", "there"), [])
    assert (project.root / "there.csv.gz").read_bytes() == (project.root / "here.csv.gz").read_bytes()


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
