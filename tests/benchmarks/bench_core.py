"""Speed of the core beside its limits and peers, measured side by side: medians in ms, and ratios.

    python tests/benchmarks/bench_core.py

Maps of 1280x1918 are made from the real masks where CARVANA_ENS_DATA is set, else from drawn ellipses: "clean" ones
are exactly 0 or 1 nearly everywhere, as well-trained networks give them, "noisy" ones hardly anywhere. Contestants
take turns in every round, on sets of maps that together exceed the last-level cache. All run in one thread, whose
CPU time is counted, so that other work on the machine disturbs little. Results are compared before they are timed.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from fractions import Fraction
from pathlib import Path

import numba
import numpy as np
from PIL import Image, ImageFilter

from carvana_ens.core.blend import blend_bits
from carvana_ens.core.curve import dice_curve, histograms
from carvana_ens.core.rle import mask_bits, rle_decode, rle_encode, rle_encode_bits_bytes
from carvana_ens.core.weights import cut_sum

HEIGHT, WIDTH, MEMBERS, ROUNDS = 1280, 1918, 8, 15
EQUAL = np.ones(MEMBERS, np.uint32)
HALF = cut_sum(Fraction(1, 2), 255, MEMBERS)


def masks(count):
    """(masks, where they are from)."""
    data = os.environ.get("CARVANA_ENS_DATA")
    if data:
        files = sorted((Path(data) / "carvana" / "train_masks").iterdir())
        chosen = []
        for file in files[:: max(len(files) // count, 1)][:count]:
            with Image.open(file) as image:
                chosen.append(np.array(image.convert("L")) > 127)
        return chosen, "real masks"
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return [
        ((y - 640) / (300 + 40 * i)) ** 2 + ((x - 960) / (700 - 30 * i)) ** 2 < 1 + 0.05 * np.sin(x / (9 + i))
        for i in range(count)
    ], "drawn ellipses (set CARVANA_ENS_DATA for real masks)"


def member_maps(mask, noisy, rng):
    """(M, P) codes: the mask, displaced and blurred a little differently for each member."""
    drawn = Image.fromarray(mask.astype(np.uint8) * 255)
    grain = rng.integers(0, 6, mask.shape, dtype=np.uint8)
    maps = []
    for _ in range(MEMBERS):
        soft = np.array(drawn.filter(ImageFilter.GaussianBlur(rng.uniform(0.7, 3))))
        soft = np.roll(soft, rng.integers(-2, 3, 2), (0, 1))
        if noisy:
            texture = np.roll(grain, rng.integers(0, 1000, 2), (0, 1))
            soft = np.where(soft < 128, np.maximum(soft, texture), np.minimum(soft, 255 - texture))
        maps.append(soft.reshape(-1))
    return np.stack(maps)


def cache_bytes():
    """Size of the last-level cache, 0 where the system does not say."""
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max((int(size[:-1]) << {"K": 10, "M": 20}[size[-1]] for size in sizes if size[-1] in "KM"), default=0)


def rotated(sets):
    """The sets again and again in fresh memory, more of it than the cache holds (at most 640 MB)."""
    wanted = min(max(160 << 20, cache_bytes() * 5 // 4), 640 << 20)
    return [sets[i % len(sets)].copy() for i in range(-(-wanted // sets[0].nbytes))]


def numpy_text(flat):
    """The lean numpy encoder: differences of the padded mask, joined."""
    padded = np.zeros(flat.size + 2, np.int8)
    padded[1:-1] = flat
    ends = np.flatnonzero(np.diff(padded)) + 1
    ends[1::2] -= ends[::2]
    return " ".join(map(str, ends))


def numpy_blend_text(codes):
    return numpy_text(codes.mean(0, dtype=np.float32) >= np.float32(127.5))


def our_blend_text(codes):
    return rle_encode_bits_bytes(blend_bits(codes, EQUAL, HALF), codes.shape[1]).decode()


def numpy_curve(codes, truth):
    """Dice at 255 thresholds, one after the other."""
    level = codes.sum(0, dtype=np.uint32) // MEMBERS
    area, curve = np.count_nonzero(truth), []
    for k in range(1, 256):
        on = level >= k
        predicted = np.count_nonzero(on)
        curve.append(2 * np.count_nonzero(on & truth) / (predicted + area) if predicted + area else 1.0)
    return np.array(curve)


def coco_text(counts):
    """The text of pycocotools' packed counts (5 bits a character, differences from the count two before)."""
    numbers, number, shift = [], 0, 0
    for octet in counts:
        piece = octet - 48
        number |= (piece & 31) << shift
        shift += 5
        if not piece & 32:
            if piece & 16:
                number -= 1 << shift
            if len(numbers) > 2:
                number += numbers[-2]
            numbers.append(number)
            number = shift = 0
    end, tokens = 0, []
    for off, on in zip(numbers[::2], numbers[1::2], strict=False):
        tokens += [end + off + 1, on]
        end += off + on
    return " ".join(map(str, tokens))


