"""Workers in other processes: some of this machine, or those that a Dask scheduler has (extra ``[dist]``).

A scheduler runs what anybody who reaches it sends: processes started here listen on 127.0.0.1 alone, and one for many
machines belongs behind TLS (``tls://``, with the settings ``distributed.comm.tls`` of Dask's own configuration).
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from typing import Any

from carvana_ens.engine.memory import keeping_environment
from carvana_ens.engine.threads import default_threads
from carvana_ens.errors import CarvanaEnsError, UsageError, first_line

LIMIT = 1800.0
CONNECT_SECONDS = 20.0
PATIENCE = 120.0
"""Seconds that we wait for a first worker, or for one to come back when all have gone."""
LOCAL_KILLS = 1
"""Workers that a task may end, here, before it is suspected; the setting of Dask's that a scheduler elsewhere has is
``distributed.scheduler.allowed-failures``, 3 as it comes."""
_ADDRESS = re.compile(r"(tcp|tls)://(\[[0-9A-Fa-f:.%]+\]|[^\s/:@]+):([0-9]{1,5})")
_LOGGERS = ("distributed", "distributed.client", "tornado.application", "asyncio")


@dataclass(frozen=True)
class Workers:
    """Which processes work: ``count`` of this machine, or those of the scheduler at ``scheduler``; one of the two.

    limit: seconds after which a worker that has finished nothing is taken to hang and is ended; its work is tried
    elsewhere.
    """

    count: int | None = None
    scheduler: str | None = None
    limit: float = LIMIT

    def __post_init__(self) -> None:
        """Raises UsageError for what cannot be meant."""
        if (self.count is None) == (self.scheduler is None):
            raise UsageError("workers are either a number of processes or a scheduler's address: give one of the two")
        if self.count is not None and self.count < 1:
            raise UsageError(f"{self.count} workers do no work: give at least 1")
        if self.scheduler is not None and _ADDRESS.fullmatch(self.scheduler) is None:
            raise UsageError(f"{self.scheduler!r} is no scheduler's address: write tcp://host:port or tls://host:port")
        if not self.limit > 0:
            raise UsageError(f"a limit of {self.limit:g} seconds leaves no time to work: give more than 0")


@dataclass(frozen=True)
class Cluster:
    """Workers that have answered. client: Dask's. where: for messages. local: whether they were started here.

    tell: says which versions a process has installed. stamp: what each worker must say then. revive: starts those of
    this machine anew that nobody else will.
    """

    client: Any
    where: str
    local: bool
    limit: float
    tell: Callable[[], str]
    stamp: str
    revive: Callable[[], None]

    def count(self) -> int:
        """Worker processes that are there now.

        Raises:
            CarvanaEnsError: the scheduler is gone.
        """
        try:
            self.revive()
            return len(self.client.nthreads())
        except Exception as error:
            raise self.lost() from error

    def lost(self) -> CarvanaEnsError:
        """What to say when the scheduler does not answer any more."""
        return CarvanaEnsError(
            f"{self.where} is gone: what is finished is kept; start it again, and the same command goes on from there"
        )

    def deserted(self) -> CarvanaEnsError:
        """What to say when there is nobody to work."""
        return CarvanaEnsError(
            f"{self.where} has no worker, and none came within {PATIENCE:g} s: start some (dask worker ADDRESS); "
            f"what is finished is kept"
        )


@contextmanager
def connected(workers: Workers, tell: Callable[[], str], device: str = "cpu") -> Iterator[Cluster]:
    """The workers, ready: each of the same versions as this process.

    tell: a function of a module (it travels by name), or a partial of one, that says which versions are installed.
    device: where the work is done; where that is "auto" or "cuda", processes of this machine get one CUDA device
    each, in turn.

    Raises:
        UsageError: the extra ``[dist]`` is not installed.
        CarvanaEnsError: no scheduler answers, no worker comes, or one has other versions.
    """
    try:
        import distributed
    except ImportError:
        raise UsageError("work in several processes needs Dask: pip install 'carvana-ens[dist]'") from None
    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet())
        if workers.scheduler is None:
            where = "the local scheduler"
            address: Any = stack.enter_context(_local(workers.count or 1, device))
            revive: Callable[[], None] = partial(_revive, address)
        else:
            where = f"the scheduler {workers.scheduler}"
            address, revive = workers.scheduler, _nothing
        try:
            client = distributed.Client(  # type: ignore[no-untyped-call]
                address, timeout=CONNECT_SECONDS, set_as_default=False, name="carvana-ens"
            )
        except Exception as error:
            raise CarvanaEnsError(
                f"{where} does not answer ({first_line(error)}): start it with dask scheduler, or check the address "
                f"(for tls:// also distributed.comm.tls in Dask's configuration)"
            ) from error
        stack.callback(_closed, client)
        cluster = Cluster(client, where, workers.scheduler is None, workers.limit, tell, tell(), revive)
        try:
            client.wait_for_workers(workers.count or 1, timeout=PATIENCE)
        except TimeoutError as error:
            if not cluster.count():
                raise cluster.deserted() from error
        _check_versions(cluster)
        yield cluster


def _closed(client: Any) -> None:
    with contextlib.suppress(Exception):  # a scheduler that is gone cannot be told goodbye
        client.close(timeout=5)


def _check_versions(cluster: Cluster) -> None:
    try:
        answers: Mapping[str, Any] = cluster.client.run(cluster.tell, on_error="return")
    except Exception as error:
        raise cluster.lost() from error
    for address, answer in answers.items():
        check_stamp(f"the worker {address}", answer, cluster.stamp)


def check_stamp(who: str, found: str | BaseException, expected: str) -> None:
    """Refuses a worker that has something else installed.

    Raises:
        CarvanaEnsError: names both.
    """
    if found != expected:
        if isinstance(found, BaseException):
            found = f"something else installed ({type(found).__name__}: {first_line(found)})"
        raise CarvanaEnsError(f"{who} has {found}, here is {expected}: install the same on all machines")


def cuda_devices() -> list[str]:
    """The CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them; torch is not asked."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return re.findall(r"^GPU (\d+):", listed, flags=re.MULTILINE)


