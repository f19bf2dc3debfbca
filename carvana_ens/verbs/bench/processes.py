"""Our road in several processes side by side, which is what threads in one process are measured against."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

from carvana_ens.errors import CarvanaEnsError
from carvana_ens.verbs.bench.roads import our_road

_WORK = f"from {__name__} import work; work()"


class SideBySide:
    """Processes that each blend the same stores in one thread whenever ``run`` is called; a context manager.

    New interpreters that are told what to do line by line: unlike those of multiprocessing they do not run the
    caller's own script again.
    """

    def __init__(self, count: int, folder: Path) -> None:
        self._outputs = [folder / f"process{number}.csv.gz" for number in range(count)]
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> SideBySide:
        pipe = subprocess.PIPE
        for _ in self._outputs:
            self._processes.append(
                subprocess.Popen([sys.executable, "-c", _WORK], stdin=pipe, stdout=pipe, encoding="utf-8")
            )
        return self

    def run(self, stores: Mapping[str, Path]) -> list[Path]:
        """Lets all of them work at once, and waits; what they wrote.

        Raises:
            CarvanaEnsError: one of them failed.
        """
        paths = {name: str(path) for name, path in stores.items()}
        for process, output in zip(self._processes, self._outputs, strict=True):
            _tell(process.stdin, {"stores": paths, "output": str(output)})
        answers = [_heard(process.stdout) for process in self._processes]
        for fault in answers:
            if fault is not None:
                raise CarvanaEnsError(f"bench: a process beside this one failed: {fault}")
        return self._outputs

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            if error is not None:
                process.kill()
            process.communicate()


def _tell(pipe: IO[str] | None, what: object) -> None:
    """One line of JSON; a process that has gone is noticed when it does not answer."""
    try:
        print(json.dumps(what), file=pipe, flush=True)
    except BrokenPipeError:
        return


def _heard(pipe: IO[str] | None) -> str | None:
    line = pipe.readline() if pipe else ""
    fault: str | None = json.loads(line) if line else "it ended"
    return fault


def work() -> None:
    """What each process does: blends what every line that comes in names, and answers null or what went wrong."""
    for line in sys.stdin:
        task, fault = json.loads(line), None
        try:
            our_road({name: Path(path) for name, path in task["stores"].items()}, Path(task["output"]), 1)
        except CarvanaEnsError as error:
            fault = str(error)
        _tell(sys.stdout, fault)
