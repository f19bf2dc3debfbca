"""Slow numpy twins of the kernels: written for being obviously right, each under the name of its kernel."""

from __future__ import annotations

import re

import numpy as np


def bits_of(flat):
    """Bit words of a flat mask, one bit at a time."""
    words = [0] * -(-len(flat) // 64)
    for pixel, on in enumerate(flat):
        if on:
            words[pixel // 64] |= 1 << (pixel % 64)
    return np.array(words, np.uint64)


def sums(codes, weights):
    return (codes.astype(np.int64) * np.asarray(weights, np.int64)[:, None]).sum(0)


def blend(codes, weights, cut_sum):
    """(P,) bool."""
    return sums(codes, weights) >= cut_sum


def histogram(codes, weights, truth, full_scale, low=1, high=None):
    """(object, other) counts of floor(sum / W); levels below low are 0, from high on S."""
    high = full_scale if high is None else high
    level = sums(codes, weights) // int(np.sum(weights, dtype=np.int64))
    level[level < low] = 0
    level[level >= high] = full_scale
    return [np.bincount(level[chosen], minlength=full_scale + 1) for chosen in (truth, ~truth)]


def count_common(a, b):
    """(in both, in a, in b) of two flat masks."""
    return int((a & b).sum()), int(a.sum()), int(b.sum())


def dice(a, b):
    both, in_a, in_b = count_common(a, b)
    return 2 * both / (in_a + in_b) if in_a + in_b else 1.0


def run_ends(flat):
    """(R, 2) first and past-last pixel of each run."""
    padded = np.concatenate([[0], np.asarray(flat, np.int8), [0]])
    return np.flatnonzero(np.diff(padded)).reshape(-1, 2)


def count_runs(flat):
    return len(run_ends(flat))


def pack_mask(flat):
    """(bit words, number of runs) of flat octets."""
    return bits_of(np.asarray(flat) != 0), count_runs(np.asarray(flat) != 0)


def write_runs(flat):
    return " ".join(f"{first + 1} {end - first}" for first, end in run_ends(flat))


def read_runs(text, pixels):
    """[(start, length), ...] of a text that keeps the rules, None for any other."""
    if text == "":
        return []
    if not re.fullmatch(r"[0-9]+( [0-9]+)*", text):
        return None
    numbers = [int(token) for token in text.split(" ")]
    if len(numbers) % 2:
        return None
    runs = list(zip(numbers[::2], numbers[1::2], strict=True))
    end = 0
    for start, length in runs:
        if start <= end or length < 1 or start + length - 1 > pixels:
            return None
        end = start + length - 1
    return runs


def fill_runs(runs, pixels):
    flat = np.zeros(pixels, np.bool_)
    for start, length in runs:
        flat[start - 1 : start - 1 + length] = True
    return flat


def column_edges(mask):
    """(where a pixel differs from the one before it, column by column; the number of such pixels in each column)."""
    flat = np.concatenate([[False], mask.T.reshape(-1)])
    edges = (flat[1:] != flat[:-1]).reshape(mask.shape[::-1]).T
    return edges, edges.sum(0)


def column_counts(mask):
    counts, on = [0], False
    for pixel in mask.T.reshape(-1):
        if pixel != on:
            counts.append(0)
            on = pixel
        counts[-1] += 1
    return counts


def write_counts(counts):
    """COCO's text: the shortest two's complement of each number in digits of base 32, the last one first."""
    text = ""
    for index, count in enumerate(counts):
        number = count - counts[index - 2] if index > 2 else count
        digits = next(k for k in range(1, 99) if -(32**k) <= 2 * number < 32**k)
        text += "".join(
            chr(48 + number // 32**digit % 32 + (32 if digit < digits - 1 else 0)) for digit in range(digits)
        )
    return text


def read_counts(text, pixels):
    """The counts of a COCO text of that many pixels, None for any other text."""
    if not re.fullmatch(r"([P-o]{0,11}[0-O])*", text):
        return None
    counts = []
    for token in re.findall(r"[P-o]*[0-O]", text):
        digits = [ord(character) - 48 & 31 for character in token]
        number = sum(digit * 32**place for place, digit in enumerate(digits))
        if digits[-1] >= 16:
            number -= 32 ** len(digits)
        counts.append(number + counts[-2] if len(counts) > 2 else number)
    return counts if min(counts, default=0) >= 0 and sum(counts) == pixels else None


def fill_columns(counts, size):
    height, width = size
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


SIZES = [(1, 1), (1, 2), (1, 63), (64, 1), (1, 65), (7, 9), (8, 8), (5, 13), (127, 1), (3, 43), (16, 40), (1, 4097)]
"""One row, one column, and pixel counts on both sides of the 64 of a word."""


def corner_masks():
    """Masks of every size, by name."""
    rng = np.random.default_rng(11)
    masks = {}
    for height, width in SIZES:
        size = height, width
        one = np.zeros(size, np.bool_)
        one[height // 2, width // 2] = True
        first, last = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
        first[0, 0] = last[-1, -1] = True
        every_second = (np.arange(height * width) % 2 == 0).reshape(size)
        named = {
            "empty": np.zeros(size, np.bool_),
            "full": np.ones(size, np.bool_),
            "one": one,
            "first": first,
            "last": last,
            "ends": first | last,
            "all but the ends": ~(first | last),
            "every second": every_second,
            "the others": ~every_second,
            "random": rng.random(size) < 0.5,
            "few runs": rng.random(size) < 0.02,
        }
        masks.update({f"{height}x{width} {name}": mask for name, mask in named.items()})
    return masks


def code_kinds(members, pixels, dtype, cut):
    """(M, P) codes that take each path of a pruned kernel, by name; cut is the code at the threshold."""
    rng = np.random.default_rng([members, pixels])
    full = np.iinfo(dtype).max
    agreed = np.where(rng.random(pixels) < 0.5, full, 0)
    few = np.where(rng.random((members, pixels)) < 1 / 64, full - agreed, agreed)
    kinds = {
        "all 0": np.zeros((members, pixels)),
        "all full": np.full((members, pixels), full),
        "at the cut": np.full((members, pixels), cut),
        "under the cut": np.full((members, pixels), cut - 1),
        "around the cut": rng.integers(max(cut - 2, 0), min(cut + 2, full) + 1, (members, pixels)),
        "random": rng.integers(0, full, (members, pixels), endpoint=True),
        "few disagree": few,
        "one pixel": np.where(np.arange(pixels) == pixels // 2, full, 0) * np.ones((members, 1)),
        "first and last": np.where(np.isin(np.arange(pixels), (0, pixels - 1)), full, 0) * np.ones((members, 1)),
    }
    return {name: np.ascontiguousarray(codes.astype(dtype)) for name, codes in kinds.items()}
