"""The 1st-place team's last merge by verbs alone: four folders of PNG maps imported, blended and repaired.

Beside it the literal cv2 version of ``tests/ensemble/test_winners_merge.py``, which reads the same PNG files.
"""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

spec = importlib.util.spec_from_file_location(
    "carvana_ens_tests_merge", Path(__file__).parents[1] / "ensemble" / "test_winners_merge.py"
)
merge = importlib.util.module_from_spec(spec)
spec.loader.exec_module(merge)


def rows_of(text):
    """Longer than the fields that Python's csv module reads: ties leave many runs."""
    header, *rows = text.splitlines()
    assert header == "img,rle_mask"
    return dict(row.split(",") for row in rows)


@pytest.mark.parametrize("kind", ["half", "full"])
def test_masks_and_repairs_are_theirs(world, oracle, kind):
    half = kind == "half"
    size, steps, numbers = (
        (merge.SIZE, merge.HALF, (5, 10000, 25)) if half else ((1280, 1918), merge.MERGE, (10, 40000, 50))
    )
    scale = size[0] // merge.SIZE[0]
    cases = merge.CASES if half else {name: merge.CASES[name] for name in ("sound_01", "roof_02")}
    world.run("init", world.cars)
    for number, (image_id, roof) in enumerate(cases.items()):
        for name, codes in merge.drawn(number, roof and tuple(scale * place for place in roof), size).items():
            oracle.save_grey(world.root / name / f"{image_id}.png", codes)
    for name in merge.SETS:
        done = world.did("import", name, "--from", world.root / name, "--split", "test")
        assert f"{len(cases)} maps imported" in done.out
    words = ("blend", "--weights", "equal", "--threshold", "128/255")
    world.did(*words, "-o", world.root / "plain.csv")
    out, masks = world.root / "s2.csv.gz", world.root / "masks"
    done = world.did(*words, "--postprocess", steps, "-o", out, "--masks", masks, "--check")
    assert f"{len(cases)} of {len(cases)} rows are their masks" in done.out

    plain = rows_of((world.root / "plain.csv").read_text())
    rows = rows_of(gzip.decompress(out.read_bytes()).decode())
    fired = []
    for image_id in cases:
        read = {
            name: cv2.imread(str(world.root / name / f"{image_id}.png"), cv2.IMREAD_GRAYSCALE) for name in merge.SETS
        }
        expected, fires = merge.theirs(read, *numbers)
        written = cv2.imread(str(masks / f"{image_id}.png"), cv2.IMREAD_GRAYSCALE)
        assert np.count_nonzero((written > 0) != expected) == 0, image_id
        assert np.array_equal(oracle.naive_decode(rows[f"{image_id}.jpg"], size), expected)
        # of a repaired photo all is cut anew, over 127, which moves over 1000 pixels of the drawn ones
        assert (plain[f"{image_id}.jpg"] != rows[f"{image_id}.jpg"]) == fires
        fired += [image_id] * fires
    assert 0 < len(fired) < len(cases)
