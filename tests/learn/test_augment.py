from __future__ import annotations

import colorsys
import dataclasses

import numpy as np
import pytest
import torch

from carvana_ens.errors import TrainingError, UsageError
from carvana_ens.learn.augment import Change, augment, draw_change
from carvana_ens.learn.augment_options import PROBABILITIES, AugmentOptions
from carvana_ens.learn.clahe import equalised_image
from carvana_ens.model import options_json, parse_options
from carvana_ens.types import Size

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
    assert torch.equal(images, photos[0])
    assert torch.equal(masks, photos[1])


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
    options = AugmentOptions()
    draws = [draw_change(options, s, e, i) for s in (0, 1) for e in (1, 2) for i in (0, 1)]
    assert len(set(draws)) == 8
    assert draws == [draw_change(options, s, e, i) for s in (0, 1) for e in (1, 2) for i in (0, 1)]


def test_draws_keep_to_the_options():
    options = AugmentOptions(hflip=0.3, shift=0.2, scale=0.5, brightness=0.1, contrast=0.4, repaint=0.25)
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


OFF = AugmentOptions(hflip=0.0, shift=0.0, scale=0.0, brightness=0.0, contrast=0.0, repaint=0.0)


def test_options_that_are_off_draw_the_plain_photo():
    assert {draw_change(OFF, 0, 1, i) for i in range(20)} == {Change(**SAME)}


STRONG = AugmentOptions(
    vflip=0.5,
    crop=0.5,
    crop_part=0.6,
    shift=0.3,
    scale=0.5,
    rotation=40.0,
    saturation=0.4,
    hue=70.0,
    hsv_saturation=0.2,
    value=0.3,
    gray=0.3,
    gray_object=0.4,
    clahe=0.5,
)


