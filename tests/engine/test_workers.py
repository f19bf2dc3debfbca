"""Tasks on worker processes of this machine and of schedulers: order, retries, limits, and what is refused."""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from carvana_ens.engine import cluster, tasks
from carvana_ens.engine.cluster import Workers, connected, cuda_devices
from carvana_ens.engine.tasks import DIED, ordered, unordered
from carvana_ens.errors import CarvanaEnsError, DataError, UsageError

dask = pytest.importorskip("dask", reason="needs the extra [dist]")
pytest.importorskip("distributed", reason="needs the extra [dist]")
SECONDS = 120  # for what must happen


def whole(item):
    return [item]


@pytest.fixture(scope="module")
def functions(tmp_path_factory):
    """The module of functions, as workers import it: by name."""
    folder = tmp_path_factory.mktemp("functions")
    shutil.copy(Path(__file__).with_name("task_functions.py"), folder)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("task_functions")
    sys.path.remove(str(folder))
    del sys.modules["task_functions"]


@pytest.fixture(scope="module")
def two(functions):
    """Two worker processes; started with the first test that asks."""
    with connected(Workers(count=2, limit=60), functions.same) as there:
        yield there


@pytest.mark.slow
def test_every_item_comes_back_and_in_order_if_asked(two, functions):
    found = dict(unordered(two, functions.squared, range(40), whole))
    assert found == {n: n * n for n in range(40)}
    assert list(ordered(two, functions.squared, range(40))) == [n * n for n in range(40)]
    assert list(unordered(two, functions.squared, [], whole)) == list(ordered(two, functions.squared, [])) == []


@pytest.mark.slow
def test_no_further_ahead_than_it_has_to_be(two, functions):
    taken = []

    def numbers():
        for number in range(100):
            taken.append(number)
            yield number

    results = ordered(two, functions.squared, numbers())
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(taken) <= 3 + 2 * tasks.AHEAD * 2 + 1
    results.close()
    assert list(ordered(two, functions.squared, [5])) == [25]  # what was under way does no harm


@pytest.mark.slow
def test_errors_of_ours_are_raised_and_others_tried_again(two, functions, tmp_path):
    with pytest.raises(DataError, match=r"^three is refused$"):
        list(unordered(two, functions.refusing, range(5), whole))
    results = ordered(two, functions.refusing_two, range(5))
    assert next(results) == 0
    with pytest.raises(DataError, match=r"^1 is refused$"):  # as one process would have it
        next(results)
    for times in (tasks.RETRIES, tasks.RETRIES + 1):
        folder = tmp_path / str(times)
        folder.mkdir()
        where = (str(folder), times)
        if times == tasks.RETRIES:
            assert list(ordered(two, functions.stuttering, [where])) == [times]
        else:
            with pytest.raises(CarvanaEnsError, match=r"a worker failed with OSError: \[Errno 5\] Input/output error"):
                list(ordered(two, functions.stuttering, [where]))
        assert len(list(folder.iterdir())) == tasks.RETRIES + 1


@pytest.mark.slow
def test_what_is_loaded_is_kept_for_the_next_task(two, functions, tmp_path):
    items = [(str(tmp_path), "a")] * 12 + [(str(tmp_path), "b")] * 12
    found = list(ordered(two, functions.loading, items))
    assert [value for value, _ in found] == ["A"] * 12 + ["B"] * 12
    loads = [path.name.split("-")[:2] for path in tmp_path.iterdir()]
    for key in "ab":
        workers = {str(pid) for value, pid in found if value == key.upper()}
        # once a worker; once more where a task of the other key came in between
        assert workers <= {pid for of, pid in loads if of == key}
        assert len([pid for of, pid in loads if of == key]) <= len(workers) + 2


@pytest.mark.slow
def test_tasks_that_end_their_workers_are_found_among_their_neighbours(functions):
    items = [tuple(range(first, first + 3)) for first in range(0, 18, 3)]
    with connected(Workers(count=2, limit=1.5), functions.same) as there:
        found = dict(unordered(there, functions.deadly, items, lambda item: [(number,) for number in item]))
        assert found.pop((7,)) is DIED
        assert found.pop((9,)) is DIED
        assert sorted(number for item in found for number in item) == [n for n in range(18) if n not in (7, 9)]
        assert all(result == sum(item) for item, result in found.items())
        with pytest.raises(CarvanaEnsError, match=r"ends every worker that it is given to, by a crash or in 1\.5 s"):
            list(ordered(there, functions.deadly, [(1,), (7,)]))
        assert list(ordered(there, functions.patient, [1, 2])) == [1, 2]  # alive at times, two seconds in all


@pytest.mark.slow
def test_workers_that_nobody_watches_any_more_are_started_anew(functions):
    environment = dict(os.environ)
    with connected(Workers(count=2), functions.same) as there:
        local = there.client.cluster
        for nanny in list(local.workers.values()):
            local.sync(nanny.close)
        assert list(ordered(there, functions.squared, range(8))) == [n * n for n in range(8)]
    assert os.environ == environment


