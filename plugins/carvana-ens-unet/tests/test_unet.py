from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from carvana_ens_unet import Unet128, Unet256, Unet512, Unet1024, UnetGray, unet_gray, unet_rgb
from safetensors.torch import save_file
from torch.nn import functional

from carvana_ens import Batch, MemberConfig, UsageError

MODELS = {
    "unet-128": Unet128,
    "unet-256": Unet256,
    "unet-512": Unet512,
    "unet-1024": Unet1024,
    "unet-gray": UnetGray,
}


def make(name, **options):
    return MODELS[name](MemberConfig(name=name, model=name, options=options))


def drawn(count, height, width, seed=0):
    """Ellipses of one paint on noise: images (N, H, W, 3) uint8 and masks (N, H, W) bool."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, (count, height, width, 3), dtype=np.uint8)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    masks = np.stack([((x - a) / 0.6) ** 2 + ((y - b) / 0.5) ** 2 < 1 for a, b in rng.uniform(-0.3, 0.3, (count, 2))])
    images[masks] = (200, 90, 30)
    return images, masks


def test_every_entry_point_is_a_model_here():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    points = project["entry-points"]["carvana_ens.models"]
    loaded = {}
    for name, target in points.items():
        module, attribute = target.split(":")
        loaded[name] = getattr(importlib.import_module(module), attribute)
    assert loaded == MODELS


@pytest.mark.parametrize(
    ("name", "millions", "exact"),
    [
        ("unet-128", 34.53, None),
        ("unet-256", 34.60, None),
        ("unet-512", 34.62, None),
        ("unet-1024", 34.62, 34_623_081),
        ("unet-gray", 7.76, 7_759_521),
    ],
)
def test_trainable_parameters_are_those_of_the_authors(name, millions, exact):
    count = make(name).count_parameters()
    assert round(count / 1e6, 2) == millions
    assert exact in (None, count)


@pytest.mark.parametrize("name", MODELS)
def test_divisor_is_what_the_levels_halve(name):
    network = make(name).build() if name == "unet-gray" else unet_rgb([4] * len(MODELS[name].widths))
    assert MODELS[name].divisor == 2 ** len(network.descent)
    assert all(side % MODELS[name].divisor == 0 for side in MODELS[name].size)


def conv(x, parameters, name):
    return functional.conv2d(x, parameters[f"{name}.weight"], parameters[f"{name}.bias"], padding="same")


def normed_stage(x, parameters, name, count):
    for number in range(count):
        x = conv(x, parameters, f"{name}.{3 * number}")
        mean, var, scale, shift = (
            parameters[f"{name}.{3 * number + 1}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        x = ((x - mean) / (var + 1e-3).sqrt() * scale + shift).clamp(min=0)
    return x


def test_unet_rgb_is_the_published_network():
    torch.manual_seed(0)
    widths = (4, 6, 8)
    network = unet_rgb(widths).eval()
    for tensor in network.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5)
    p = network.state_dict()
    images = torch.rand(2, 3, 24, 40)

    x, skips = images, []
    for level in range(3):
        x = normed_stage(x, p, f"descent.{level}", 2)
        skips.append(x)
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // 2, 2, w // 2, 2).amax((3, 5))
    x = normed_stage(x, p, "bottom", 2)
    assert x.shape == (2, 1024, 3, 5)
    for step in range(3):
        x = torch.cat([skips.pop(), x.repeat_interleave(2, 2).repeat_interleave(2, 3)], 1)
        x = normed_stage(x, p, f"ascent.{step}", 3)
    expected = conv(x, p, "head")

    with torch.no_grad():
        torch.testing.assert_close(network(images), expected)


def test_unet_gray_is_the_published_network():
    torch.manual_seed(0)
    network = unet_gray()
    p = network.state_dict()
    images = torch.randn(1, 1, 16, 32)

    def pair(x, name):
        return conv(conv(x, p, f"{name}.0").clamp(min=0), p, f"{name}.2").clamp(min=0)

    x, skips = images, []
    for level in range(4):
        skips.append(pair(x, f"descent.{level}"))
        n, c, h, w = skips[-1].shape
        x = skips[-1].reshape(n, c, h // 2, 2, w // 2, 2).amax((3, 5))
    x = pair(x, "bottom")
    for step in range(4):
        weight, bias = p[f"doublings.{step}.weight"], p[f"doublings.{step}.bias"]
        n, _, h, w = x.shape
        doubled = torch.einsum("nihw,ioyx->nohywx", x, weight).reshape(n, -1, 2 * h, 2 * w) + bias[:, None, None]
        x = pair(torch.cat([doubled, skips.pop()], 1), f"ascent.{step}")
    expected = conv(x, p, "head")

    with torch.no_grad():
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)


def test_running_means_are_as_slow_as_keras_unless_told():
    def momenta(model):
        with torch.device("meta"):
            return {m.momentum for m in model.build().modules() if isinstance(m, torch.nn.BatchNorm2d)}

    assert momenta(make("unet-128")) == {0.01}
    assert momenta(make("unet-128", momentum=0.1)) == {0.1}
    assert momenta(make("unet-gray")) == set()
    for wrong in (0.0, 1.5):
        with pytest.raises(UsageError, match="momentum"):
            make("unet-128", momentum=wrong)


@pytest.mark.parametrize("name", ["unet-128", "unet-1024", "unet-gray"])
def test_odd_sizes_are_predicted_on_their_own_grid(name):
    model = make(name)
    model.load(None, "cpu")
    images, _ = drawn(2, 37, 53)
    maps = model.predict(Batch(images, ("a_01", "a_02"), ("a", "a")))
    assert maps.shape == (2, 37, 53)
    assert maps.dtype == np.float32
    assert np.isfinite(maps).all()
    assert maps.std() > 0


def test_gray_map_of_a_photo_does_not_depend_on_its_neighbours():
    model = make("unet-gray")
    model.load(None, "cpu")
    images, _ = drawn(2, 32, 48)
    images[1] //= 3
    both = model.predict(Batch(images, ("a_01", "b_01"), ("a", "b")))
    alone = model.predict(Batch(images[1:], ("b_01",), ("b",)))
    np.testing.assert_allclose(both[1:], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("colour", ["rgb", "gray"])
def test_colour_decides_the_input_channels(colour):
    for name in ("unet-128", "unet-gray"):
        with torch.device("meta"):
            network = make(name, colour=colour).build()
        assert network.descent[0][0].in_channels == {"rgb": 3, "gray": 1}[colour]


@pytest.mark.parametrize("name", ["unet-128", "unet-gray"])
def test_a_training_step_lowers_the_loss(name):
    model = make(name)
    network = model.fresh_network(0).train()
    images, masks = drawn(2, 32, 32)
    photos = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    truth = torch.from_numpy(masks)[:, None].float()

    def loss():
        return functional.binary_cross_entropy_with_logits(model.forward(network, photos), truth)

    before = loss()
    before.backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    with torch.no_grad():
        assert loss() < 0.98 * before


@pytest.mark.parametrize("name", ["unet-128", "unet-gray"])
def test_a_checkpoint_gives_the_same_maps(name, tmp_path):
    model = make(name)
    network = model.fresh_network(3).eval()
    for key, tensor in network.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            tensor.uniform_(0.5, 1.5)
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    model.load(tmp_path / "net.safetensors", "cpu")
    images, _ = drawn(1, 32, 48)
    with torch.inference_mode():
        photos = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        expected = model.forward(network.to(memory_format=torch.channels_last), photos)[:, 0].numpy()
    np.testing.assert_array_equal(model.predict(Batch(images, ("a_01",), ("a",))), expected)
