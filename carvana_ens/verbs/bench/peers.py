"""The libraries that we are measured against, loaded by name: one that is missing is named and left out.

zarr and torch are contestants here like the others, and not what we work with; they too are loaded by name.
"""

from __future__ import annotations

import importlib
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from carvana_ens.errors import UsageError
from carvana_ens.verbs.bench import EXTRA

DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "numcodecs": "numcodecs",
    "pandas": "pandas",
    "pycocotools": "pycocotools",
    "rlemasklib": "rlemasklib",
    "sklearn": "scikit-learn",
    "torch": "torch",
    "torchmetrics": "torchmetrics",
    "zarr": "zarr",
}
"""What to install for each library."""


class Peers:
    """The libraries in use; a context manager. Each is told to use one thread, and put back at the end."""

    def __init__(self) -> None:
        self._put_back = ExitStack()
        self._loaded: set[str] = set()

    def __enter__(self) -> Peers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._put_back.close()

    def find(self, module: str) -> Any | None:
        """A module (``pycocotools.mask``), None where its package is not installed."""
        try:
            found = importlib.import_module(module)
        except ImportError:
            return None
        if module not in self._loaded:
            self._loaded.add(module)
            self._in_one_thread(module, found)
        return found

    def need(self, module: str, why: str) -> Any:
        """A module that there is no going on without.

        Raises:
            UsageError: it is not installed; why: what needs it.
        """
        found = self.find(module)
        if found is None:
            raise UsageError(f"{why} needs {distribution(module)}, which is not installed: {EXTRA}")
        return found

    def missing(self, *modules: str) -> list[str]:
        """What would have to be installed to have these modules."""
        return [distribution(module) for module in modules if self.find(module) is None]

    def _in_one_thread(self, module: str, found: Any) -> None:
        if module == "cv2":
            self._put_back.callback(found.setNumThreads, found.getNumThreads())
            found.setNumThreads(1)
        elif module == "torch":
            self._put_back.callback(found.set_num_threads, found.get_num_threads())
            found.set_num_threads(1)
        elif module == "numcodecs.blosc":
            self._put_back.callback(setattr, found, "use_threads", found.use_threads)
            found.use_threads = False


def distribution(module: str) -> str:
    """The package that brings a module."""
    return DISTRIBUTIONS[module.partition(".")[0]]
