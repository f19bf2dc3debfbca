from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carvana_ens.data.mixed import MixedImages, Part, spread
from carvana_ens.errors import DataError


class Set:
    """Photos of one grey level each, with masks that are on in as many columns."""

    def __init__(self, first: int, count: int) -> None:
        self.ids = [f"p{number}" for number in range(first, first + count)]

    def image(self, image_id: str) -> np.ndarray:
        return np.full((2, 300, 3), int(image_id[1:]), np.uint8)

    def mask(self, image_id: str) -> np.ndarray:
        return np.broadcast_to(np.arange(300) < int(image_id[1:]), (2, 300))


class Soft(Set):
    def target(self, image_id: str) -> np.ndarray:
        return np.full((2, 300), int(image_id[1:]) / 300, np.float32)


def part(samples: Set, prefix: str = "", share: str | None = None) -> Part:
    return Part(samples, samples.ids, prefix, None if share is None else Fraction(share))


def test_ids_get_the_prefix_of_their_part_and_lead_back_to_it() -> None:
    mixed = MixedImages([part(Set(10, 3)), part(Set(11, 3), "extra1:"), part(Soft(12, 2), "pseudo x:", "0.5")])
    assert mixed.ids == (
        *("p10", "p11", "p12"),
        *("extra1:p11", "extra1:p12", "extra1:p13"),
        *("pseudo x:p12", "pseudo x:p13"),
    )
    assert mixed.image("extra1:p13")[0, 0, 0] == 13
    assert mixed.mask("p12").sum() == mixed.mask("extra1:p12").sum() == 24
    assert mixed.target("extra1:p11").dtype == np.float32
    assert set(np.unique(mixed.target("extra1:p11"))) == {0.0, 1.0}
    assert np.unique(mixed.target("pseudo x:p12")).tolist() == [np.float32(0.04)]


def test_only_the_ids_of_a_part_take_part() -> None:
    samples = Set(0, 5)
    mixed = MixedImages([part(Set(7, 2)), Part(samples, ["p4", "p1"], "e:")])
    assert mixed.ids == ("p7", "p8", "e:p4", "e:p1")


def test_an_id_of_two_parts_and_an_empty_part_are_refused() -> None:
    with pytest.raises(DataError, match="image 'p2' is in two sets"):
        MixedImages([part(Set(0, 3)), part(Set(2, 2))])
    with pytest.raises(DataError, match="left of pseudo x:"):
        MixedImages([part(Set(0, 3)), part(Set(0, 0), "pseudo x:", "0.5")])


def test_without_shares_every_photo_comes_once_in_the_order_of_the_seed() -> None:
    mixed = MixedImages([part(Set(0, 9)), part(Set(0, 4), "e:")])
    order = mixed.order(3, 2)
    assert order == np.random.default_rng((3, 2)).permutation(13).tolist()  # as for photos of one set
    assert mixed.order(3, 3) != order != mixed.order(4, 2)


SHARES = st.lists(st.integers(1, 30), min_size=0, max_size=3).map(lambda parts: [Fraction(n, 100) for n in parts])


@given(SHARES, st.integers(1, 200))
def test_every_run_of_photos_has_its_share_of_each_stream(shares: list[Fraction], count: int) -> None:
    turns = spread(shares, count)
    assert turns.count(0) == count
    assert turns[-1] == 0
    whole = [1 - sum(shares), *shares]
    slack = max(len(shares), 1)  # with one share: the floor or the ceiling of it
    for stream, share in enumerate(whole):
        before = np.concatenate([[0], np.cumsum(np.array(turns) == stream)])
        for size in (1, 2, 5, 16):
            runs = before[size:] - before[:-size] if len(turns) >= size else np.array([], int)
            assert np.all(np.abs(runs - float(size * share)) < slack + 1e-9)


@pytest.mark.parametrize(("share", "batch", "counts"), [("0.3", 10, {3}), ("0.5", 2, {1}), ("0.25", 8, {2})])
def test_mini_batches_have_the_chosen_share(share: str, batch: int, counts: set[int]) -> None:
    mixed = MixedImages([part(Set(0, 60)), part(Set(0, 40), "pseudo:", share)])
    order = mixed.order(0, 1)
    full = [order[i : i + batch] for i in range(0, len(order) - batch + 1, batch)]
    assert {sum(place % 100 >= 60 for place in chunk) for chunk in full} == counts


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 90), st.integers(0, 5))
def test_epochs_go_through_a_drawn_part_again_and_again(own: int, size: int, percent: int, seed: int) -> None:
    mixed = MixedImages([part(Set(0, own)), part(Set(0, size), "d:", f"{percent}/100")])
    drawn: list[int] = []
    for epoch in range(1, 6):
        order = mixed.order(seed, epoch)
        assert order == mixed.order(seed, epoch)
        assert len(set(order)) == len(order)  # a photo that comes again has another number
        places = [number % len(mixed.ids) for number in order]
        assert sorted(place for place in places if place < own) == list(range(own))
        assert [number for number, place in zip(order, places, strict=True) if places.count(place) == 1] == [
            place for place in places if places.count(place) == 1
        ]
        drawn += [place for place in places if place >= own]
    counts = Counter(drawn)
    assert max(counts.values(), default=0) - min((counts[own + n] for n in range(size)), default=0) <= 1
    for start in range(0, len(drawn) - size + 1, size):  # whole passes, across the ends of epochs
        assert sorted(drawn[start : start + size]) == list(range(own, own + size))


def test_passes_through_a_drawn_part_differ() -> None:
    mixed = MixedImages([part(Set(0, 20)), part(Set(0, 20), "d:", "0.5")])
    passes = {tuple(place for place in mixed.order(0, epoch) if 20 <= place < 40) for epoch in range(1, 5)}
    assert len(passes) == 4
