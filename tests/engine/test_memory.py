"""Whether freed memory stays is seen by the pages that the system has to give again."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")

BLOCKS = """
import resource, sys, threading
from carvana_ens.engine.memory import freed_memory_kept, keep_freed_memory

def asked():
    b"x" * 20_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        b"x" * 20_000_000
        b"x" * 200_000_000
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

def resident():
    return int(open("/proc/self/statm").read().split()[1])

found = []
"""


def printed(lines: str, **variables: str) -> list[int]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))} | variables
    command = [sys.executable, "-c", BLOCKS + lines]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return [int(word) for word in done.stdout.split()]


def test_memory_that_is_kept_is_not_asked_for_again_in_any_thread():
    (plain,) = printed("asked(); print(*found)")
    here, there = printed("""
assert keep_freed_memory()
asked()
thread = threading.Thread(target=asked)
thread.start()
thread.join()
print(*found)
""")
    assert here < plain / 4  # the first of the large blocks is new
    assert there < plain / 100


def test_it_is_given_back_in_the_end_and_from_then_on():
    during, after, later = printed("""
with freed_memory_kept():
    blocks = [b"x" * 50_000_000 for _ in range(4)]
    del blocks
    print(resident())
print(resident())
blocks = [b"x" * 50_000_000 for _ in range(4)]
del blocks
print(resident())
""")
    less = 150_000_000 // os.sysconf("SC_PAGE_SIZE")
    assert after < during - less
    assert later < during - less


def test_what_the_user_has_set_stays():
    assert printed("print(int(keep_freed_memory()))", MALLOC_TRIM_THRESHOLD_="100000") == [0]
