"""Time and memory of tuning as images become more: the disputed pass and the whole search, of 30 members.

    python tests/benchmarks/bench_tune_scale.py FOLDER
    python tests/benchmarks/bench_tune_scale.py FOLDER --counts 64 128 --memory 100

Writes stores into a folder of its own under FOLDER and removes it at the end. A few pictures are made and repeated
under other ids, moved by a row each. Each number of images is tuned in a process of its own, at a threshold of .5 and
between .25 and .75, on as many threads as there are processors; its anonymous memory (RssAnon: what it asked for
itself, without the page cache and the spilled file) is read 20 times a second. The last line says what 5,088 images
would take if all went on growing as between the last two. Needs Linux, and carvana-ens[bench].
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
from own_memory import watched

from carvana_ens.core.rle import mask_bits
from carvana_ens.engine import default_threads
from carvana_ens.ensemble.disputed import keep_disputed
from carvana_ens.ensemble.search import search
from carvana_ens.store.store import open_store
from carvana_ens.types import Size
from carvana_ens.verbs.bench import KINDS
from carvana_ens.verbs.bench.disk import write_stores
from carvana_ens.verbs.bench.maps import drawn_masks, made_maps
from carvana_ens.verbs.bench.peers import Peers

DISTINCT, ALL = 8, 5088
RANGES = {".5": (Fraction(1, 2), Fraction(1, 2)), ".25 to .75": (Fraction(1, 4), Fraction(3, 4))}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[32, 64, 128], help="images, rising")
    parser.add_argument("--members", type=int, default=30)
    parser.add_argument("--size", type=Size.parse, default=Size(1280, 1918), help="HxW")
    parser.add_argument("--kind", choices=[*KINDS], default="saturated")
    parser.add_argument("--memory", type=float, default=2000, help="MB of pixels beyond which they are spilled")
    return parser.parse_args()


def tune_here(task: dict) -> dict:
    """Tunes, and watches the memory meanwhile; in a process of its own."""
    words = np.load(task["masks"])
    stores = [open_store(Path(path)) for path in task["stores"]]
    ids = stores[0].ids[: task["images"]]
    size = stores[0].sizes[0]

    def truth(image_id: str, _: Size) -> np.ndarray:
        number = stores[0].index[image_id]
        mask = words[number % len(words)]
        return mask_bits(np.roll(mask, number // len(words), 0)) if number >= len(words) else mask_bits(mask)

    low, high = RANGES[task["range"]]
    spilled = {"memory": int(task["memory"] * 1e6), "folder": Path(task["folder"])}
    with watched() as memory:
        start = time.perf_counter()
        pixels = keep_disputed(stores, ids, truth, low, high, **spilled)
        passed = time.perf_counter()
        found = search(pixels)
        end = time.perf_counter()
    return {
        "pass": passed - start,
        "search": end - passed,
        "kept": pixels.pixels.codes.nbytes / 1e6,
        "share": pixels.pixels.codes.size / (len(ids) * size.height * size.width * len(stores)),
        "anonymous": memory.peak / 1e6,
        "score": found.best.score,
    }


def main() -> None:
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        print(json.dumps(tune_here(json.loads(sys.argv[1]))))
        return
    options = parsed()
    with Peers() as peers:
        masks, source = drawn_masks(DISTINCT, options.size)
        maps = made_maps(peers.need("cv2", "making maps from masks"), options.kind, masks, source, options.members)
    print(maps.facts.line)
    print(f"{options.members} members, {default_threads()} threads, spilled beyond {options.memory:g} MB")
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="carvana-ens-tune-", dir=options.folder) as folder:
        paths = write_stores(maps, options.members, max(options.counts), Path(folder))
        np.save(Path(folder) / "masks.npy", np.stack(masks))
        print(
            f"{'THRESHOLD':12}{'IMAGES':>8}{'PASS s':>9}{'SEARCH s':>10}{'KEPT MB':>9}{'SHARE':>8}{'ANONYMOUS MB':>14}"
        )
        for name in RANGES:
            rows = []
            for images in options.counts:
                task = {
                    "stores": [str(path) for path in paths.values()],
                    "masks": f"{folder}/masks.npy",
                    "images": images,
                    "range": name,
                    "memory": options.memory,
                    "folder": folder,
                }
                command = [sys.executable, __file__, json.dumps(task)]
                row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                rows.append((images, row))
                print(
                    f"{name:12}{images:>8}{row['pass']:>9.2f}{row['search']:>10.2f}{row['kept']:>9.1f}"
                    f"{row['share']:>8.2%}{row['anonymous']:>14.0f}",
                    flush=True,
                )
            (few, before), (many, after) = rows[-2], rows[-1]
            grown = {key: after[key] + (after[key] - before[key]) / (many - few) * (ALL - many) for key in after}
            print(
                f"{name:12}{ALL:>8}{grown['pass']:>9.0f}{grown['search']:>10.0f}{grown['kept']:>9.0f}  if it goes on so"
            )


if __name__ == "__main__":
    main()
