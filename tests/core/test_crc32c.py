"""The checksum equals google-crc32c's, by the processor's instruction and by tables."""

from __future__ import annotations

import google_crc32c
import numpy as np
import pytest

from carvana_ens.core import crc32c as module

OCTETS = np.random.default_rng(0).integers(0, 256, 3000, np.uint8)


def test_the_check_value_of_the_standard():
    assert module.crc32c(np.frombuffer(b"123456789", np.uint8), 0, 9) == 0xE3069283


@pytest.mark.parametrize("begin", [0, 1, 3, 8, 13])
def test_any_part(begin):
    for length in (0, 1, 7, 8, 9, 16, 63, 64, 65, 1000, 2900):
        part = OCTETS[begin : begin + length].tobytes()
        assert module.crc32c(OCTETS, begin, begin + length) == google_crc32c.value(part)


def test_by_tables():
    """What processors without an instruction for it do."""
    crc = np.uint32(0xFFFF_FFFF)
    for at in range(0, 800, 8):
        crc = module._add_eight_by_tables(crc, OCTETS, at)
        assert crc ^ np.uint32(0xFFFF_FFFF) == google_crc32c.value(OCTETS[: at + 8].tobytes())
