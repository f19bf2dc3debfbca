"""Slow numpy twins of the kernels: written for being obviously right, each under the name of its kernel."""

from __future__ import annotations

import re
from fractions import Fraction

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
    """Bit words of flat octets."""
    return bits_of(np.asarray(flat) != 0)


def write_runs(flat):
    return " ".join(f"{first + 1} {end - first}" for first, end in run_ends(flat))


def room_for(flat):
    """Octets that are enough for the runs and a word more of them, each number as long as the number of pixels."""
    return (count_runs(flat) + 34) * 2 * (len(str(len(flat))) + 1) + 8


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


def split(flat, low, high, full):
    """(planes low, high and exact, bool (3, halves); hot literals; cold literals, (n, 32)) of whole halves of codes."""
    halves = flat.reshape(-1, 32)
    is_low, is_high = (halves <= low).all(1), (halves >= high).all(1)
    exact = (halves == 0).all(1) | (halves == full).all(1)
    return np.stack([is_low, is_high, exact]), halves[~is_low & ~is_high], halves[(is_low | is_high) & ~exact]


def fold(halves, full):
    """Cold halves, (n, 32) codes, as cold parts hold them: (n, 16) octets of uint8, (n, 48) of uint16."""
    far = np.where(halves > full // 2, full - halves.astype(int), halves)
    digits = [far // 16**place % 16 for place in range(1 if full == 255 else 3)]
    return np.concatenate([digit[:, ::2] + 16 * digit[:, 1::2] for digit in digits], axis=1).astype(np.uint8)


def write_planes(planes):
    """The planes, bool (3, halves), in short: a bit for every word that is not as the one before, and these words."""
    marks, changed = [], []
    for plane in planes:
        words = bits_of(plane).tolist()
        differ = [word != before for word, before in zip(words, [0, *words], strict=False)]
        marks.extend(bits_of(differ).tolist())
        changed.extend(word for word, new in zip(words, differ, strict=True) if new)
    return np.array(marks + changed, np.uint64)


def read_planes(short, halves):
    """The planes, bool (3, halves), of what ``write_planes`` wrote, None for anything else."""
    count = -(-halves // 64)
    marks = -(-count // 64)
    if len(short) < 3 * marks:
        return None
    changed, planes = [int(word) for word in short[3 * marks :]], []
    for number in range(3):
        word, plane = 0, []
        own = [int(mark) for mark in short[number * marks : (number + 1) * marks]]
        for at in range(64 * marks):
            if own[at // 64] >> at % 64 & 1:
                if at >= count or not changed:
                    return None
                word = changed.pop(0)
            plane += [word >> bit & 1 == 1 for bit in range(64)] * (at < count)
        planes.append(plane)
    low, high, exact = planes = np.array(planes)
    if changed or (low & high).any() or (exact & ~low & ~high).any() or (low | high)[halves:].any():
        return None
    return planes[:, :halves]


def join(planes, full, hot, cold):
    """(halves, 32) codes; hot, cold: lists of literals."""
    hot, cold, halves = list(hot), list(cold), []
    for low, high, exact in planes.T:
        if exact:
            halves.append([full * high] * 32)
        else:
            halves.append((cold if low or high else hot).pop(0))
    return np.array(halves)


def blend_files(codes, weights, cut_sum, low, high, full):
    """(bits that hold whatever the cold codes are, (P,) bool; the halves where they hang on them).

    codes: (M, P), P whole halves, all in one scale. A cold code lies in 0..low or in high..full.
    """
    least, greatest = codes.astype(np.int64), codes.astype(np.int64)
    for member, flat in enumerate(codes):
        (is_low, is_high, exact), _, _ = split(flat, low, high, full)
        for cold, bottom, top in ((is_low & ~exact, 0, low), (is_high & ~exact, high, full)):
            least[member, np.repeat(cold, 32)] = bottom
            greatest[member, np.repeat(cold, 32)] = top
    least, greatest = blend(least, weights, cut_sum), blend(greatest, weights, cut_sum)
    return least, np.flatnonzero((least != greatest).reshape(-1, 32).any(1))


def find_halves(planes, chosen):
    """(kind, which of its kind or None) of each chosen half of each member; planes: (M, 3, halves) bool.

    Cold ones of both ends are counted together.
    """
    found = []
    for low, high, exact in planes:
        hot, cold = ~low & ~high, (low | high) & ~exact
        named = []
        for half in chosen:
            if hot[half]:
                named.append(("hot", int(hot[:half].sum())))
            elif cold[half]:
                named.append(("high cold" if high[half] else "low cold", int(cold[:half].sum())))
            else:
                named.append(("full" if high[half] else "none", None))
        found.append(named)
    return found


def settle(codes, weights, cut_sum, chosen):
    """(chosen, 32) bool from all codes, (M, P)."""
    return blend(codes, weights, cut_sum).reshape(-1, 32)[chosen]


def whole_halves(flat):
    """Codes of a picture with the last one repeated to an even number of halves."""
    return np.concatenate([flat, np.full(-len(flat) % 64, flat[-1], flat.dtype)])


def look_up(table, codes):
    return [int(table[code]) for code in codes]


def values_of(tables, codes):
    """(M, P) values of (M, P) codes."""
    return np.array([look_up(table, row) for table, row in zip(tables, codes, strict=True)])


def blend_values(tables, codes, weights, cut_sum):
    return blend(values_of(tables, codes), weights, cut_sum)


def bound_values(tables, codes, low, high):
    """(any value is at least low, every value is at least high)."""
    values = values_of(tables, codes)
    return values.max(0) >= low, values.min(0) >= high


def expected_dice(hist, level):
    """2 sum(p over the mask) / (mask + sum(p)) of the pixels at a level or above, p = l / S; nothing at all: 1."""
    full_scale = len(hist) - 1
    p = [Fraction(k, full_scale) for k in range(full_scale + 1)]
    on = sum(int(count) for count in hist[level:])
    mass = sum(p[k] * int(hist[k]) for k in range(full_scale + 1))
    mass_on = sum(p[k] * int(hist[k]) for k in range(level, full_scale + 1))
    return 2 * mass_on / (on + mass) if on + mass else Fraction(1)


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


def sure_kinds(size, dtype, seed=0):
    """Maps as networks give them and as they never do, by name: most codes near the ends of the scale."""
    rng = np.random.default_rng([*size, seed])
    step = 257 if dtype == np.uint16 else 1
    top, (height, width) = 255 * step, size
    y, x = np.indices(size)
    shape = np.hypot((y + 0.5) / height - 0.5, (x + 0.5) / width - 0.5)
    ramp = np.clip((0.3 - shape) * 4 * max(size) + 127, 0, 255) * step
    bottom, high = rng.integers(0, 12 * step, size, endpoint=True), rng.integers(243 * step, top, size, endpoint=True)
    noisy = np.where(shape < 0.3, high, bottom)
    sparse = rng.random(size) < 1 / 64
    kinds = {
        "all 0": np.zeros(size),
        "all full": np.full(size, top),
        "disk": np.where(shape < 0.3, top, 0),
        "edge": ramp,
        "low noise": bottom,
        "high noise": high,
        "noise": noisy,
        "noise and edge": np.where(shape < 0.3, ramp, bottom),
        "bounds": rng.choice([0, 12 * step, 12 * step + 1, 243 * step - 1, 243 * step, top], size),
        "few bounds": np.where(sparse, rng.choice([12 * step + 1, 243 * step - 1], size), noisy),
        "random": rng.integers(0, top, size, endpoint=True),
        "one": np.where((y == height // 2) & (x == width // 2), top, 0),
    }
    return {name: np.ascontiguousarray(codes.astype(dtype)) for name, codes in kinds.items()}


def find_disputed(codes, truth, low, high):
    """((P,) bool disputed, (sure and object, sure, object)) of flat truth."""
    sure = codes.min(0) >= high
    disputed = (codes.max(0) >= low) & ~sure
    return disputed, (int((sure & truth).sum()), int(sure.sum()), int(truth.sum()))


def take_disputed(codes, truth, disputed):
    """(codes of the disputed pixels, their truth), filled up to a multiple of 64 with zeros."""
    more = -int(disputed.sum()) % 64
    return np.pad(codes[:, disputed], ((0, 0), (0, more))), np.pad(truth[disputed], (0, more))


def count_reached(codes, truth, weights, cut_sum):
    """(object pixels, all pixels) of one whole map that reach the cut."""
    on = blend(codes, weights, cut_sum)
    return [int((on & truth).sum()), int(on.sum())]


def count_each_added(codes, truth, weights, cut_sum):
    """The same with one more for each weight in turn."""
    return [count_reached(codes, truth, np.asarray(weights) + one, cut_sum) for one in np.eye(len(weights), dtype=int)]


def count_levels(codes, truth, weights, low, high):
    """The same at each threshold low / S .. high / S."""
    total = int(np.sum(weights, dtype=np.int64))
    return [count_reached(codes, truth, weights, level * total) for level in range(low, high + 1)]


def count_flips(codes, truth, weights, member, values, level):
    """The same at threshold level / S with the weight of a member set to each of these values."""
    counts = []
    for value in values:
        tried = [value if place == member else int(weight) for place, weight in enumerate(weights)]
        counts.append(count_reached(codes, truth, tried, -(-level.numerator * sum(tried) // level.denominator)))
    return counts
