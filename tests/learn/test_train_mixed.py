"""Training on photos of several sets: what reaches the network, and that a stopped run goes on exactly."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from carvana_ens.data.mixed import MixedImages, Part
from carvana_ens.learn import photos as photos_module
from carvana_ens.learn.photos import Photos
from carvana_ens.learn.resize import Padding
from carvana_ens.types import Size


class StoppedError(Exception):
    pass


@pytest.fixture
def soft(tiny):
    """A source of discs whose masks are soft."""

    class Soft(tiny.Memory):
        def target(self, image_id):
            rng = np.random.default_rng(int(image_id[4:]))
            return rng.random(self.shape, dtype=np.float32)

    return Soft


def mixed(tiny, soft, share="0.5", own=6, drawn=3):
    sets = tiny.Memory(0, own), soft(40, drawn)
    return MixedImages(
        [
            Part(sets[0], sets[0].ids),
            Part(sets[1], sets[1].ids, "pseudo p:", None if share is None else Fraction(share)),
        ]
    )


PLAIN = {"hflip": 0.0, "warp": 0.0, "light": 0.0, "repaint": 0.0}


def fit(tiny, folder, samples, epochs=3, report=lambda numbers: None, **options):
    model = tiny.TinyModel(tiny.config(epochs=epochs, batch_size=2, **options))
    return model.fit(tiny.task(folder, report, train=samples))


@pytest.mark.parametrize("cache", [True, False])
def test_soft_masks_reach_the_grid_as_they_are(tiny, soft, monkeypatch, cache):
    if not cache:
        monkeypatch.setattr(photos_module, "CACHE_BYTES", 0)
    samples = mixed(tiny, soft)
    drawn = soft(40, 3)
    own = Photos(samples, Size(40, 50))
    chunks = [[number] for number in range(len(own))]
    for _ in range(2):
        covers = [covers[0, 0].numpy() for _, covers in own.batches(chunks)]
        for image_id, cover in zip(drawn.ids, covers[6:], strict=True):
            assert np.array_equal(cover, np.rint(drawn.target(image_id) * 255))
        for image_id, cover in zip(tiny.Memory(0, 6).ids, covers[:6], strict=True):
            assert np.array_equal(cover, tiny.Memory(0, 6).mask(image_id) * 255)


def test_soft_masks_are_shrunk_by_area_and_padded(tiny, soft):
    samples = mixed(tiny, soft, None)
    target = soft(40, 3).target("disc41")
    half = Photos(samples, Size(20, 25))
    (cover,) = [covers[0, 0].numpy() for _, covers in half.batches([[7]])]
    assert np.abs(cover / 255 - target.reshape(20, 2, 25, 2).mean((1, 3))).max() <= 0.5 / 255 + 1e-6
    padded = Photos(samples, None, Padding("zero", "after", 16))
    (cover,) = [covers[0, 0].numpy() for _, covers in padded.batches([[7]])]
    assert np.array_equal(cover, np.rint(np.pad(target, ((0, 8), (0, 14))) * 255))


def test_each_mini_batch_has_its_share(tiny, soft, tmp_path, monkeypatch):
    samples, steps = mixed(tiny, soft), []
    read = Photos._read

    def spy(self, index):
        if self.samples is samples:
            steps.append(index)
        return read(self, index)

    monkeypatch.setattr(Photos, "_read", spy)
    fit(tiny, tmp_path, samples, epochs=2)
    # 6 photos and 5 soft ones an epoch: pairs of one each, and a photo in the end
    assert len(steps) == 22
    order = [number % 9 for epoch in (1, 2) for number in samples.order(3, epoch)]
    assert sorted(steps[:11]) == sorted(order[:11])
    assert sorted(steps[11:]) == sorted(order[11:])
    assert [sum(number >= 6 for number in order[i : i + 2]) for i in range(0, 10, 2)] == [1] * 5


def test_a_photo_that_comes_again_is_changed_in_another_way(tiny, soft, tmp_path, monkeypatch):
    from carvana_ens.learn import epochs

    drawn = []
    draw = epochs.draw_change
    monkeypatch.setattr(epochs, "draw_change", lambda o, s, e, index: drawn.append((e, index)) or draw(o, s, e, index))
    samples = mixed(tiny, soft, "0.5", own=6, drawn=2)
    fit(tiny, tmp_path, samples, epochs=2)
    assert drawn == [(epoch, number) for epoch in (1, 2) for number in samples.order(3, epoch)]
    assert len(set(drawn)) == len(drawn) == 22
    assert max(number for _, number in drawn) >= 8


def test_a_stopped_run_of_several_sets_goes_on_exactly(tiny, soft, tmp_path):
    whole = fit(tiny, tmp_path / "whole", mixed(tiny, soft), epochs=4)

    def stop(numbers):
        if numbers["epoch"] == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        fit(tiny, tmp_path / "stopped", mixed(tiny, soft), epochs=4, report=stop)
    again = fit(tiny, tmp_path / "stopped", mixed(tiny, soft), epochs=4)
    assert again.dice == whole.dice
    one, two = (load_file(tmp_path / name / "best.safetensors") for name in ("whole", "stopped"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_soft_masks_change_what_is_learned(tiny, soft, tmp_path):
    """The same photos with their masks, or with noise in their place."""
    hard = tiny.Memory(40, 3)
    own = tiny.Memory(0, 6)
    plain = MixedImages([Part(own, own.ids), Part(hard, hard.ids, "pseudo p:", Fraction(1, 2))])
    losses = {}
    for name, samples in (("plain", plain), ("soft", mixed(tiny, soft))):
        numbers = []
        fit(tiny, tmp_path / name, samples, epochs=6, report=numbers.append, **PLAIN)
        losses[name] = numbers[-1]["loss"]
    assert losses["soft"] > losses["plain"] + 0.1  # noise cannot be learned


def test_photos_without_shares_train_as_one_set(tiny, tmp_path):
    """Two halves mixed are the whole: the same order, the same parameters."""
    memory = tiny.Memory(0, 7)
    halves = MixedImages([Part(memory, memory.ids[:4]), Part(memory, memory.ids[4:])])
    fit(tiny, tmp_path / "whole", memory)
    fit(tiny, tmp_path / "halves", halves)
    one, two = (load_file(tmp_path / name / "best.safetensors") for name in ("whole", "halves"))
    assert all(torch.equal(one[key], two[key]) for key in one)
