"""carvana-ens import of PNG maps beside bare decoding, encoding and writing of the same maps.

Bare: Pillow decodes, zstd (level 1) compresses, and the bytes go to a file of their own; THREADS threads, nothing
checked, no checksum, no order. Prints seconds of each of RUNS runs in turn, and the ratio of the medians; of processor
time too, which other work on the machine moves less. What one wrote is removed before the other begins: who writes
while it lies there pays for fresh pages of memory, up to a tenth.

    python tests/benchmarks/bench_import.py [IMAGES] [THREADS]
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numcodecs.zstd
import numpy as np
import PIL.Image
import PIL.ImageFilter

from carvana_ens.project import DataConfig, FoldsConfig, create_project
from carvana_ens.verbs.import_maps import import_maps

SIZE = (1280, 1918)
RUNS = 5


def draw(folder: Path, images: int) -> None:
    """Maps with a soft rim and a little noise, as networks make them."""
    folder.mkdir()
    y, x = np.indices(SIZE)
    for number in range(images):
        rng = np.random.default_rng(number)
        inside = ((y - 640) / rng.uniform(250, 400)) ** 2 + ((x - 959) / rng.uniform(500, 800)) ** 2 <= 1
        soft = PIL.Image.fromarray(inside.astype(np.uint8) * 255).filter(PIL.ImageFilter.GaussianBlur(3))
        codes = np.asarray(soft).astype(np.int16) + rng.integers(-2, 3, SIZE, np.int16)
        PIL.Image.fromarray(np.clip(codes, 0, 255).astype(np.uint8)).save(folder / f"{number:04d}_01.png")


def bare(source: Path, target: Path, threads: int) -> None:
    target.mkdir()

    def one(path: Path) -> None:
        with PIL.Image.open(path) as picture:
            codes = np.array(picture)
        (target / path.stem).write_bytes(numcodecs.zstd.compress(codes, 1))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, sorted(source.iterdir())))


def main() -> None:
    images, threads = (int(word) for word in [*sys.argv[1:], *["64", "2"][len(sys.argv) - 1 :]])
    times: dict[str, list[tuple[float, float]]] = {"bare": [], "import": []}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        draw(root / "maps", images)
        for run in range(RUNS + 1):
            start = now()
            bare(root / "maps", root / "bare", threads)
            middle = now()
            shutil.rmtree(root / "bare")
            project = create_project(root / "cars", DataConfig(), FoldsConfig())
            begin = now()
            import_maps(project, "net", root / "maps", split="test", threads=threads)
            end = now()
            shutil.rmtree(root / "cars")
            if run:  # the first reads the files and compiles
                times["bare"].append((middle[0] - start[0], middle[1] - start[1]))
                times["import"].append((end[0] - begin[0], end[1] - begin[1]))
                print(f"bare {middle[0] - start[0]:.2f} s, import {end[0] - begin[0]:.2f} s", flush=True)
    print(f"{images} maps of {SIZE[0]}x{SIZE[1]}, {threads} threads, medians of {RUNS} runs")
    for which, what in enumerate(("clock", "processor time")):
        bare_one, import_one = (statistics.median(taken[which] for taken in times[name]) for name in times)
        print(f"import at {bare_one / import_one:.0%} of bare decoding, encoding and writing, by {what}")


def now() -> tuple[float, float]:
    """Seconds of the clock, and of processor time of all threads."""
    return time.perf_counter(), time.process_time()


if __name__ == "__main__":
    main()
