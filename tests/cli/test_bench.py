"""carvana-ens bench."""

from __future__ import annotations

import json
import re
import sys

import pytest

SMALL = ("--size", "80x120", "--members", "3", "--images", "2", "--rounds", "1")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr("carvana_ens.verbs.bench.course.LEAST_MEMORY", 1 << 18)
    monkeypatch.setattr("carvana_ens.verbs.bench.course.MOST_MEMORY", 1 << 18)
    monkeypatch.delenv("CARVANA_ENS_DATA", raising=False)


def test_the_report_and_the_document_say_the_same(run, tmp_path):
    pytest.importorskip("cv2")
    file = tmp_path / "bench.json"
    done = run("bench", "blend", "rle", *SMALL, "--kind", "speckled", "--json", file)
    assert done.code == 0
    document = json.loads(file.read_text())
    assert [contest["name"] for contest in document["contests"]] == [
        "rle.mask",
        "rle.bits",
        "rle.coco",
        "rle.back",
        "blend",
    ]
    for contest in document["contests"]:
        assert f"{contest['title']}  ({contest['kind']}; wall-clock time, median of 1 rounds)\n" in done.out
        for row in contest["rows"]:
            assert re.search(rf"^  {re.escape(row['name'])} +{row['ms']:.3f} ", done.out, re.MULTILINE), row["name"]
    assert "speckled maps of 80x120: made from 2 masks of drawn cars; " in done.out
    assert f"numba {document['machine']['versions']['numba']}" in done.out
    assert "(set for 1280x1918, 8 members)" in done.out
    assert "racing: " in done.err


def test_cpu_time_is_said(run):
    pytest.importorskip("cv2")
    done = run("bench", "read", *SMALL, "--kind", "saturated", "--clock", "cpu")
    assert "(saturated; CPU time, median of 1 rounds)" in done.out


def test_a_projects_own_maps(run, project):
    project.imported(("a", 1.5, -3, 60), ("b", 2.5, 4, 90))
    done = run("bench", "read", *SMALL, "--kind", "none", "--maps", project.cars)
    assert done.code == 0
    assert re.search(r"^stored maps of 48x71: 2 images of 2 stores in .*cars; ", done.out, re.MULTILINE)


def test_missing_peers_are_named(run, monkeypatch):
    pytest.importorskip("cv2")
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    done = run("bench", "rle", *SMALL, "--kind", "saturated")
    assert "  left out: pycocotools is not installed\n" in done.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["red"], "'red' is not one of 'read'"),
        (["--kind", "none"], "--maps"),
        (["--counts", "8,x"], "'8,x'"),
        (["--size", "80"], "HxW"),
        (["--rounds", "0"], "--rounds"),
        (["--clock", "sun"], "--clock"),
    ],
)
def test_what_cannot_be_meant(run, words, told):
    done = run("bench", *words)
    assert done.code == 2
    assert told in done.error


def test_without_opencv_the_cure_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    done = run("bench", "rle", *SMALL)
    assert done.code == 2
    assert "pip install 'carvana-ens[bench]'" in done.error
