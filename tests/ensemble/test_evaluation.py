"""Scores of masks, against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

from carvana_ens.ensemble.evaluation import evaluate_masks
from carvana_ens.errors import DataError


def test_numbers_equal_numpy(oracle):
    rng = np.random.default_rng(5)
    pairs = [(f"{car}_{n}", *(rng.random((2, 7, 10 + n)) < 0.4)) for n, car in enumerate("bbaac")]
    found = evaluate_masks(pairs, {i: i[0] for i, _, _ in pairs})
    scores = {i: oracle.naive_dice(a, b) for i, a, b in pairs}
    assert found.images == 5
    assert found.by_image == pytest.approx(scores, abs=1e-15)
    assert found.dice == pytest.approx(np.mean(list(scores.values())), abs=1e-15)
    both = sum(int((a & b).sum()) for _, a, b in pairs)
    assert found.pooled == pytest.approx(2 * both / sum(int(a.sum() + b.sum()) for _, a, b in pairs), abs=1e-15)
    assert list(found.by_group) == ["a", "b", "c"]
    assert found.by_group["b"] == pytest.approx((scores["b_0"] + scores["b_1"]) / 2, abs=1e-15)


def test_empty_masks():
    none, one = np.zeros((3, 3), bool), np.zeros((3, 3), bool)
    one[2, 2] = True
    pairs = [("both", none, none), ("only_found", one, none), ("only_true", none, one), ("equal", one, one)]
    found = evaluate_masks(pairs, dict.fromkeys(["both", "only_found", "only_true", "equal"], "g"))
    assert found.by_image == {"both": 1, "only_found": 0, "only_true": 0, "equal": 1}
    assert found.pooled == 0.5
    assert evaluate_masks(pairs[:1], {"both": "g"}).pooled == 1


def test_the_worst_come_first_and_equals_by_name():
    masks = {"c": 0, "a": 0, "b": 4, "d": 9}
    truth = np.ones((3, 3), bool)
    pairs = [(i, (np.arange(9) < n).reshape(3, 3), truth) for i, n in masks.items()]
    found = evaluate_masks(pairs, dict.fromkeys(masks, "g"))
    assert [image_id for image_id, _ in found.worst(3)] == ["a", "c", "b"]
    assert len(found.worst(10)) == 4


def test_nothing_to_score():
    with pytest.raises(DataError, match="no id in common"):
        evaluate_masks([], {})
