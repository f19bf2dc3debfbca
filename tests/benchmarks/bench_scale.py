"""Time and memory of a blend as the images become ten times as many: stores on disk to a .csv.gz.

    python tests/benchmarks/bench_scale.py FOLDER
    python tests/benchmarks/bench_scale.py FOLDER --size 320x480 --counts 2000 20000

Writes stores into a folder of its own under FOLDER and removes it at the end: 2,000 images of 8 members at 1280x1918
take about 1 GB with saturated maps, 5 GB with speckled ones. A few pictures are made and repeated under other ids,
each time moved by a row. Every blend runs in a process of its own, whose anonymous memory (RssAnon: what it asked for
itself, without the page cache) is read 20 times a second. Needs Linux, and carvana-ens[bench].
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from own_memory import watched

from carvana_ens.types import Size
from carvana_ens.verbs.bench import KINDS
from carvana_ens.verbs.bench.disk import LAYOUTS, bytes_of, image_ids, laid_out, write_stores
from carvana_ens.verbs.bench.maps import Maps, drawn_masks, made_maps
from carvana_ens.verbs.bench.numpy_ways import exact_mask, usual_text
from carvana_ens.verbs.bench.peers import Peers
from carvana_ens.verbs.bench.roads import our_road, read_rows

DISTINCT = 4
RAW_SHARE = 6
"""Plain stores of these maps are at least this much smaller than the maps; what must be free on the disk."""


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[200, 2000], help="images, one run each")
    parser.add_argument("--size", type=Size.parse, default=Size(1280, 1918), help="HxW")
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--kind", choices=[*KINDS], default="saturated")
    parser.add_argument("--layout", choices=[*LAYOUTS], default=list(LAYOUTS)[-1])
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def blend_here(task: dict) -> dict:
    """Blends, and watches the memory meanwhile; in a process of its own."""
    stores = {name: Path(path) for name, path in task["stores"].items()}
    with watched() as memory:
        start = time.perf_counter()
        our_road(stores, Path(task["output"]), task["threads"])
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "start": memory.start, "peak": memory.peak}


def in_process(task: dict) -> dict:
    command = [sys.executable, __file__, "--blend"]
    done = subprocess.run(command, input=json.dumps(task), text=True, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def check(maps: Maps, members: int, output: Path, count: int) -> None:
    """The number of rows, and the first and the last ones against int64."""
    rows = read_rows(output)
    if [name for name, _ in rows] != [f"{image_id}.jpg" for image_id in image_ids(count)]:
        raise SystemExit(f"{len(rows)} rows written, {count} expected: the blend is wrong")
    for image in {*range(min(DISTINCT, count)), count - 1}:
        mask = exact_mask(maps.stack(image, members)).reshape(maps.size)
        if rows[image][1] != usual_text(mask):
            raise SystemExit(f"the mask of {rows[image][0]} is wrong")


def measured(options: argparse.Namespace, maps: Maps, count: int, folder: Path) -> tuple[dict, float]:
    """What ``blend_here`` measured on so many images, and GB of their stores; the result is checked."""
    wanted = count * options.members * options.size.height * options.size.width // RAW_SHARE
    if shutil.disk_usage(folder).free < wanted:
        raise SystemExit(f"{options.folder} has too little room: {count} images may take {wanted >> 30} GiB")
    plain = write_stores(maps, options.members, count, folder)
    stores = laid_out(options.layout, plain, folder)
    task = {
        "stores": {name: str(path) for name, path in stores.items()},
        "output": str(folder / "out.csv.gz"),
        "threads": options.threads,
    }
    result = in_process(task)
    check(maps, options.members, folder / "out.csv.gz", count)
    return result, bytes_of(stores.values()) / 1e9


def main() -> None:
    options = parsed()
    masks, source = drawn_masks(DISTINCT, options.size)
    with Peers() as peers:
        maps = made_maps(peers.need("cv2", "making maps from masks"), options.kind, masks, source, options.members)
    print(maps.facts.line)
    print(f"{options.members} members of {options.size}, layout {options.layout}, {options.threads} threads")
    print(f"{'IMAGES':>8} {'SECONDS':>9} {'MS/IMAGE':>9} {'MB AT MOST':>11} {'MB BEFORE':>10} {'GB READ':>8}")
    results = []
    options.folder.mkdir(parents=True, exist_ok=True)
    # the first run is not shown: kernels may have to be compiled in it
    for place, count in enumerate([DISTINCT, *options.counts]):
        with tempfile.TemporaryDirectory(prefix="carvana-ens-scale-", dir=options.folder) as folder:
            result, held = measured(options, maps, count, Path(folder))
        if place:
            results.append((count, result["seconds"], result["peak"] / 1e6))
            print(
                f"{count:>8} {result['seconds']:>9.2f} {result['seconds'] / count * 1e3:>9.2f} "
                f"{result['peak'] / 1e6:>11.0f} {result['start'] / 1e6:>10.0f} {held:>8.2f}",
                flush=True,
            )
    (few, few_seconds, few_peak), (many, many_seconds, many_peak) = results[0], results[-1]
    print(
        f"{many / few:.1f} times the images: {many_seconds / few_seconds:.2f} times the time, "
        f"{many_peak - few_peak:+.0f} MB of memory"
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["--blend"]:
        print(json.dumps(blend_here(json.load(sys.stdin))))
    else:
        main()