@pytest.mark.slow
def test_processors_and_devices_are_shared(functions, monkeypatch):
    monkeypatch.setattr(cluster, "default_threads", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    for device, expected in (("auto", {"3", "5"}), ("cpu", {"3, 5"})):
        with connected(Workers(count=2), functions.same, device) as there:
            found = set(ordered(there, functions.surroundings, range(12)))
        assert {where[1] for where in found} == expected
        assert {where[2] for where in found} == {2}
        assert len({where[0] for where in found}) == 2


def test_devices_are_named_without_torch(monkeypatch):
    for text, names in (("", []), ("-1", []), ("0,1", ["0", "1"]), ("GPU-8f, 2", ["GPU-8f", "2"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
        assert cuda_devices() == names
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    listed = "GPU 0: NVIDIA X (UUID: GPU-1)\n  MIG 1g Device 0: (UUID: MIG-2)\nGPU 1: NVIDIA X (UUID: GPU-3)\n"
    monkeypatch.setattr(
        subprocess, "run", lambda *words, **more: subprocess.CompletedProcess(words, 0, stdout=listed, stderr="")
    )
    assert cuda_devices() == ["0", "1"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "either a number of processes or a scheduler's address"),
        ({"count": 2, "scheduler": "tcp://h:1"}, "either a number of processes or a scheduler's address"),
        ({"count": 0}, "0 workers do no work"),
        ({"scheduler": "head:8786"}, "'head:8786' is no scheduler's address: write tcp://host:port"),
        ({"scheduler": "http://head:8786"}, "is no scheduler's address"),
        ({"scheduler": "tcp://head"}, "is no scheduler's address"),
        ({"count": 1, "limit": 0.0}, "a limit of 0 seconds leaves no time to work"),
    ],
)
def test_workers_that_cannot_be_meant(options, told):
    with pytest.raises(UsageError, match=told):
        Workers(**options)


def test_without_dask_the_extra_is_named(monkeypatch, functions):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"pip install 'carvana-ens\[dist\]'"), connected(Workers(1), functions.same):
        pass


def test_nobody_there(monkeypatch, functions):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1.0)
    nobody = pytest.raises(CarvanaEnsError, match=r"the scheduler tcp://127.0.0.1:9 does not answer \(.*dask scheduler")
    with nobody, connected(Workers(scheduler="tcp://127.0.0.1:9"), functions.same):
        pass


@pytest.mark.slow
def test_other_versions_are_refused(functions):
    told = rf"the worker tcp://\S+ has version \d+, here is version {os.getpid()}: install the same on all machines"
    with pytest.raises(CarvanaEnsError, match=told), connected(Workers(1), functions.other):
        pass
    told = r"has something else installed \(ImportError: not on a worker\), here is here: install"
    with pytest.raises(CarvanaEnsError, match=told), connected(Workers(1), functions.only_here):
        pass


@pytest.mark.slow
def test_a_worker_that_comes_later_is_asked_too(two, functions):
    strange = dataclasses.replace(two, stamp="other versions")
    with pytest.raises(CarvanaEnsError, match="a worker has these versions, here is other versions: install the same"):
        list(ordered(strange, functions.squared, [1]))


def start(folder, *words, **environment):
    """``dask WORDS`` as a user starts it."""
    command = [sys.executable, "-m", "dask", *words, "--no-dashboard"]
    path = os.pathsep.join(sys.path)
    with open(folder / f"{words[0]}.log", "wb") as log:
        return subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": path, **environment}
        )


def address_of(folder):
    until = time.monotonic() + SECONDS
    while not ((folder / "head.json").exists() and (folder / "head.json").read_text().endswith("}")):
        assert time.monotonic() < until
        time.sleep(0.05)
    return json.loads((folder / "head.json").read_text())["address"]


@pytest.mark.slow
def test_a_scheduler_without_workers(functions, monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "PATIENCE", 1.0)
    words = ("--host", "127.0.0.1", "--port", "0", "--scheduler-file", "head.json")
    process = start(tmp_path, "scheduler", *words)
    try:
        address = address_of(tmp_path)
        lonely = pytest.raises(
            CarvanaEnsError, match=f"the scheduler {address} has no worker, and none came within 1 s"
        )
        with lonely, connected(Workers(scheduler=address), functions.same):
            pass
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_tls_with_the_settings_of_dask(functions, monkeypatch, tmp_path):
    certify(tmp_path)
    files = {"CA_FILE": "both.pem", "CLIENT__CERT": "both.pem", "CLIENT__KEY": "key.pem"}
    files |= {f"{who}__{what}": f"{name}.pem" for who in ("SCHEDULER", "WORKER") for what, name in PAIR}
    environment = {f"DASK_DISTRIBUTED__COMM__TLS__{key}": str(tmp_path / name) for key, name in files.items()}
    words = ("--protocol", "tls", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", "head.json")
    processes = [start(tmp_path, "scheduler", *words, **environment)]
    try:
        address = address_of(tmp_path)
        assert address.startswith("tls://")
        processes.append(start(tmp_path, "worker", address, "--nthreads", "1", "--no-nanny", **environment))
        monkeypatch.setattr(cluster, "CONNECT_SECONDS", 5.0)
        stranger = pytest.raises(CarvanaEnsError, match=r"does not answer \(.*distributed\.comm\.tls in Dask")
        with stranger, connected(Workers(scheduler=address), functions.same):
            pass
        settings = {"ca-file": files["CA_FILE"], "client.cert": "both.pem", "client.key": "key.pem"}
        settings = {f"distributed.comm.tls.{key}": str(tmp_path / name) for key, name in settings.items()}
        with dask.config.set(settings), connected(Workers(scheduler=address), functions.same) as there:
            assert list(ordered(there, functions.squared, range(4))) == [0, 1, 4, 9]
    finally:
        for process in processes:
            process.kill()
            process.wait()


PAIR = (("CERT", "both"), ("KEY", "key"))


def certify(folder):
    """A certificate that signs itself."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "farm")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "both.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(secret)