@contextmanager
def _local(count: int, device: str) -> Iterator[Any]:
    """A scheduler in this process, and worker processes by ``spawn``, which share processors and CUDA devices.

    A network's sums, and so the last bits of its maps, depend on its threads: it has one, with any number of workers,
    or as many as OMP_NUM_THREADS says.
    """
    import dask.config
    from distributed import Nanny, Scheduler, SpecCluster

    threads = max(1, default_threads() // count)
    devices = cuda_devices() if device in ("auto", "cuda") else []
    quiet = {"silence_logs": logging.CRITICAL, "host": "127.0.0.1", "dashboard": False}
    of_network = os.environ.get("OMP_NUM_THREADS", "1")
    spec = {}
    for number in range(count):
        # before torch is imported there: it reads all of them only once
        env = {"OMP_NUM_THREADS": of_network, "MKL_NUM_THREADS": of_network}
        if devices:
            env["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
        # no limit on memory: Dask would end a worker that a network has filled to 95 % of its share
        spec[number] = {"cls": Nanny, "options": {**quiet, "nthreads": threads, "memory_limit": 0, "env": env}}
    here = {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    head = {"cls": Scheduler, "options": {**here, "allowed_failures": LOCAL_KILLS}}
    # a worker that is slow to come back is not to be given up
    environment = set(os.environ)  # Dask sets more, for what it starts
    settings: dict[str, object] = {
        "distributed.worker.multiprocessing-method": "spawn",
        "distributed.deploy.lost-worker-timeout": "1 day",
        # what Dask's dashboard would draw, which is off: it takes 3 % of a processor of each worker that waits
        "distributed.worker.profile.enabled": False,
        "distributed.admin.tick.interval": "1s",
        "distributed.admin.system-monitor.interval": "5s",
    }
    settings |= {f"distributed.nanny.pre-spawn-environ.{name}": v for name, v in keeping_environment().items()}
    with dask.config.set(settings):
        with _unstopped():
            cluster = SpecCluster(  # type: ignore[no-untyped-call]
                workers=spec, scheduler=head, silence_logs=logging.CRITICAL
            )
        try:
            yield cluster
        finally:
            with contextlib.suppress(Exception):
                cluster.close(timeout=10)
            for name in set(os.environ) - environment:
                del os.environ[name]


def _nothing() -> None:
    """Workers of a scheduler elsewhere are the business of who started them."""


def _revive(local: Any) -> None:
    """A worker that ends while it is being started takes the process that watches it along: these are made anew."""
    from distributed import Status

    def forget() -> None:
        for name, nanny in list(local.workers.items()):
            if nanny.status in (Status.closed, Status.failed):
                del local.workers[name]

    if any(nanny.status in (Status.closed, Status.failed) for nanny in list(local.workers.values())):
        local.loop.add_callback(forget)
        local.scale(len(local.worker_spec))


@contextmanager
def _unstopped() -> Iterator[None]:
    """Ctrl-C waits, and never reaches what is started meanwhile: a terminal sends it to the worker processes too, but
    ending them is for this process, and the threads that start them (also anew) keep to what they began with.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # it would let Ctrl-C through again in the thread that starts it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask's own log off the terminal: what matters of it comes back as errors of ours."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
