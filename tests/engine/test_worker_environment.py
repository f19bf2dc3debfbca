"""What worker processes of this machine find in their environment; no other cluster may be there meanwhile."""

from __future__ import annotations

import os
import platform

import pytest

from carvana_ens.engine.cluster import Workers, connected
from carvana_ens.engine.tasks import ordered

pytest.importorskip("distributed", reason="needs the extra [dist]")
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
MEMORY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**62)}
DASKS = {"MALLOC_ARENA_MAX": "5", "MALLOC_MMAP_MAX_": None, "MALLOC_TRIM_THRESHOLD_": "65536"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, THREADS | MEMORY),
        ({"OMP_NUM_THREADS": "3"}, {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3"} | MEMORY),
        ({"MALLOC_ARENA_MAX": "5"}, THREADS | DASKS),
    ],
)
def test_networks_have_one_thread_and_memory_is_kept_unless_the_user_says_otherwise(monkeypatch, own, expected):
    for name in [name for name in os.environ if name in expected or name.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(name)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with connected(Workers(count=2), platform.python_version) as there:
        found = dict(zip(expected, ordered(there, os.getenv, expected), strict=True))
    assert found == expected
    assert dict(os.environ) == before
