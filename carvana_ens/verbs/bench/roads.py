"""The roads from maps on disk to a submission: ours, the winning team's, and that of zarr's own indexing."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from carvana_ens.ensemble.blending import Blend
from carvana_ens.output.submission import write_submission
from carvana_ens.store.store import open_store
from carvana_ens.verbs.bench.numpy_ways import float_mask, lean_text

HEADER = ("img", "rle_mask")


def our_road(stores: Mapping[str, Path], output: Path, threads: int) -> Path:
    """What ``carvana-ens blend`` does: open the stores, blend, encode, write, in order."""
    combined = Blend({name: open_store(path) for name, path in stores.items()})
    write_submission(output, combined.rles(threads))
    return output


def png_road(cv2: Any, pandas: Any, files: Mapping[str, Sequence[Path]], output: Path) -> Path:
    """What the winning team's script did, without its writing of PNGs: read, weigh, cut, encode, pandas."""
    weight = np.float32(1)
    rows = []
    for image_id, paths in files.items():
        total: Any = None
        for path in paths:
            weighted = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.float32) * weight
            total = weighted if total is None else total + weighted
        mask = total / (weight * len(paths)) >= np.float32(127.5)
        rows.append((f"{image_id}.jpg", lean_text(mask)))
    return _with_pandas(pandas, rows, output)


def zarr_road(zarr: Any, pandas: Any, stores: Mapping[str, Path], ids: Sequence[str], output: Path) -> Path:
    """Public indexing of zarr for each map, numpy's mean and run lengths, pandas."""
    arrays = [zarr.open_group(path, mode="r")["prob"] for path in stores.values()]
    rows = []
    for number, image_id in enumerate(ids):
        codes = np.stack([array[number] for array in arrays])
        mask = float_mask(codes.reshape(len(codes), -1)).reshape(codes.shape[1:])
        rows.append((f"{image_id}.jpg", lean_text(mask)))
    return _with_pandas(pandas, rows, output)


def _with_pandas(pandas: Any, rows: list[tuple[str, str]], output: Path) -> Path:
    pandas.DataFrame(rows, columns=list(HEADER)).to_csv(output, index=False, compression="gzip")
    return output


def read_rows(path: Path) -> list[tuple[str, str]]:
    """Names and run lengths of a written submission; an empty mask is the empty text, quoted or not."""
    with gzip.open(path, "rt", newline="") as file:
        rows = [tuple(line.rstrip("\r\n").split(",")) for line in file]
    if rows[:1] != [HEADER]:
        return [("no header", str(rows[:1]))]
    return [(name, rle.strip('"')) for name, rle in rows[1:]]
