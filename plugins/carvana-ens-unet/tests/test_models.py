"""Counts, grids, colours, options and checkpoints of every model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from carvana_ens import Batch, MemberConfig, Size, UsageError
from carvana_ens.testing import declared_models, draw_photos

SHRINK = {"myunet-v3": 4, "myunet-1024-5": 2, "myunet-double-1024-5": 2}
"""What leaves channels enough at the narrowest place that not all of them are dead; 8 for the others."""
MODELS = declared_models(Path(__file__).parents[1] / "pyproject.toml")


def make(name, **options):
    return MODELS[name](MemberConfig(name=name, model=name, options=options))


def on_meta(name, **options):
    with torch.device("meta"):
        return make(name, **options).build()


def batch_of(images):
    ids = tuple(f"c{number}_01" for number in range(len(images)))
    return Batch(images, ids, tuple(i.split("_")[0] for i in ids))


def layer(inputs, outputs, kernel, *, bias=False, norm=True):
    """Parameters of a convolution, and of the normalisation after it."""
    return inputs * outputs * kernel**2 + outputs * bias + 2 * outputs * norm


BIASES = 5 * (64 + 128 + 256 + 512) + 2 * 1024
"""Of a Keras ladder from 64 channels: what the same ladder without them has less."""
ONE_MORE = layer(32, 32, 3)
EARLY_512 = (
    sum(layer(i, o, 3) + layer(o, o, 3) for i, o in [(3, 32), (32, 64), (64, 128), (128, 256), (256, 512)])
    + layer(512, 1024, 1)
    + layer(1024, 512, 1)
    + sum(layer(i, 2 * o, 3) + layer(2 * o, o, 1) for i, o in [(1024, 256), (512, 128), (256, 64), (128, 32), (64, 32)])
    + layer(32, 16, 1)
    + 17
)


def plain(inputs, outputs, kernel):
    return layer(inputs, outputs, kernel, bias=True, norm=False)


EARLY_V3 = (
    sum(plain(i, o, 3) + plain(o, o, 3) for i, o in [(3, 16), (16, 32), (32, 64), (64, 128), (128, 256)])
    + plain(256, 128, 1)
    + sum(plain(i, 2 * o, 3) + plain(2 * o, o, 1) for i, o in [(256, 128), (192, 64), (96, 32), (48, 16)])
    + plain(16, 16, 1)
    + plain(16, 2, 1)
)


@pytest.mark.parametrize(
    ("name", "millions", "exact"),
    [
        ("unet-128", 34.53, 34_527_041),
        ("unet-256", 34.60, 34_600_353),
        ("unet-512", 34.62, 34_618_577),
        ("unet-1024", 34.62, 34_623_081),
        ("myunet-128-2", None, 34_527_041 - BIASES),
        ("myunet-256-2", None, 34_600_353 - BIASES - 5 * 32),
        ("myunet-512-2", None, 34_618_577 - BIASES - 5 * (32 + 16)),
        ("myunet-1024-5", 34.61, None),
        ("myunet-double-1024-5", 34.61, None),
        ("myunet-128", 9.53, None),
        ("myunet-128-1", 19.33, None),
        ("myunet-512", None, EARLY_512),
        ("myunet-v3", None, EARLY_V3),
        ("unet-scratch", 91.24, None),
        ("unet-scratch-4", 8.61, None),
        ("unet-scratch-5", 34.60, None),
        ("unet-scratch-7", 240.25, None),
        ("unet-scratch-narrow", 28.17, None),
        ("unet-gray", 7.76, 7_759_521),
        ("segnet-gray", 11.78, None),
        ("unet-roi", 5.60, None),
    ],
)
def test_trainable_parameters_are_those_of_the_authors(name, millions, exact):
    count = make(name).count_parameters()
    assert millions in (None, round(count / 1e6, 2))
    assert exact in (None, count)


def test_trainable_parameters_of_the_variants():
    for small, large in (("myunet-128", "myunet-256"), ("myunet-128-1", "myunet-256-1")):
        assert make(large).count_parameters() == make(small).count_parameters() + ONE_MORE
    more = (9 - 4) * (512 * 256 + 256 * 128 + 128 * 64 + 64 * 32)
    assert make("unet-gray", kernel=3).count_parameters() == 7_759_521 + more


@pytest.mark.parametrize("name", MODELS)
def test_divisor_is_what_the_network_halves(name):
    divisor = make(name).divisor
    network = on_meta(name, shrink=16).eval()
    channels = make(name).channels

    def answers(height, width):
        return network(torch.empty(1, channels, height, width, device="meta")).shape == (1, 1, height, width)

    assert answers(2 * divisor, 3 * divisor)
    try:
        assert not answers(2 * divisor, 3 * divisor + divisor // 2)
    except RuntimeError as error:
        assert "Sizes of tensors must match" in str(error)  # noqa: PT017 (without skips it answers, on another grid)
    size = MODELS[name].size
    assert size is None or all(side % divisor == 0 for side in size)


@pytest.mark.parametrize("name", MODELS)
def test_odd_sizes_are_padded_and_cropped_back(name):
    model = make(name, shrink=SHRINK.get(name, 8), normalise="unit")
    model.load(None, "cpu")
    images, _ = draw_photos(2, Size(37, 53))
    maps = model.predict(batch_of(images))
    assert maps.shape == (2, 37, 53)
    assert maps.dtype == np.float32
    assert maps.std() > 0
    down, right = -37 % model.divisor, -53 % model.divisor
    padded = np.pad(images, ((0, 0), (0, down), (0, right), (0, 0)), mode="edge")
    whole = model.predict(batch_of(padded))
    np.testing.assert_array_equal(maps, whole[:, :37, :53])


@pytest.mark.parametrize("name", MODELS)
def test_colour_decides_the_input_channels(name):
    side = 2 * make(name).divisor
    for colour, channels in {"rgb": 3, "bgr": 3, "gray": 1, "mean": 1, "hsv": 3}.items():
        images = torch.empty(1, channels, side, side, device="meta")
        assert on_meta(name, shrink=16, colour=colour).eval()(images).shape == (1, 1, side, side)


def test_colours_are_those_of_the_authors():
    red = torch.tensor([0.8, 0.4, 0.2]).view(1, 3, 1, 1).expand(1, 3, 128, 128)

    class Looks(nn.Module):
        def forward(self, images):
            seen.append(images[0, :, 0, 0].tolist())
            return images[:, :1]

    luma = 0.0  # one colour, so its deviation is 0 and every pixel is at the mean
    for name in MODELS:
        seen = []
        for way in (make(name).forward, make(name).forward_maps):  # as in prediction and in training
            way(Looks(), red)
        if name.startswith("myunet"):
            expected = [0.2, 0.4, 0.8]
        elif name == "unet-roi":
            expected = [(0.4 - 0.2) / 0.6 / 6, 0.6 / 0.8, 0.8]
        else:
            expected = [luma] if name.endswith("gray") else [0.8, 0.4, 0.2]
        assert seen == [pytest.approx(expected, abs=1e-3)] * 2, name


@pytest.mark.parametrize("name", MODELS)
def test_shrink_divides_every_layer(name):
    layers, narrow = (
        [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        for network in (on_meta(name), on_meta(name, shrink=2))
    )
    for before, after in zip(layers[:-1], narrow[:-1], strict=True):
        assert after.out_channels == before.out_channels // 2
    assert narrow[-1].out_channels == layers[-1].out_channels == (2 if name == "myunet-v3" else 1)
    assert 0.2 < make(name, shrink=2).count_parameters() / make(name).count_parameters() < 0.3


def test_options_out_of_range_are_refused():
    for name, wrong in (("unet-128", {"shrink": 0}), ("unet-roi", {"momentum": 1.5}), ("unet-128", {"momentum": 0.0})):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            make(name, **wrong)
    with pytest.raises(UsageError, match="normalise is imagenet"):
        make("unet-roi", normalise="imagenet")
    assert (make("unet-roi").options.pad, make("unet-roi").options.pad_sides) == ("reflect", "both")
    assert make("unet-roi", normalise="imagenet", colour="rgb").options.normalise == "imagenet"


def test_running_means_are_as_slow_as_keras_unless_told():
    def momenta(name, **options):
        return {m.momentum for m in on_meta(name, **options).modules() if isinstance(m, nn.BatchNorm2d)}

    for name in ("unet-128", "unet-roi"):
        assert momenta(name) == {0.01}
        assert momenta(name, momentum=0.1) == {0.1}
    for name in ("myunet-128", "myunet-1024-5", "myunet-512", "unet-scratch"):
        assert momenta(name) == {0.1}
    for name in ("unet-gray", "segnet-gray", "myunet-v3"):
        assert momenta(name) == set()


@pytest.mark.parametrize("name", ["unet-gray", "segnet-gray"])
def test_gray_map_of_a_photo_does_not_depend_on_its_neighbours(name):
    model = make(name, shrink=4)
    model.load(None, "cpu")
    images, _ = draw_photos(2, Size(32, 48))
    images[1] //= 3
    both = model.predict(batch_of(images))
    alone = model.predict(batch_of(images[1:]))
    np.testing.assert_allclose(both[1:], alone, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_training_step_lowers_the_loss(name, check_training_step):
    """At the author's width (but for 240 million parameters, which cost too much on any grid), on a small grid."""
    model = make(name, shrink=4 if name == "unet-scratch-7" else 1)
    network = model.fresh_network(0)
    side = max(model.divisor, 32)
    images, masks = draw_photos(2, Size(side, 2 * side))
    check_training_step(model, network, images, masks)


@pytest.mark.parametrize("name", MODELS)
def test_a_checkpoint_gives_the_same_maps(name, check_round_trip):
    model = make(name, shrink=SHRINK.get(name, 8))
    network = model.fresh_network(3)
    images, _ = draw_photos(2, Size(32, 48))
    photos = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():  # running statistics of its own
        model.forward(network.train(), photos)
    check_round_trip(model, network, images)
