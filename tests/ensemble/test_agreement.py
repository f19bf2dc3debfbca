"""Agreement of errors, against scikit-learn on all pixels."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, jaccard_score, matthews_corrcoef

from carvana_ens.core.rle import mask_bits
from carvana_ens.ensemble.agreement import Agreement, common_pixels, error_agreement, member_bits
from carvana_ens.ensemble.stack import MapStack
from carvana_ens.errors import DataError, UsageError
from carvana_ens.types import Size

THRESHOLDS = [Fraction(1, 2), Fraction(100, 255), Fraction(7, 10), Fraction(1, 2)]
SIZES = {"a_1": Size(9, 13), "a_2": Size(9, 13), "b_1": Size(1, 67), "b_2": Size(16, 8)}


@pytest.fixture
def made(store):
    """(truth by id, stores): noise around the truth, the last member the first's with other noise at some pixels."""
    rng = np.random.default_rng(2)
    truth = {i: rng.random(size) < 0.4 for i, size in SIZES.items()}
    maps = [{i: np.clip(rng.normal(90 + 80 * m, 60), 0, 255).astype(np.uint8) for i, m in truth.items()} for _ in "123"]
    maps.append({i: np.where(rng.random(m.shape) < 0.1, 255 - m, m) for i, m in maps[0].items()})
    return truth, [store(f"m{number}", some) for number, some in enumerate(maps)]


def wrongs(truth, stores, thresholds):
    """(M, pixels) bool of all images together, in plain numpy."""
    full = [store.full_scale for store in stores]
    return np.array(
        [
            np.concatenate([(store.read(i) / scale >= float(cut)).ravel() != m.ravel() for i, m in truth.items()])
            for store, scale, cut in zip(stores, full, thresholds, strict=True)
        ]
    )


@pytest.mark.parametrize("threads", [1, 3])
def test_numbers_equal_scikit_learn(made, threads):
    truth, stores = made
    found = error_agreement(MapStack(stores), SIZES, lambda i, _: mask_bits(truth[i]), THRESHOLDS, threads=threads)
    wrong = wrongs(truth, stores, THRESHOLDS)
    assert found.pixels == wrong.shape[1] == sum(height * width for height, width in SIZES.values())
    assert found.errors.tolist() == wrong.sum(1).tolist()
    for matrix, score in (
        (found.jaccard(), jaccard_score),
        (found.kappa(), cohen_kappa_score),
        (found.correlation(), matthews_corrcoef),
    ):
        expected = np.array([[score(a, b) for b in wrong] for a in wrong])
        assert np.allclose(matrix, expected, rtol=0, atol=1e-12)
        assert matrix[0, 3] > matrix[0, 1] + 0.2  # the copy is found


def test_scales_mix(store):
    rng = np.random.default_rng(4)
    truth = {"a": rng.random((5, 20)) < 0.5}
    codes = rng.integers(0, 256, (5, 20))
    narrow, wide = store("n", {"a": codes.astype(np.uint8)}), store("w", {"a": (codes * 257).astype(np.uint16)})
    found = error_agreement(
        MapStack([narrow, wide]), {"a": Size(5, 20)}, lambda i, _: mask_bits(truth[i]), [Fraction(2, 5)] * 2
    )
    assert (found.both == wrongs(truth, [narrow], [Fraction(2, 5)]).sum()).all()


def test_members_that_never_or_always_err():
    found = Agreement(10, np.array([[0, 0, 0], [0, 10, 4], [0, 4, 4]]))
    assert found.jaccard().tolist() == [[1, 0, 0], [0, 1, 0.4], [0, 0.4, 1]]
    assert found.kappa().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert found.correlation().tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_pixels_on_in_both():
    rng = np.random.default_rng(7)
    masks = rng.random((3, 5, 31)) < 0.5
    found = common_pixels(np.stack([mask_bits(mask) for mask in masks]))
    assert found.tolist() == [[int((a & b).sum()) for b in masks] for a in masks]


def test_at_the_cut_a_pixel_is_on():
    codes = np.array([[99, 100, 101], [99, 100, 101]], np.uint8)
    assert member_bits(codes, [100, 101]).tolist() == [[0b110], [0b100]]


def test_what_cannot_be_meant(made):
    truth, stores = made
    stack = MapStack(stores)
    with pytest.raises(DataError, match="no image to compare"):
        error_agreement(stack, {}, lambda i, _: mask_bits(truth[i]), THRESHOLDS)
    with pytest.raises(UsageError, match="3 thresholds for 4 members"):
        error_agreement(stack, {"a_1": SIZES["a_1"]}, lambda i, _: mask_bits(truth[i]), THRESHOLDS[:3])
    with pytest.raises(DataError, match="the mask of b_2 has 1 words of bits, its maps 2"):
        error_agreement(stack, {"b_2": SIZES["b_2"]}, lambda *_: mask_bits(truth["b_2"][:4]), THRESHOLDS)
