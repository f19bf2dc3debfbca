"""The verbs on a project whose stores lie at an address: a real S3 server on loopback, and a road to it that breaks."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import obstore
import obstore.store
import pytest

import carvana_ens
from carvana_ens import Project, open_store
from carvana_ens.store import bucket as bucket_module
from carvana_ens.store.place import place_of
from carvana_ens.verbs.costs import bytes_of_map
from carvana_ens.verbs.doctor_project import examine_project

SECONDS = 600  # for what must happen; nothing here waits for time to pass
ROUNDS = 6 if os.environ.get("CARVANA_ENS_STRESS") else 1
QUICK = "from carvana_ens.store.bucket import RETRY; RETRY['max_retries'] = 1"


class Road:
    """Leads connections to a server, and cuts some after a random number of bytes, in either direction.

    share: of the connections that are cut. ends: after so many connections none is led on any more.
    """

    def __init__(self, server, seed=0, share=0.0, ends=None):
        self._server, self._rng, self._share = server, random.Random(seed), share
        self._ends, self.cuts, self._lock = ends, 0, threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._lead, daemon=True).start()

    def close(self):
        self._listening.close()

    def _lead(self):
        while self._ends is None or self._ends > 0:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            if self._ends is not None:
                self._ends -= 1
            # of a connection some 700 bytes are a request's head, then come a map's, then the answer's
            left = self._rng.randrange(3000) if self._rng.random() < self._share else None
            state = {"left": left, "reset": self._rng.random() < 0.5}
            far = socket.create_connection(self._server)
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(*pair, state), daemon=True).start()
        self.close()

    def _pump(self, source, target, state):
        try:
            while data := source.recv(512):
                with self._lock:
                    if state["left"] is not None:
                        data, state["left"] = data[: state["left"]], state["left"] - len(data)
                target.sendall(data)
                if state["left"] is not None and state["left"] < 0:
                    self.cuts += 1
                    if state["reset"]:
                        for end in (source, target):
                            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()


@pytest.fixture
def road(s3_server, monkeypatch):
    """Makes a road, and has everything go there."""
    roads = []

    def make(**options):
        roads.append(Road(s3_server, **options))
        monkeypatch.setenv("AWS_ENDPOINT_URL", roads[-1].url)
        return roads[-1]

    yield make
    for each in roads:
        each.close()


@pytest.fixture
def quick(monkeypatch):
    """Requests are sent again at once."""
    backoff = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=20), "base": 2}
    monkeypatch.setitem(bucket_module.RETRY, "backoff", backoff)


@pytest.fixture
def remote(world, bucket):
    """The usual project with its stores at an address, which ``remote.address`` is."""
    world.address = f"{bucket}/cars"
    world.init("--stores", world.address)
    return world


def job(world, members=("bright-cut", "group-cut")):
    """predict, tune and blend; the text of the submission."""
    for name in members:
        world.did("add-model", name)
    world.did("predict")
    return tuned_and_blended(world)


def tuned_and_blended(world):
    world.did("tune")
    path = world.root / f"{world.cars.name}.csv"
    world.did("blend", "--weights", "tuned", "-o", path)
    return path.read_bytes()


@pytest.fixture
def local(world):
    """The same project with its stores in its folder, and its submission."""
    cars, world.cars = world.cars, world.root / "local"
    text = world.kept("local job", lambda: (world.init(), job(world))[1])
    world.cars = cars
    world.calls()
    return text


def fingerprint(world, member, split):
    return open_store(world.root / "local" / "stores" / member / f"{split}.zarr").fingerprint()


def keys(address):
    store = obstore.store.from_url(address)
    return [entry["path"] for batch in obstore.list(store) for entry in batch]


def asked(world):
    return sorted(image_id for call in world.calls("predict") for image_id in call[2:])


def wait_for(ready):
    until = time.monotonic() + SECONDS
    while not ready():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_every_verb_works_on_stores_at_an_address(local, remote, oracle):
    world, address = remote, remote.address
    assert job(world) == local
    assert not (world.cars / "stores").exists()
    for member in ("bright-cut", "group-cut"):
        for split in ("oof", "test"):
            url = f"{address}/{member}/{split}.zarr"
            assert open_store(url).fingerprint() == fingerprint(world, member, split)
    assert f"{address}/bright-cut/test.zarr: 0 maps predicted, 6 in all" in world.did("predict").out
    assert "oof 8/8, test 6/6" in world.did("status").out
    assert world.did("verify").out.count(" right, 0 missing, 0 damaged") == 4
    examined = {name: (state, what) for name, state, what in examine_project(Project(world.cars))}
    assert examined["stores"] == ("ok", f"at {address}")
    assert examined["member bright-cut"] == ("ok", "oof 8/8, test 6/6; 0.00 GB")
    world.did("show", oracle.TEST[0], "-o", world.root / "show.png")
    assert (world.root / "show.png").stat().st_size > 1000
    assert "6 of 6 images" in world.did("pseudo-label", "--keep", "1.0").out
    world.did("export", "bright-cut", "--to", "zarr", "-o", world.root / "plain.zarr")
    assert open_store(world.root / "plain.zarr").fingerprint() == fingerprint(world, "bright-cut", "test")
    world.did("report")
    assert bytes_of_map(Project(world.cars), "bright-cut") == bytes_of_map(Project(world.root / "local"), "bright-cut")
    done = world.did("blend", "--split", "oof", "-o", world.root / "oof.csv")
    assert "8 images" in done.out
    assert "mean" in world.did("evaluate", world.root / "oof.csv").out.lower()
    world.did("lock", "-o", world.root / "cars.lock", "--weights", "tuned")
    world.did("replay", world.root / "cars.lock", "-o", world.root / "again.csv")
    assert (world.root / "again.csv").read_bytes() == local
    assert f"kept: {address}/group-cut" in world.did("remove-model", "group-cut").out
    world.calls()
    world.did("predict", "--fresh", "--split", "test")
    assert asked(world) == sorted(oracle.TEST)


def test_imported_maps_and_run(remote, oracle):
    codes = remote.imported(("one", 1.0, 0, 5))["one"]
    store = open_store(f"{remote.address}/one/test.zarr")
    for image_id in oracle.TEST:
        np.testing.assert_array_equal(store.read(image_id), codes[image_id])
    remote.did("add-model", "learned-cut")
    done = remote.did("run", "-o", remote.root / "run.csv")
    assert "6 images" in done.out
    assert len(oracle.read_rows(remote.root / "run.csv")) == 6


def test_damage_is_found_repaired_and_made_again(local, remote, oracle):
    world, url = remote, f"{remote.address}/bright-cut/test.zarr"
    job(world)
    place, key = place_of(url), "prob/c/2/0/0"
    place.put(key, place.get(key)[:-1])
    done = world.do("verify", "--repair")
    assert f"{url}: 5 right, 0 missing, 1 damaged" in done.out
    assert "marked 1 as missing" in done.out
    assert open_store(url).missing() == [oracle.TEST[2]]
    world.calls()
    world.did("predict")
    assert asked(world) == [oracle.TEST[2]]
    assert open_store(url).fingerprint() == fingerprint(world, "bright-cut", "test")


def test_what_a_killed_maker_left_is_no_store_and_goes_with_gc(remote):
    remote.did("add-model", "bright-cut")
    remote.did("predict", "--split", "test")
    url = f"{remote.address}/bright-cut/oof.zarr"
    unfinished = b'{"zarr_format": 3, "node_type": "group", "attributes": {"carvana_ens_unfinished": true}}'
    place_of(url).put("zarr.json", unfinished)
    place_of(url).put("prob/zarr.json", b"{}")
    assert "test 6/6" in remote.did("status").out
    assert "oof" not in remote.did("status").out
    assert "not there" in remote.do("tune").error
    done = remote.did("verify", "--gc")
    assert f"{url}: 0 right, 0 missing, 0 damaged\n  removed what stops had left" in done.out
    assert [key for key in keys(remote.address) if "oof" in key] == []
    place_of(url).put("zarr.json", unfinished)
    assert "8 maps predicted" in remote.did("predict").out


def test_stores_are_packed_in_a_folder_and_read_at_an_address(local, remote):
    """As the line of ``pack`` says."""
    world, elsewhere = remote, remote.root / "copied"
    job(world)
    done = world.do("pack")
    assert done.code == 2
    assert done.error.startswith(f"the stores of this project are at {world.address}, and stores are packed in a")
    address = obstore.store.from_url(world.address)
    for key in keys(world.address):
        place_of(elsewhere).put(key, bytes(obstore.get(address, key).bytes()))
    settings = (world.cars / "ensemble.toml").read_text()
    (world.cars / "ensemble.toml").write_text(settings.replace(world.address, "../copied"))
    world.did("pack")
    (world.cars / "ensemble.toml").write_text(settings)
    place_of(world.address).remove()
    for file in elsewhere.rglob("*"):
        if file.is_file():
            obstore.put(address, file.relative_to(elsewhere).as_posix(), file.read_bytes())
    assert open_store(f"{world.address}/bright-cut/test.zarr").packed is not None
    assert world.did("verify").out.count(" right, 0 missing, 0 damaged") == 4
    assert tuned_and_blended(world) == local


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_the_whole_job_with_connections_cut(local, remote, road, quick, s3_server, monkeypatch, seed):
    """Whatever is cut is asked for again: the submission is that of a project whose stores never leave the disk."""
    broken = road(seed=seed, share=0.3)
    assert job(remote) == local
    assert remote.did("verify").out.count(" right, 0 missing, 0 damaged") == 4
    assert broken.cuts > 30
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*s3_server))  # for what the test itself asks
    assert [key for key in keys(remote.address) if key.endswith(".lock")] == []


def test_a_server_that_goes_in_mid_run_loses_nothing_that_is_done(local, remote, road, oracle, s3_server, monkeypatch):
    world, url = remote, f"{remote.address}/bright-cut/oof.zarr"
    world.did("add-model", "bright-cut")
    road(ends=50)
    process = started(world, "predict", before=QUICK)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1, err
    assert out == ""
    (line,) = err.splitlines()
    assert re.match(
        r"error: s3://.*oof\.zarr.* cannot be (read|written): .*; its lock is left there, which --break-lock takes$",
        line,
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*s3_server))
    missing = open_store(url).missing()
    assert 0 < len(missing) < 8
    assert f"process {process.pid} on {socket.gethostname()} since" in world.do("predict").error
    world.calls()
    done = world.did("predict", "--break-lock")
    assert f"{url}: broke the lock of process {process.pid} on {socket.gethostname()} since " in done.err
    assert asked(world) == sorted([*missing, *oracle.TEST])
    world.did("add-model", "group-cut")
    world.did("predict", "group-cut")
    assert tuned_and_blended(world) == local


def test_reading_from_a_server_that_is_gone_is_one_line(local, remote, road, quick, monkeypatch):
    job(remote)
    monkeypatch.setitem(bucket_module.RETRY, "max_retries", 1)
    monkeypatch.setattr(bucket_module, "TRIES", 2)
    road(ends=12)
    done = remote.do("blend", "-o", remote.root / "blend.csv")
    assert done.code == 1
    assert "cannot be read: " in done.error
    assert not (remote.root / "blend.csv").exists()
    for verb in ("tune", "verify", "predict"):
        done = remote.do(verb)
        assert (done.code, "cannot be read: " in done.error) == (1, True)
    assert "cannot be read: " in remote.did("status").out


def started(world, *words, before="pass"):
    """A command in a process of its own, after a statement."""
    source = Path(carvana_ens.__file__).parents[1]
    command = f"{before}; from carvana_ens.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [world.site, source]))}
    words = map(str, ("--project", world.cars, *words))
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", command, *words], stdout=pipe, stderr=pipe, text=True, env=environment
    )


def done_maps(url):
    store = place_of(url)
    return 0 if not store.exists() else len(open_store(url).ids) - len(open_store(url).missing())


def test_the_lock_of_a_killed_writer_is_broken_on_the_users_word(remote):
    world, url = remote, f"{remote.address}/bright-cut/oof.zarr"
    world.did("add-model", "bright-cut", "--set", "pause=0.5")
    process = started(world, "predict", "--split", "oof")
    try:
        wait_for(lambda: done_maps(url) >= 1)
        process.send_signal(signal.SIGSTOP)  # it lives, and does nothing meanwhile
        living = world.do("predict", "--break-lock")
    finally:
        process.kill()
        process.communicate()
    who = f"process {process.pid} on {socket.gethostname()} since "
    assert living.code == 1
    assert living.error.startswith(f"{url} is being written by {who}")
    assert living.error.endswith("that process runs on this machine: wait for it or stop it")
    refused = world.do("predict")
    assert refused.code == 1
    assert refused.error.startswith(f"{url} is being written by {who}")
    assert "if it was killed give --break-lock" in refused.error
    assert world.do("verify", "--break-lock").error.startswith("--break-lock goes with --repair or --gc")
    gone = world.do("verify", "--gc")
    assert gone.error.startswith(f"{url} is being written by {who}")
    missing = open_store(url).missing()
    assert 0 < len(missing) < 8
    world.calls()
    done = world.did("predict", "--break-lock", "--split", "oof")
    assert done.err.startswith(f"{url}: broke the lock of {who}")
    assert asked(world) == sorted(missing)
    assert f"{url}: no lock is left to break" in world.did("predict", "--break-lock", "--split", "oof").err
    assert [key for key in keys(remote.address) if key.endswith(".lock")] == []


@pytest.mark.parametrize("verb", ["import", "verify", "run"])
def test_other_verbs_break_locks_too(remote, oracle, verb):
    remote.maps("maps", oracle.TEST, 1.0, 0)
    words = ("import", "one", "--split", "test", "--from", remote.root / "maps")
    remote.did(*words)
    url = f"{remote.address}/one/test.zarr"
    if verb == "run":
        remote.did("remove-model", "one")
        remote.did("add-model", "bright-cut")
        url = f"{remote.address}/bright-cut/oof.zarr"
        words = ("run", "-o", remote.root / "run.csv")
    elif verb == "verify":
        words = ("verify", "--gc")
    program = (
        "import os, sys\n"
        "from carvana_ens.store.place import place_of\n"
        "held = place_of(sys.argv[1]).lock()\n"
        "held.__enter__()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    source = Path(carvana_ens.__file__).parents[1]
    killed = subprocess.run([sys.executable, "-c", program, url], cwd=source, check=False)
    assert killed.returncode == -9
    assert "--break-lock" in remote.do(*words).error
    assert "broke the lock of process" in remote.did(*words, "--break-lock").err


def test_in_a_folder_there_is_nothing_to_break(project):
    project.did("add-model", "bright-cut")
    done = project.did("predict", "--break-lock", "--split", "test")
    assert done.err == f"{project.store('bright-cut', 'test')}: no lock is left to break\n"
    with place_of(project.store("bright-cut", "test")).lock():
        refused = project.do("predict", "--break-lock", "--split", "test")
    assert f"is being written by process {os.getpid()} on" in refused.error


def test_stores_may_lie_in_another_folder(world, local):
    world.init("--stores", world.root / "shelf" / "cars")
    assert 'stores = "../shelf/cars"' in (world.cars / "ensemble.toml").read_text()
    assert job(world) == local
    assert (world.root / "shelf" / "cars" / "bright-cut" / "test.zarr" / "zarr.json").is_file()
    assert not (world.cars / "stores").exists()
    assert "bright-cut" in world.did("pack").out
    world.did("blend", "--weights", "tuned", "-o", world.root / "packed.csv")
    assert (world.root / "packed.csv").read_bytes() == local
    shutil.move(world.root / "shelf", world.root / "elsewhere")
    assert "is not there" in world.do("blend", "-o", world.root / "lost.csv").error


def test_without_the_extra_the_line_says_what_to_install(world, monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
    done = world.run("init", world.cars, "--stores", "s3://bucket/cars")
    assert (done.code, "pip install 'carvana-ens[s3]'" in done.error) == (2, True)
    assert not world.cars.exists()
    (world.cars).mkdir()
    (world.cars / "ensemble.toml").write_text('schema = 1\nstores = "s3://bucket/cars"\n[members.a]\nimported = true\n')
    assert "pip install 'carvana-ens[s3]'" in world.do("blend", "-o", world.root / "x.csv").error


@pytest.mark.slow
def test_workers_write_and_read_there_too(local, remote, oracle):
    pytest.importorskip("distributed", reason="needs the extra [dist]")
    world = remote
    source = Path(carvana_ens.__file__).parents[1]
    for name in ("bright-cut", "group-cut"):
        world.did("add-model", name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, [world.site, source])))
        world.did("predict", "--workers", "2")
        world.did("tune", "--workers", "2")
        assert world.did("verify", "--workers", "2").out.count(" right, 0 missing, 0 damaged") == 4
        world.did("blend", "--weights", "tuned", "--workers", "2", "-o", world.root / "cars.csv")
    assert (world.root / "cars.csv").read_bytes() == local
