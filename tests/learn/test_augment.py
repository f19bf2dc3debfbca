from __future__ import annotations

import numpy as np
import pytest
import torch

from carvana_ens.learn.augment import Change, augment, draw_change
from carvana_ens.learn.recipe import TorchOptions

SAME = {"flip": 1.0, "zoom": 1.0, "shift": (0.0, 0.0), "brightness": 1.0, "contrast": 1.0, "paint": None}


@pytest.fixture
def photos():
    rng = np.random.default_rng(4)
    images = torch.from_numpy(rng.random((2, 3, 12, 16)).astype(np.float32))
    masks = torch.zeros(2, 1, 12, 16)
    masks[:, :, 3:9, 4:10] = 1
    return images, masks


def test_no_change_changes_nothing(photos):
    images, masks = augment(*photos, [Change(**SAME)] * 2)
    assert torch.allclose(images, photos[0], atol=1e-6)
    assert torch.allclose(masks, photos[1], atol=1e-6)


def test_a_flip_turns_photo_and_mask_and_only_the_photo_it_is_drawn_for(photos):
    images, masks = augment(*photos, [Change(**SAME | {"flip": -1.0}), Change(**SAME)])
    assert torch.allclose(images[0], photos[0][0].flip(-1), atol=1e-5)
    assert torch.allclose(masks[0], photos[1][0].flip(-1), atol=1e-5)
    assert torch.allclose(images[1], photos[0][1], atol=1e-5)


@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_a_shift_moves_down_and_right_by_its_part_of_the_sides_and_mirrors_the_border(photos, flip):
    images, masks = photos
    change = Change(**SAME | {"shift": (3 / 12, 2 / 16), "flip": flip})
    moved, moved_masks = augment(images, masks, [change] * 2)
    flipped = images if flip > 0 else images.flip(-1)
    flipped_masks = masks if flip > 0 else masks.flip(-1)
    assert torch.allclose(moved[:, :, 3:, 2:], flipped[:, :, :-3, :-2], atol=1e-4)
    assert torch.allclose(moved_masks[:, :, 3:, 2:], flipped_masks[:, :, :-3, :-2], atol=1e-4)
    assert torch.allclose(moved[:, :, :3, 2:], flipped[:, :, :3, :-2].flip(2), atol=1e-4)


def test_zoom_multiplies_the_area_of_the_object(photos):
    images, masks = photos[0], torch.zeros(2, 1, 12, 16)
    masks[:, :, 4:8, 6:10] = 1
    for zoom in (0.75, 2.0):
        _, zoomed = augment(images, masks, [Change(**SAME | {"zoom": zoom})] * 2)
        assert zoomed.sum().item() == pytest.approx(masks.sum().item() * zoom**2, rel=0.02)


def test_light_is_the_formula_and_stays_in_range(photos):
    images, masks = photos
    lit, same = augment(images, masks, [Change(**SAME | {"brightness": 1.3, "contrast": 0.6})] * 2)
    gray = (images * torch.tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1).mean((1, 2)).view(-1, 1, 1, 1)
    assert torch.allclose(lit, (((images - gray) * 0.6 + gray).clamp(0, 1) * 1.3).clamp(0, 1), atol=1e-5)
    assert torch.equal(same > 0.5, masks > 0.5)


def test_paint_recolours_the_object_and_leaves_the_rest(photos):
    images, masks = photos
    change = Change(**SAME | {"paint": (0.5, 0.25, 0.0, 0.6)})
    painted, _ = augment(images, masks, [change, Change(**SAME)])
    inside = masks[0, 0] > 0.5
    assert torch.allclose(painted[0][:, ~inside], images[0][:, ~inside], atol=1e-5)
    for channel, colour in enumerate((0.5, 0.25, 0.0)):
        expected = 0.4 * images[0, channel, inside] + 0.6 * colour
        assert torch.allclose(painted[0, channel, inside], expected, atol=1e-5)
    assert torch.allclose(painted[1], images[1], atol=1e-5)


def test_a_draw_depends_on_seed_epoch_and_photo_alone():
    options = TorchOptions()
    draws = [draw_change(options, s, e, i) for s in (0, 1) for e in (1, 2) for i in (0, 1)]
    assert len(set(draws)) == 8
    assert draws == [draw_change(options, s, e, i) for s in (0, 1) for e in (1, 2) for i in (0, 1)]


def test_draws_keep_to_the_options():
    options = TorchOptions(hflip=0.3, shift=0.2, scale=0.5, brightness=0.1, contrast=0.4, repaint=0.25)
    draws = [draw_change(options, 7, 1, i) for i in range(2000)]
    assert np.mean([d.flip < 0 for d in draws]) == pytest.approx(0.3, abs=0.05)
    assert np.mean([d.paint is not None for d in draws]) == pytest.approx(0.25, abs=0.05)
    for values, low, high in [
        ([d.zoom for d in draws], 1 / 1.5, 1.5),
        ([d.shift[0] for d in draws], -0.2, 0.2),
        ([d.shift[1] for d in draws], -0.2, 0.2),
        ([d.brightness for d in draws], 0.9, 1.1),
        ([d.contrast for d in draws], 0.6, 1.4),
    ]:
        assert low <= min(values) < low + 0.05
        assert high - 0.05 < max(values) <= high


def test_options_that_are_off_draw_the_plain_photo():
    off = TorchOptions(hflip=0.0, shift=0.0, scale=0.0, brightness=0.0, contrast=0.0, repaint=0.0)
    assert {draw_change(off, 0, 1, i) for i in range(20)} == {Change(**SAME)}
