"""A scheduler and its workers, as a user starts them, that tests share; and plugins that every process sees."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import carvana_ens

SECONDS = 120  # for what must happen; nothing here waits for time to pass
ENTRIES = """[carvana_ens.models]
net-everywhere = torch_models:TinyNet
together = worker_models:Together
trouble = worker_models:Trouble

[carvana_ens.postprocess]
emptied = worker_models:Emptied
kept-by = worker_models:KeptBy
"""


def wait(ready: Callable[[], object]) -> None:
    until = time.monotonic() + SECONDS
    while not ready():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture(scope="session")
def wait_for() -> Callable[[Callable[[], object]], None]:
    """Returns as soon as a condition holds."""
    return wait


class Farm:
    """A scheduler and its workers, each a process of its own with another that watches it."""

    def __init__(self, folder: Path, host: str = "127.0.0.1", **environment: str) -> None:
        folder.mkdir()
        self.folder, self.number = folder, 0
        self.environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1", **environment}
        self.environment.pop("NUMPY_MODELS_LOG", None)  # of the test that comes first
        self.scheduler, _ = self.start("scheduler", "--host", host, "--port", "0", "--scheduler-file", "head.json")
        head = folder / "head.json"
        wait(lambda: head.exists() and head.read_text().endswith("}"))
        self.address = json.loads(head.read_text())["address"]
        self.workers: list[subprocess.Popen] = []

    def start(self, kind: str, *words: str, under: tuple[str, ...] = ()) -> tuple[subprocess.Popen, Path]:
        """The process of ``dask KIND WORDS``, and its log."""
        command = [*under, sys.executable, "-m", "dask", kind, *words, "--no-dashboard"]
        self.number += 1
        path = self.folder / f"{kind}{self.number}.log"
        with open(path, "wb") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, env=self.environment, start_new_session=True
            )
        return process, path

    def work(self, *words: str, under: tuple[str, ...] = ()) -> Path:
        """Starts a worker; its log."""
        process, log = self.start("worker", *(words or (self.address,)), "--nthreads", "1", under=under)
        self.workers.append(process)
        return log

    def grow(self, count: int) -> None:
        """At least so many workers."""
        logs = [self.work() for _ in range(count - len(self.workers))]
        wait(lambda: all("Registered to:" in log.read_text() for log in logs))

    def kill(self, process: subprocess.Popen) -> None:
        """Ends a process, and the one that works under it."""
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself, or by a test
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process in self.workers:
            self.workers.remove(process)

    def end(self) -> None:
        for process in [*self.workers, self.scheduler]:
            self.kill(process)


@pytest.fixture(scope="session")
def everywhere(tmp_path_factory: pytest.TempPathFactory, oracle: object) -> Path:
    """A folder for PYTHONPATH with a package of models and steps."""
    folder = tmp_path_factory.mktemp("everywhere")
    for name in ("worker_models", "torch_models"):
        shutil.copy(Path(__file__).with_name(f"{name}.py"), folder)
    oracle.package(folder, "worker_models", ENTRIES)
    return folder


@pytest.fixture
def plugins(world, everywhere, monkeypatch):
    """The world, with models and steps that every process sees."""
    source = Path(carvana_ens.__file__).parents[1]
    monkeypatch.syspath_prepend(everywhere)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, [everywhere, world.site, source])))
    yield world
    for name in ("worker_models", "torch_models"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="package")
def shared() -> Iterator[list[Farm]]:
    """The farm that tests share, once there is one."""
    here: list[Farm] = []
    yield here
    for each in here:
        each.end()


@pytest.fixture
def farm(plugins, shared, tmp_path_factory):
    """Gives the shared farm with so many workers at least, or one of the test's own where its options are named."""
    own = []

    def ready(workers: int, *, exactly: bool = False, **options: str) -> Farm:
        if shared and shared[0].scheduler.poll() is not None:  # a test has killed it
            shared.pop().end()
        farms = own if options else shared
        if options or not shared:
            farms.append(Farm(tmp_path_factory.mktemp("farms") / "farm", **options))
        farms[-1].grow(workers)
        while exactly and len(farms[-1].workers) > workers:
            farms[-1].kill(farms[-1].workers[-1])
        return farms[-1]

    yield ready
    for each in own:
        each.end()
