"""Run-length encodings of many masks at once, dialect "carvana", on as many threads as asked for.

Threads pay off for large masks on idle processors. Small ones are done sooner by one thread: most of their time is
Python's own work, which takes turns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from carvana_ens.core import rle_kernels as kernels
from carvana_ens.core.jit import run
from carvana_ens.core.rle import check_mask, pixels_of, rle_encode, runs_of
from carvana_ens.errors import CarvanaEnsError, UsageError
from carvana_ens.types import Mask, Size

_PARTS = 4
"""Parts of the work a thread: some take longer than others."""


def rle_encode_many(masks: Iterable[Mask], threads: int = 1) -> list[str]:
    """``rle_encode`` of each mask, in order.

    Args:
        masks: bool (N, H, W), or N masks (H, W) of any sizes.
        threads: how many to work on at a time.

    Raises:
        UsageError: not a bool array of two axes with at least one pixel; the message names its index. Or no thread.
    """
    masks = list(masks)
    for index, mask in enumerate(masks):
        with _naming("masks", index):
            check_mask(mask)
    texts = [""] * len(masks)

    def encode(index: int) -> None:
        texts[index] = rle_encode(masks[index])

    _for_each(len(masks), encode, threads)
    return texts


def rle_decode_many(texts: Iterable[str], size: Size, threads: int = 1) -> NDArray[np.bool_]:
    """The bool (N, H, W) masks of N texts of one size, checked like ``rle_decode``.

    Args:
        texts: the N encodings.
        size: height and width of each mask.
        threads: how many to work on at a time.

    Raises:
        RLEError: a text breaks the rules; the message names the first such one by its index.
        UsageError: the size is not two positive numbers, one text in the place of many, or no thread.
    """
    if isinstance(texts, str):
        raise UsageError("rle_decode_many takes a list of texts, got one text: put it into a list, or use rle_decode")
    texts = list(texts)
    flat = np.zeros((len(texts), pixels_of(size)), np.bool_)

    def decode(index: int) -> None:
        with _naming("texts", index):
            run(kernels.fill_runs, runs_of(texts[index], size), flat[index])

    _for_each(len(texts), decode, threads)
    return flat.reshape(len(texts), *size)


def _for_each(count: int, work: Callable[[int], None], threads: int) -> None:
    """Calls work with 0 ... count - 1; raises the error of the least index."""
    if threads < 1:
        raise UsageError(f"{threads} threads can do no work: give 1 or more")

    def part(indices: range) -> None:
        for index in indices:
            work(index)

    if threads == 1:
        part(range(count))
        return
    pieces = threads * _PARTS
    with ThreadPoolExecutor(threads) as pool:
        parts = [range(count * piece // pieces, count * (piece + 1) // pieces) for piece in range(pieces)]
        list(pool.map(part, parts))


@contextlib.contextmanager
def _naming(what: str, index: int) -> Iterator[None]:
    """Puts the place of a bad item before the message of its error."""
    try:
        yield
    except CarvanaEnsError as error:
        raise type(error)(f"{what}[{index}]: {error}") from error
