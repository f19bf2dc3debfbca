"""carvana-ens run: everything in one go, and again."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def two(project):
    """A project with a trained member and one that needs no training."""
    project.did("add-model", "learned-cut")
    project.did("add-model", "bright-cut", "--tta", "hflip")
    return project


def test_everything_and_the_second_time_nothing(two, oracle):
    out = two.root / "out" / "submission.csv.gz"
    done = two.did("run", "-o", out)
    assert [line for line in done.err.splitlines() if line in ("train", "predict", "tune", "blend")] == [
        "train", "predict", "tune", "blend",
    ]  # fmt: skip
    assert f"wrote {out}: 6 images" in done.out
    words = [call[0] for call in two.calls()]
    assert (words.count("fit"), words.count("predict") > 0) == (2, True)
    first = out.read_bytes()
    assert [name.removesuffix(".jpg") for name in oracle.read_rows(out)] == oracle.TEST
    two.did("run", "-o", out)
    assert two.calls() == []
    assert out.read_bytes() == first


def test_a_stopped_run_goes_on(two, monkeypatch):
    out = two.root / "submission.csv"
    monkeypatch.setenv("NUMPY_MODELS_STOP", "3")
    assert two.do("run", "-o", out).code == 130
    monkeypatch.delenv("NUMPY_MODELS_STOP")
    assert [call[2:] for call in two.calls("epoch")] == [["fold0", str(epoch)] for epoch in range(3)]
    two.did("run", "-o", out)
    assert [call[2:] for call in two.calls("epoch")] == [["fold1", str(epoch)] for epoch in range(3)]


def test_a_bad_output_is_refused_before_any_work(two):
    assert "out.txt" in two.do("run", "-o", two.root / "out.txt").error
    assert two.calls() == []


def test_several_processes_are_refused_before_any_work(two, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    done = two.do("run", "-o", two.root / "out.csv")
    assert done.code == 2
    assert "start carvana-ens train with torchrun" in done.error
    assert two.calls() == []


def test_what_a_run_needs_is_said_before_any_work(world):
    world.run("init", world.cars, "--images", world.images, "--masks", world.masks)
    world.did("add-model", "bright-cut")
    told = world.do("run").error
    assert "data.test" in told
    assert str(world.cars / "ensemble.toml") in told
    assert world.calls() == []


def test_imported_members_take_part(two):
    two.imported(("net", 1, 0, 0))
    two.did("run", "-o", two.root / "out.csv")
    assert list(json.loads((two.cars / "tuning.json").read_text())["singles"]) == ["learned-cut", "bright-cut", "net"]


def test_members_without_members(project):
    assert "has no members" in project.do("run").error
