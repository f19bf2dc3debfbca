"""The verb bench, made tiny: every part is held, results are checked, what is missing is named; no time is judged."""

from __future__ import annotations

import gzip
import json
import sys

import numpy as np
import pytest

from carvana_ens.errors import CarvanaEnsError, DataError, UsageError
from carvana_ens.project import Project
from carvana_ens.types import Size
from carvana_ens.verbs.bench import COUNTS, PARTS, end_to_end, in_memory
from carvana_ens.verbs.bench.bench import RUN, Benched, bench
from carvana_ens.verbs.bench.course import Options
from carvana_ens.verbs.bench.disk import LAYOUTS

SMALL = Options(size=Size(80, 120), members=3, counts=(2, 10), images=3, rounds=2)
MADE = ("speckled",)
KEPT = [*MADE, "stored"]
PEERS = {
    "rle.mask": ["pycocotools", "rlemasklib"],
    "rle.coco": ["pycocotools", "rlemasklib"],
    "blend": ["opencv-python-headless"],
    "curve.all": ["scikit-learn", "torch", "torchmetrics"],
    "submission.one": ["opencv-python-headless", "pandas"],
}
"""Where peers take part that may be missing."""


def asked(**changes) -> Options:
    return Options(**{**SMALL.__dict__, **changes})


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Little memory to rotate through, and drawn masks."""
    monkeypatch.setattr("carvana_ens.verbs.bench.course.LEAST_MEMORY", 1 << 18)
    monkeypatch.setattr("carvana_ens.verbs.bench.course.MOST_MEMORY", 1 << 18)
    monkeypatch.delenv("CARVANA_ENS_DATA", raising=False)
    pytest.importorskip("cv2")


@pytest.fixture
def everything(project, tmp_path) -> Benched:
    """All parts on made maps and on stored ones, once for the tests that look at it."""

    def run() -> Benched:
        project.imported(("a", 1.5, -3, 60), ("b", 2.5, 4, 90))
        work = tmp_path / "work"
        reported = []
        done = bench(asked(kinds=MADE), project=Project(project.cars), work=work, report=reported.append)
        assert reported == done.contests
        assert not list(work.iterdir())  # nothing is left behind
        return done

    return project.kept("bench", run)


def test_every_part_is_held_on_every_kind_of_maps(everything):
    held = {(contest.part, contest.kind) for contest in everything.contests}
    parts = set(PARTS) - {"rle"}
    assert held == {(part, kind) for part in parts for kind in KEPT} | {("rle", "masks"), ("rle", "stored")}
    assert [facts.kind for facts in everything.maps] == KEPT
    names = [(contest.name, contest.kind) for contest in everything.contests]
    assert len(names) == len(set(names))


def test_rows_are_whole_and_their_ratios_fit_their_times(everything):
    for contest in everything.contests:
        names = [row.name for row in contest.rows]
        assert len(names) == len(set(names))
        limit = next((row for row in contest.rows if row.role == "limit"), None)
        ours = next((row for row in reversed(contest.rows) if row.role == "ours"), None)
        assert limit or ours
        for row in contest.rows:
            assert row.ms > 0
            assert row.spread_ms >= 0
            assert row.runs >= contest.rounds
            assert row.ms == (row.wall_ms if contest.clock == "wall" else row.cpu_ms)
            assert row.of_limit == (None if limit is None else pytest.approx(row.ms / limit.ms))
            assert row.of_ours == (None if ours is None else pytest.approx(row.ms / ours.ms))
        for package in PEERS.get(contest.name, []):
            there = len(contest.rows) > len([row for row in contest.rows if row.role != "peer"])
            assert there or package in contest.left_out


def test_every_layout_is_raced_end_to_end(everything):
    for contest in everything.contests:
        if contest.name.startswith(("submission", "members")):
            for layout in LAYOUTS:
                assert [row for row in contest.rows if f"ours, {layout}" in row.name], (contest.name, layout)
    assert {contest.name for contest in everything.contests if contest.part == "members"} == {"members.2", "members.10"}


def test_the_document_is_plain_json(everything):
    document = json.loads(json.dumps(everything.to_json()))
    assert document["schema"] == 1
    assert document["options"]["size"] == "80x120"
    assert document["machine"]["versions"]["numpy"] == np.__version__
    assert document["machine"]["processors"] >= 1
    assert [facts["kind"] for facts in document["maps"]] == KEPT
    assert all(0 < facts["exact_share"] < 1 for facts in document["maps"])
    assert len(document["contests"]) == len(everything.contests)
    assert document["contests"][0]["rows"][0]["ms"] == everything.contests[0].rows[0].ms
    assert document["bars"]


def test_masks_are_raced_on_once():
    done = bench(asked(parts=("read", "rle")))
    assert [(contest.part, contest.kind) for contest in done.contests] == [
        ("read", "saturated"),
        *[("rle", "masks")] * 4,
        ("read", "speckled"),
    ]


def test_parts_and_their_names_are_the_same_everywhere():
    assert tuple(RUN) == tuple(PARTS)
    assert Options().parts == tuple(PARTS)
    assert Options().counts == COUNTS


@pytest.mark.parametrize(
    ("part", "module", "name", "wrong", "told"),
    [
        ("rle", in_memory, "rle_encode", lambda mask: "1 1", "rle_encode gives another result"),
        ("rle", in_memory, "coco_encode", lambda mask: {"counts": b"1"}, "coco_encode gives another result"),
        ("rle", in_memory, "lean_text", lambda mask: "", "numpy, leanest form gives another result"),
        ("blend", in_memory, "float_mask", lambda codes: codes[0] > 200, "numpy, float32 mean"),
        ("curve", in_memory, "dice_curve", lambda *levels: np.full(255, 0.5), "histograms gives another result"),
        ("read", in_memory.np, "copyto", lambda into, codes: None, "memcpy"),
    ],
)
def test_a_wrong_contestant_is_refused(monkeypatch, part, module, name, wrong, told):
    monkeypatch.setattr(module, name, wrong)
    with pytest.raises(CarvanaEnsError, match=told):
        bench(asked(parts=(part,), kinds=("speckled",)))


def test_a_submission_with_one_wrong_row_is_refused(monkeypatch, tmp_path):
    def wrong(zarr, pandas, stores, ids, output):
        rows = "".join(f"{image_id}.jpg,1 1\n" for image_id in ids)
        output.write_bytes(gzip.compress(f"img,rle_mask\n{rows}".encode()))
        return output

    monkeypatch.setattr(end_to_end, "zarr_road", wrong)
    with pytest.raises(CarvanaEnsError, match="zarr's indexing, numpy, pandas gives another result"):
        bench(asked(parts=("submission",), kinds=("saturated",)), work=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("part", "module", "contest", "package"),
    [
        ("rle", "pycocotools.mask", "rle.mask", "pycocotools"),
        ("rle", "rlemasklib", "rle.coco", "rlemasklib"),
        ("curve", "sklearn.metrics", "curve.all", "scikit-learn"),
        ("curve", "torchmetrics.functional.classification", "curve.all", "torchmetrics"),
        ("members", "pandas", "members.2", "pandas"),
    ],
)
def test_a_missing_peer_is_named_and_left_out(monkeypatch, part, module, contest, package):
    monkeypatch.setitem(sys.modules, module, None)
    done = bench(asked(parts=(part,), kinds=("saturated",), counts=(2,)))
    held = next(found for found in done.contests if found.name == contest)
    assert package in held.left_out
    assert len(held.left_out) == len(set(held.left_out))
    assert not [row for row in held.rows if package in row.name]
    assert [row for row in held.rows if row.role == "ours"]


def test_without_opencv_no_maps_are_made(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UsageError, match=r"opencv-python-headless.*pip install 'carvana-ens\[bench\]'"):
        bench(asked(parts=("read",)))


def test_stored_maps_need_no_opencv(monkeypatch, project):
    project.imported(("a", 1.5, -3, 60))
    monkeypatch.setitem(sys.modules, "cv2", None)
    done = bench(asked(parts=("submission",), kinds=()), project=Project(project.cars))
    held = next(contest for contest in done.contests if contest.name == "submission.one")
    assert held.left_out == ["opencv-python-headless"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"parts": ("red",)}, "part 'red' is unknown to bench: there are read, rle"),
        ({"kinds": ("smooth",)}, "kind 'smooth' is unknown"),
        ({"rounds": 0}, "at least 1"),
        ({"counts": (8, 0)}, "at least 1"),
        ({"counts": ()}, "bench needs"),
        ({"members": 257}, "256 members"),
        ({"kinds": ()}, "no maps"),
    ],
)
def test_what_cannot_be_meant(changes, told):
    with pytest.raises(UsageError, match=told):
        bench(asked(**changes))


def test_a_project_without_complete_stores_is_refused(project):
    with pytest.raises(DataError, match="no complete store"):
        bench(asked(parts=("read",), kinds=()), project=Project(project.cars))
