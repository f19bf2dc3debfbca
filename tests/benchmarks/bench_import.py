"""carvana-ens import of PNG maps beside bare decoding, encoding and writing of the same maps.

Bare: Pillow decodes, zstd (level 1) compresses, and the bytes go to a file of their own; THREADS threads, nothing
checked, no checksum, no order. Prints seconds of each of RUNS runs in turn, their medians, and the ratio of the speeds.

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
    times: dict[str, list[float]] = {"bare": [], "import": []}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        draw(root / "maps", images)
        for run in range(RUNS + 1):
            start = time.perf_counter()
            bare(root / "maps", root / "bare", threads)
            middle = time.perf_counter()
            project = create_project(root / "cars", DataConfig(), FoldsConfig())
            begin = time.perf_counter()
            import_maps(project, "net", root / "maps", split="test", threads=threads)
            end = time.perf_counter()
            shutil.rmtree(root / "bare")
            shutil.rmtree(root / "cars")
            if run:  # the first reads the files and compiles
                times["bare"].append(middle - start)
                times["import"].append(end - begin)
                print(f"bare {middle - start:.2f} s, import {end - begin:.2f} s", flush=True)
    middles = {name: statistics.median(taken) for name, taken in times.items()}
    print(f"{images} maps of {SIZE[0]}x{SIZE[1]}, {threads} threads, medians of {RUNS} runs")
    print(f"import at {middles['bare'] / middles['import']:.0%} of bare decoding, encoding and writing")


if __name__ == "__main__":
    main()
