"""carvana-ens demo, made small: every step of the real one, on fewer and smaller photos."""

from __future__ import annotations

import pandas
import PIL.Image
import pytest

from carvana_ens.types import Size
from carvana_ens.verbs import demo


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(demo, "CARS", 3)
    monkeypatch.setattr(demo, "VIEWS", 3)
    monkeypatch.setattr(demo, "SIZE", Size(96, 144))
    members = tuple((model, size and Size(32, 48), {"epochs": "1"} if size else {}) for model, size, _ in demo.MEMBERS)
    monkeypatch.setattr(demo, "MEMBERS", members)


@pytest.mark.slow
def test_the_demo_leaves_what_it_says_and_goes_on_where_it_was(small, tmp_path):
    said = []
    done = demo.demo(tmp_path, device="cpu", say=said.append)
    assert [line for line in said if line.startswith("sample-data")]
    rows = pandas.read_csv(done.submission)
    assert list(rows.columns) == ["img", "rle_mask"]
    assert sorted(rows["img"]) == sorted(path.name for path in (tmp_path / "sample" / "test_hq").iterdir())
    assert set(done.dice) == {"blend", "timm-unet", "unet-gray", "difference"}
    assert all(0 <= dice <= 1 for dice in done.dice.values())
    assert done.out_of_fold["tuned"] >= max(done.out_of_fold["equal"], done.out_of_fold["best single"])
    assert done.report.read_text(encoding="utf-8").startswith("<!doctype html>")
    for path in done.pictures:
        with PIL.Image.open(path) as picture:
            assert min(picture.size) > 100

    epochs = []
    again = demo.demo(tmp_path, device="cpu", report=lambda *numbers: epochs.append(numbers))
    assert epochs == []
    assert again.dice == done.dice