def race(contestants, items, rounds=ROUNDS):
    """Medians of CPU time in ms by name; the contestants take turns, each on the next item."""
    times = {name: [] for name in contestants}
    turn = 0
    for function in contestants.values():
        function(items[0])
    for _ in range(rounds):
        for name, function in contestants.items():
            turn += 1
            item = items[turn % len(items)]
            start = time.thread_time()
            function(item)
            times[name].append(time.thread_time() - start)
    return {name: statistics.median(values) * 1e3 for name, values in times.items()}


def show(title, medians, unit):
    """One block of the report; ratios are to the line named unit."""
    print(f"\n{title}")
    for name, ms in medians.items():
        print(f"  {name:<44} {ms:10.3f} ms {ms / medians[unit]:9.2f} x")


def same(left, right, what):
    if not np.array_equal(left, right):
        raise SystemExit(f"{what}: results differ, so their times say nothing")


def bench_encoders(chosen):
    contestants = {
        "rle_encode": rle_encode,
        "numpy diff + join": lambda mask: numpy_text(mask.reshape(-1)),
    }
    try:
        from pycocotools import mask as coco
    except ImportError:
        print("\npycocotools is not installed: left out")
    else:

        def packed(mask):
            return coco.encode(np.asfortranarray(mask.T.view(np.uint8)))["counts"]

        contestants["pycocotools, packed counts"] = packed
        contestants["pycocotools + text of its counts"] = lambda mask: coco_text(packed(mask))
        same(coco_text(packed(chosen[0])), rle_encode(chosen[0]), "pycocotools")
    same(numpy_text(chosen[0].reshape(-1)), rle_encode(chosen[0]), "numpy encoder")
    show("mask -> RLE text", race(contestants, chosen), "rle_encode")
    texts = [rle_encode(mask) for mask in chosen]
    show("RLE text -> mask", race({"rle_decode": lambda text: rle_decode(text, chosen[0].shape)}, texts), "rle_decode")


def main():
    chosen, source = masks(4)
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, cache {cache_bytes() >> 20} MiB, numpy {np.__version__}", end=""
    )
    print(f", numba {numba.__version__}; {MEMBERS} maps of {HEIGHT}x{WIDTH} from {source}")
    bench_encoders(chosen)
    for kind in ("clean", "noisy"):
        rng = np.random.default_rng(1)
        sets = [member_maps(mask, kind == "noisy", rng) for mask in chosen]
        exact = np.mean([((codes == 0) | (codes == 255)).mean() for codes in sets])
        for codes in sets:
            same(our_blend_text(codes), numpy_blend_text(codes), "blend")
        fresh = rotated(sets)
        limit = "reading the maps once (uint64 xor)"
        show(
            f"{kind} maps ({exact:.1%} exactly 0 or 1): blend at 0.5 + RLE text",
            race(
                {
                    limit: lambda codes: np.bitwise_xor.reduce(codes.reshape(-1).view(np.uint64)),
                    "blend_bits + rle_encode_bits": our_blend_text,
                    "numpy mean, cut, diff, join": numpy_blend_text,
                },
                fresh,
            ),
            limit,
        )
        truths = [mask.reshape(-1) for mask in chosen]
        pairs = [(codes, mask_bits(truth[None]), truth) for codes, truth in zip(sets, truths, strict=True)]

        def ours(pair, *levels):
            return dice_curve(*histograms(pair[0], EQUAL, pair[1], *levels))

        same(ours(pairs[0]), numpy_curve(pairs[0][0], pairs[0][2]), "Dice curve")
        medians = race(
            {
                "histograms + dice_curve": ours,
                "the same for thresholds 0.25..0.75": lambda pair: ours(pair, 64, 191),
                "numpy, 255 thresholds in a loop": lambda pair: numpy_curve(pair[0], pair[2]),
            },
            pairs,
            rounds=3,
        )
        show(f"{kind} maps: Dice at every threshold", medians, "histograms + dice_curve")


if __name__ == "__main__":
    main()
