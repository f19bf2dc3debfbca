"""LZ4 blocks decode as numcodecs decodes them, and whatever else is given is refused and touches nothing outside."""

from __future__ import annotations

import numcodecs.lz4
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carvana_ens.core.lz4 import SPARE, decode_block

GUARD = 77


def decoded(block, length, before=b""):
    """What the kernel makes of a block between guards, None where it refuses it; before: decoded octets before it."""
    source = np.concatenate([np.frombuffer(bytes(block), np.uint8), np.full(SPARE, GUARD, np.uint8)])
    out = np.full(len(before) + length + 2 * SPARE, GUARD, np.uint8)
    out[: len(before)] = np.frombuffer(before, np.uint8)
    fine = decode_block(source, 0, len(block), out, len(before), len(before) + length)
    assert bytes(out[: len(before)]) == before
    assert (out[len(before) + length + SPARE :] == GUARD).all()
    return bytes(out[len(before) : len(before) + length]) if fine else None


def by_numcodecs(block, length):
    try:
        return bytes(numcodecs.lz4.decompress(length.to_bytes(4, "little") + bytes(block)))
    except RuntimeError:
        return None


def contents():
    """Octets of every sort that codes come in, by name."""
    rng = np.random.default_rng(3)
    yield "nothing new", b"a"
    yield "noise", rng.integers(0, 256, 5000, np.uint8).tobytes()
    yield "one octet", bytes(70_000)
    for period in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 300):
        for length in (13, 40, 1000):
            yield f"period {period}, {length}", (rng.integers(0, 256, period, np.uint8).tobytes() * length)[:length]
    edges = np.clip(rng.normal(0, 200, (400, 1)) + 20 * np.arange(32) - 320, 0, 255)
    yield "edges", edges.astype(np.uint8).tobytes()
    yield "far", rng.integers(0, 256, 66_000, np.uint8).tobytes() * 2
    yield "long runs", np.repeat(rng.integers(0, 256, 40, np.uint8), rng.integers(1, 900, 40)).tobytes()


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in contents()])
@pytest.mark.parametrize("acceleration", [1, 50])
def test_what_numcodecs_wrote_is_read(content, acceleration):
    block = numcodecs.lz4.compress(content, acceleration)[4:]
    assert decoded(block, len(content)) == content
    assert decoded(block, len(content), b"what came before") == content
    for length in {0, len(content) - 1, len(content) + 1}:
        assert decoded(block, length) is None
    for size in {0, 1, len(block) // 2, len(block) - 1}:
        assert decoded(block[:size], len(content)) is None


@settings(max_examples=400, deadline=None)
@given(
    which=st.integers(0, 40),
    damage=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_damaged_blocks_are_read_as_numcodecs_reads_them_or_refused(which, damage):
    """numcodecs takes some blocks that break the format's rules for the last octets; none is read otherwise."""
    content = [content for _, content in contents()][which % 47][:20_000]
    block = bytearray(numcodecs.lz4.compress(content)[4:])
    for at, octet in damage:
        block[at % len(block)] = octet
    found = decoded(block, len(content))
    expected = by_numcodecs(block, len(content))
    assert found == expected or found is None or expected is None
    if found is not None and expected is None:
        assert found == slowly(block)  # liblz4 asks that a block ends in five literals


def slowly(block):
    """The block format as its description says it, octet by octet."""
    out, at = bytearray(), 0
    while True:
        token, at = block[at], at + 1
        length = token >> 4
        while length >= 15 and (token >> 4) == 15:
            more, at = block[at], at + 1
            length += more
            if more != 255:
                break
        out += block[at : at + length]
        at += length
        if at == len(block):
            return bytes(out)
        offset, at = block[at] + 256 * block[at + 1], at + 2
        length = token & 15
        while (token & 15) == 15:
            more, at = block[at], at + 1
            length += more
            if more != 255:
                break
        for _ in range(length + 4):
            out.append(out[-offset])


@settings(max_examples=300, deadline=None)
@given(block=st.binary(max_size=80), length=st.integers(0, 400))
def test_any_octets_do_no_harm(block, length):
    found = decoded(block, length)
    if found is not None:
        assert found == slowly(block)


def test_slowly_is_right():
    for name, content in contents():
        assert slowly(numcodecs.lz4.compress(content)[4:]) == content, name
