"""What blending spaces and cuts of each image's own cost beside a plain blend at one threshold.

    python tests/benchmarks/bench_spaces.py FOLDER --masks MASKS
    python tests/benchmarks/bench_spaces.py FOLDER --images 8 --size 320x480

Maps, stores and options as in bench_search.py, on one thread. Needs carvana-ens[bench].
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench_search import HIGH, LOW, made, parsed, timed

from carvana_ens.core.rle import mask_bits
from carvana_ens.core.spaces import Space
from carvana_ens.ensemble.blending import Blend
from carvana_ens.ensemble.disputed import Disputed, keep_disputed
from carvana_ens.ensemble.search import search
from carvana_ens.ensemble.spaces import count_codes, fit_space
from carvana_ens.store.store import ProbabilityStore, open_store
from carvana_ens.verbs.bench.disk import image_ids, write_stores

FITTED = ("logit", "temperature", "rank", "vote")


def main() -> None:
    options = parsed()
    maps = made(options)
    print(maps.facts.line)
    print(f"{maps.distinct} images, {options.members} members, 1 thread")
    options.folder.mkdir(parents=True, exist_ok=True)
    ids = image_ids(maps.distinct)
    words = dict(zip(ids, map(mask_bits, maps.masks), strict=True))
    with tempfile.TemporaryDirectory(prefix="carvana-ens-spaces-", dir=options.folder) as folder:
        paths = write_stores(maps, options.members, maps.distinct, Path(folder))
        stores = {name: open_store(path) for name, path in paths.items()}
        measured(stores, ids, lambda image_id, _: words[image_id], options.runs)


def measured(stores: Mapping[str, ProbabilityStore], ids: list[str], truth: Any, runs: int) -> None:
    spaces = {kind: fit_space(kind, stores, ids, truth, threads=1) for kind in FITTED}

    def blended(**options: Any) -> Callable[[], Any]:
        blend = Blend(stores, **options)
        return lambda: [*blend.each(lambda _, bits: bits.size, 1)]

    def kept(space: Space) -> Disputed:
        low, high = space.thresholds(LOW, HIGH)
        return keep_disputed([*stores.values()], ids, truth, low, high, tables=space.tables([*stores]), threads=1)

    ways: dict[str, Callable[[], Any]] = {
        "blend": blended(),
        "blend, expected Dice": blended(cut="expected-dice"),
        **{f"blend, {kind}": blended(space=space) for kind, space in spaces.items()},
        "blend, temperature, expected Dice": blended(space=spaces["temperature"], cut="expected-dice"),
        "counting codes": lambda: count_codes(stores, ids, truth, threads=1),
        "disputed pixels": lambda: kept(Space()),
        **{f"disputed pixels, {kind}": lambda space=space: kept(space) for kind, space in spaces.items()},
    }
    pixels = {kind: kept(space) for kind, space in {"probability": Space(), **spaces}.items()}
    found = {kind: search(mine, rounds=5, restarts=0) for kind, mine in pixels.items()}
    ways |= {f"search, {kind}": lambda mine=mine: search(mine, rounds=5, restarts=0) for kind, mine in pixels.items()}
    taken = timed(ways, runs)
    for name, seconds in taken.items():
        first = taken["search, probability" if name.startswith("search") else "blend"]
        print(f"{name:36} {seconds * 1e3 / len(ids):>9.2f} ms an image {seconds / first:>6.2f}")
    for kind, outcome in found.items():
        print(
            f"{kind}: tuned Dice {outcome.best.score:.6f} at {outcome.best.threshold}, {len(pixels[kind].thresholds)} "
            f"thresholds, {pixels[kind].pixels.codes.nbytes / 1e6:.1f} MB kept"
        )


if __name__ == "__main__":
    main()
