"""What the numbers hold for: the machine, and the versions of everything that takes part."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from carvana_ens.engine import default_threads

PACKAGES = (
    "carvana-ens",
    "numpy",
    "numba",
    "llvmlite",
    "zarr",
    "numcodecs",
    "google-crc32c",
    "isal",
    "pandas",
    "pillow",
    "opencv-python-headless",
    "pycocotools",
    "rlemasklib",
    "scikit-learn",
    "torch",
    "torchmetrics",
)
"""Whose versions are written down."""


@dataclass(frozen=True)
class Machine:
    """cache and memory in bytes, 0 where the system does not say; versions: None for what is not installed."""

    processor: str
    processors: int
    cache: int
    memory: int
    system: str
    python: str
    versions: dict[str, str | None]


def machine() -> Machine:
    """What the system says of the machine, and what is installed."""
    return Machine(
        processor=_processor(),
        processors=default_threads(),
        cache=cache_bytes(),
        memory=_memory(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        versions={name: _version(name) for name in PACKAGES},
    )


def cache_bytes() -> int:
    """Size of the last-level cache, 0 where the system does not say."""
    units = {"K": 10, "M": 20, "G": 30}
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max((int(size[:-1]) << units[size[-1]] for size in sizes if re.fullmatch("[0-9]+[KMG]", size)), default=0)


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on Windows
        return 0


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
