"""Whether freed memory stays is seen by the pages that the system has to give again."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from carvana_ens.engine.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory() == (sys.argv[2] == "ours")
b"x" * 20_000_000
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    b"x" * 20_000_000
    b"x" * 25_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str, whose: str = "ours", **variables: str) -> int:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))} | variables
    command = [sys.executable, "-c", FAULTS, how, whose]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_memory_that_is_kept_is_not_asked_for_again():
    assert faults("kept") < faults("plain") / 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_what_the_user_has_set_stays():
    faults("kept", "theirs", MALLOC_TRIM_THRESHOLD_="100000")