def test_the_same_draws_give_the_same_photos_and_others_give_others(photos):
    def made(epoch):
        return augment(*photos, [draw_change(STRONG, 3, epoch, index) for index in range(2)])

    for first, second in zip(made(1), made(1), strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(made(1)[0], made(2)[0])


def test_switching_one_change_on_leaves_the_others_as_they_were():
    plain = AugmentOptions()
    for name in PROBABILITIES:
        on = dataclasses.replace(plain, **{name: 1.0})
        own = {
            "hflip": ["flip"],
            "vflip": ["updown"],
            "crop": ["zoom", "centre"],
            "repaint": ["paint"],
        }.get(name, [name])
        for index in range(20):
            before, after = draw_change(plain, 0, 1, index), draw_change(on, 0, 1, index)
            changed = [f.name for f in dataclasses.fields(Change) if getattr(before, f.name) != getattr(after, f.name)]
            assert set(changed) <= set(own)


def test_draws_of_the_newer_options_keep_to_them():
    options = dataclasses.replace(STRONG, warp=0.75, light=0.25, scale_least=0.91, scale_most=1.21, crop=0.0)
    draws = [draw_change(options, 7, 1, i) for i in range(2000)]
    assert np.mean([d.updown < 0 for d in draws]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([d.gray for d in draws]) == pytest.approx(0.3, abs=0.05)
    assert np.mean([d.gray_object for d in draws]) == pytest.approx(0.4, abs=0.05)
    assert np.mean([d.clahe for d in draws]) == pytest.approx(0.5, abs=0.05)
    still = [(d.zoom, d.angle, *d.shift) == (1, 0, 0, 0) for d in draws]
    assert np.mean(still) == pytest.approx(0.25, abs=0.05)
    for name, low, high in [
        ("zoom", 0.91, 1.21),
        ("angle", -40, 40),
        ("brightness", 0.8, 1.2),
        ("contrast", 0.8, 1.2),
        ("saturation", 0.6, 1.4),
        ("hue", -70, 70),
    ]:
        values = [getattr(d, name) for d in draws]
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) <= high
    for limit, values in zip((0.2, 0.3), zip(*(d.hsv for d in draws), strict=True), strict=True):
        assert -limit <= min(values) < -0.9 * limit
        assert 0.9 * limit < max(values) <= limit
    lit = [[d.brightness != 1, d.contrast != 1, d.saturation != 1, d.hue != 0] for d in draws]
    assert np.mean(lit, 0) == pytest.approx(0.25, abs=0.05)
    assert np.corrcoef(np.transpose(lit)) == pytest.approx(np.eye(4), abs=0.1)  # each on its own
    assert all((d.hue != 0) == (d.hsv[0] != 0) == (d.hsv[1] != 0) for d in draws)  # HSV together


def test_a_crop_is_a_window_of_its_part_that_lies_inside_the_photo():
    options = dataclasses.replace(OFF, crop=0.5, crop_part=0.6)
    draws = [draw_change(options, 7, 1, i) for i in range(1000)]
    cropped = [d for d in draws if d.centre != (0, 0)]
    assert len(cropped) / len(draws) == pytest.approx(0.5, abs=0.05)
    assert {d.zoom for d in cropped} == {1 / 0.6}
    assert {d.zoom for d in draws if d.centre == (0, 0)} == {1}
    for axis in (0, 1):
        places = [d.centre[axis] for d in cropped]
        assert -0.2 <= min(places) < -0.19
        assert 0.19 < max(places) <= 0.2


def bilinear(layers, change):
    """The layers warped by the formula, pixel for pixel, from a photo that numpy has padded far out."""
    margin = 60
    mode = {"zero": "constant"}.get(change.fill, change.fill)
    wide = np.pad(layers, ((0, 0), (margin, margin), (margin, margin)), mode)
    height, width = layers.shape[1:]
    result = np.zeros(layers.shape)
    turn = np.radians(change.angle)
    for row, column in np.ndindex(height, width):
        x = column + 0.5 - width / 2 - change.shift[1] * width
        y = row + 0.5 - height / 2 - change.shift[0] * height
        from_x = change.centre[1] * width + (np.cos(turn) * x - np.sin(turn) * y) / change.zoom
        from_y = change.centre[0] * height + (np.sin(turn) * x + np.cos(turn) * y) / change.zoom
        left, top = from_x + width / 2 - 0.5 + margin, from_y + height / 2 - 0.5 + margin
        i, j = int(np.floor(top)), int(np.floor(left))
        a, b = top - i, left - j
        square = wide[:, i : i + 2, j : j + 2]
        result[:, row, column] = (square * np.array([[(1 - a) * (1 - b), (1 - a) * b], [a * (1 - b), a * b]])).sum(
            (1, 2)
        )
    return result


MOVES = {
    "turn": {"angle": 25.0},
    "far": {"shift": (0.7, -0.9), "zoom": 0.5},
    "window": {"centre": (0.1, -0.2), "zoom": 1 / 0.6},
    "all": {"shift": (-0.2, 0.3), "zoom": 0.8, "angle": -130.0, "centre": (-0.05, 0.1)},
}


@pytest.mark.parametrize("fill", ["symmetric", "reflect", "edge", "zero"])
@pytest.mark.parametrize("move", MOVES)
def test_a_warp_is_its_formula_and_what_comes_in_follows_the_rule(photos, move, fill):
    change = Change(**SAME | MOVES[move] | {"fill": fill})
    images, masks = augment(*photos, [change, Change(**SAME)])
    expected = bilinear(torch.cat([photos[0][0], photos[1][0]]).double().numpy(), change)
    assert torch.cat([images[0], masks[0]]).numpy() == pytest.approx(expected, abs=1e-4)


def test_a_turn_is_anticlockwise():
    image = torch.zeros(1, 3, 9, 9)
    image[..., 4, 7] = 1  # right of the middle
    turned, _ = augment(image, image[:, :1], [Change(**SAME | {"angle": 90.0})])
    assert turned[0, 0, 1, 4].item() == pytest.approx(1, abs=1e-5)  # above it


@pytest.mark.parametrize("fill", ["symmetric", "reflect", "edge", "zero"])
def test_the_mask_follows_the_photo_through_every_move(fill):
    masks = torch.zeros(1, 1, 30, 44)
    masks[..., 4:20, 9:25] = 1
    masks[..., 15:29, 20:44] = 1
    images = torch.cat([masks, 1 - masks, masks / 2], 1)  # the object is one colour
    options = AugmentOptions(
        vflip=0.5,
        crop=0.5,
        crop_part=0.7,
        shift=0.3,
        scale=0.5,
        rotation=90.0,
        brightness=0.0,
        contrast=0.0,
        repaint=0.0,
        fill=fill,
        patch="20x31",
    )
    seen = set()
    for index in range(30):
        moved, moved_masks = augment(images, masks, [draw_change(options, 0, 1, index)])
        assert moved.shape == (1, 3, 20, 31)
        assert torch.allclose(moved[:, :1], moved_masks, atol=1e-6)
        assert torch.allclose(moved[:, 2:], moved_masks / 2, atol=1e-6)
        seen.add(round(moved_masks.sum().item(), 2))
    assert len(seen) == 30


def test_up_and_down_are_exchanged(photos):
    images, masks = augment(*photos, [Change(**SAME | {"updown": -1.0})] * 2)
    assert torch.equal(images, photos[0].flip(-2))
    assert torch.equal(masks, photos[1].flip(-2))


def test_a_window_is_cut_as_it_is_and_every_place_is_drawn(photos):
    images, masks = photos
    options = dataclasses.replace(OFF, patch="10x13")
    places = set()
    for index in range(300):
        cut, cut_masks = augment(images, masks, [draw_change(options, 0, 1, index)] * 2)
        found = [
            (top, left)
            for top in range(3)
            for left in range(4)
            if torch.equal(cut, images[..., top : top + 10, left : left + 13])
            and torch.equal(cut_masks, masks[..., top : top + 10, left : left + 13])
        ]
        assert len(found) == 1
        places.update(found)
    assert len(places) == 12


def test_a_window_as_large_as_the_photo_is_the_photo_and_a_larger_one_is_refused(photos):
    same = Change(**SAME | {"window": Size(12, 16), "corner": (0.99, 0.99)})
    assert torch.equal(augment(*photos, [same] * 2)[0], photos[0])
    with pytest.raises(TrainingError, match="patch is 12x17, larger than photos of 12x16"):
        augment(*photos, [Change(**SAME | {"window": Size(12, 17)})] * 2)


def test_masks_stay_soft_or_are_cut_at_half_a_pixel(photos):
    images, masks = photos[0], photos[1].clone()
    masks[0, 0, 0, :3] = torch.tensor([0.49, 0.5, 0.51])
    _, soft = augment(images, masks, [Change(**SAME)] * 2)
    _, cut = augment(images, masks, [Change(**SAME | {"soft": False})] * 2)
    assert torch.equal(soft, masks)
    assert cut[0, 0, 0, :4].tolist() == [0, 1, 1, 0]
    assert torch.equal(cut[1], masks[1])


def by_colorsys(image, hue, saturation, value):
    """(3, H, W) through the standard library's HSV, pixel by pixel."""
    result = np.zeros(image.shape)
    for row, column in np.ndindex(image.shape[1:]):
        h, s, v = colorsys.rgb_to_hsv(*image[:, row, column].tolist())
        s = s if s == 0 else min(max(s + saturation, 0), 1)  # gray has no hue
        v = min(max(v + value, 0), 1)
        result[:, row, column] = colorsys.hsv_to_rgb((h + hue / 360) % 1, s, v)
    return result


@pytest.mark.parametrize(
    ("hue", "saturation", "value"),
    [(40.0, 0.0, 0.0), (-170.0, 0.0, 0.0), (0.0, 0.3, 0.0), (0.0, -0.4, 0.0), (0.0, 0.0, 0.5), (25.0, -0.2, -0.3)],
)
def test_hue_saturation_and_value_are_those_of_hsv(photos, hue, saturation, value):
    images = photos[0].clone()
    images[0, :, 0, 0] = 0.0
    images[0, :, 0, 1] = 1.0
    images[0, :, 0, 2] = 0.4
    images[0, :, 0, 3] = torch.tensor([0.9, 0.0, 0.0])
    change = Change(**SAME | {"hue": hue, "hsv": (saturation, value)})
    turned, masks = augment(images, photos[1], [change, Change(**SAME)])
    assert turned[0].numpy() == pytest.approx(by_colorsys(images[0].numpy(), hue, saturation, value), abs=1e-5)
    assert torch.equal(masks, photos[1])


def gray_of(images):
    return (images * torch.tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True).expand_as(images)


def test_saturation_mixes_with_gray_and_stays_in_range(photos):
    for factor in (0.6, 1.4):
        mixed, _ = augment(*photos, [Change(**SAME | {"saturation": factor})] * 2)
        gray = gray_of(photos[0])
        assert torch.allclose(mixed, ((photos[0] - gray) * factor + gray).clamp(0, 1), atol=1e-5)


def test_photo_or_object_alone_turn_gray(photos):
    images, masks = photos[0], photos[1] * 0.75
    gray, _ = augment(images, masks, [Change(**SAME | {"gray": True})] * 2)
    assert torch.allclose(gray, gray_of(images), atol=1e-5)
    car, same = augment(images, masks, [Change(**SAME | {"gray_object": True})] * 2)
    assert torch.allclose(car, masks * gray_of(images) + (1 - masks) * images, atol=1e-5)
    assert torch.equal(same, masks)


def test_clahe_is_that_of_the_photo_in_levels(photos):
    images, masks = augment(*photos, [Change(**SAME | {"clahe": True}), Change(**SAME)])
    levels = (photos[0][0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    assert images[0].permute(1, 2, 0).numpy() * 255 == pytest.approx(equalised_image(levels), abs=1e-3)
    assert not torch.allclose(images[0], photos[0][0], atol=0.05)
    assert torch.equal(images[1], photos[0][1])
    assert torch.equal(masks, photos[1])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        *(({name: 1.5}, name) for name in PROBABILITIES),
        *(({name: -0.1}, name) for name in PROBABILITIES),
        ({"shift": 1.0}, "shift"),
        ({"saturation": -0.1}, "saturation"),
        ({"hsv_saturation": 1.0}, "hsv_saturation"),
        ({"value": -0.1}, "value"),
        ({"rotation": 181.0}, "rotation"),
        ({"hue": -1.0}, "hue"),
        ({"crop_part": 0.0}, "crop_part"),
        ({"crop_part": 1.1}, "crop_part"),
        ({"scale_least": -0.5}, "scale_least"),
        ({"scale_least": 1.3}, "scale_least"),
        ({"scale_most": 0.5}, "scale_most"),
        ({"fill": "wrap"}, "fill"),
        ({"patch": "wide"}, "patch.*HxW"),
    ],
)
def test_options_out_of_range_are_refused_by_name(values, said):
    with pytest.raises(UsageError, match=said):
        parse_options(AugmentOptions, values)


def test_options_survive_json():
    assert parse_options(AugmentOptions, options_json(STRONG)) == STRONG
