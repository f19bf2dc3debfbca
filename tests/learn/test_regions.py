from __future__ import annotations

import numpy as np
import pytest

from carvana_ens.errors import TrainingError, UsageError
from carvana_ens.learn.recipe import TorchOptions
from carvana_ens.learn.regions import Box, CroppedImages, CroppedSamples, box_around
from carvana_ens.model import parse_options
from carvana_ens.types import Size


def slow_box(found, margin):
    pixels = [(y, x) for y in range(found.shape[0]) for x in range(found.shape[1]) if found[y, x]]
    if not pixels:
        return (0, 0, *found.shape)
    rows, columns = zip(*pixels, strict=True)
    inside = [
        (y, x)
        for y in range(min(rows) - margin, max(rows) + margin + 1)
        for x in range(min(columns) - margin, max(columns) + margin + 1)
        if 0 <= y < found.shape[0] and 0 <= x < found.shape[1]
    ]
    return (*inside[0], inside[-1][0] + 1, inside[-1][1] + 1)


@pytest.mark.parametrize("margin", [0, 1, 5, 100])
@pytest.mark.parametrize("seed", range(6))
def test_the_box_holds_what_was_found_and_a_margin(seed, margin):
    rng = np.random.default_rng(seed)
    found = np.zeros((13, 17), bool)
    found[rng.integers(0, 13, seed), rng.integers(0, 17, seed)] = True  # seed 0 finds nothing
    assert box_around(found, margin) == slow_box(found, margin)


def test_a_box_of_one_pixel_and_of_the_whole():
    corner = np.zeros((3, 4), bool)
    corner[2, 3] = True
    assert box_around(corner, 0) == (2, 3, 3, 4)
    assert box_around(np.ones((3, 4), bool), 7) == (0, 0, 3, 4)


def test_what_is_cut_out_and_pasted_back_lies_where_it_was():
    values = np.random.default_rng(0).random((6, 9)).astype(np.float32) + 1
    box = Box(1, 2, 5, 8)
    whole = box.pasted(box.cut(values), Size(6, 9))
    inside = np.zeros((6, 9), bool)
    inside[1:5, 2:8] = True
    assert np.array_equal(whole, np.where(inside, values, 0))
    assert box.cut(np.zeros((6, 9, 3))).shape == (4, 6, 3)


def boxes(image_id):
    return Box(int(image_id[4:]), 3, 30, 40)


def test_photos_and_masks_are_cut_alike(tiny):
    samples = tiny.Memory(5, 2)
    cropped = CroppedSamples(samples, boxes)
    assert list(cropped.ids) == ["disc05", "disc06"]
    assert np.array_equal(cropped.image("disc06"), samples.image("disc06")[6:30, 3:40])
    assert np.array_equal(cropped.mask("disc06"), samples.mask("disc06")[6:30, 3:40])

    class Folder:
        read = staticmethod(samples.image)

    assert np.array_equal(CroppedImages(Folder(), boxes).read("disc05"), samples.image("disc05")[5:30, 3:40])


def test_a_network_is_trained_on_crops_or_not_at_all(tiny, tmp_path):
    model = tiny.TinyModel(tiny.config(roi="first", epochs=1))
    task = tiny.task(tmp_path / "whole")
    with pytest.raises(TrainingError, match="option roi is first, but the photos to train on come whole"):
        model.fit(task)
    train, valid = CroppedSamples(task.train, boxes), CroppedSamples(task.valid, boxes)
    cropped = tiny.TinyModel(tiny.config(roi="first", epochs=1)).fit(
        tiny.task(tmp_path / "a", train=train, valid=valid)
    )
    plain = tiny.TinyModel(tiny.config(epochs=1)).fit(tiny.task(tmp_path / "b"))
    assert cropped.checkpoint.read_bytes() != plain.checkpoint.read_bytes()


def test_the_margin_is_a_number_of_pixels():
    with pytest.raises(UsageError, match="roi_margin is -1"):
        parse_options(TorchOptions, {"roi_margin": -1})
