from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from carvana_ens_vgg_unet import (
    Unet11,
    UnetVgg11A,
    UnetVgg11V1,
    UnetVgg11V2,
    VggUnet,
    bilinear_doubling,
    learnt_doubling,
    load_encoder,
    make_encoder,
)
from safetensors.torch import load_file, save_file
from torch.nn import functional
from torchvision.models.vgg import cfgs, make_layers

from carvana_ens import Batch, MemberConfig, Size, TrainingError, UsageError

MODELS = {
    "unet11": Unet11,
    "unet-vgg11-v1": UnetVgg11V1,
    "unet-vgg11-v2": UnetVgg11V2,
    "unet-vgg11-a": UnetVgg11A,
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
    loaded = {}
    for name, target in project["entry-points"]["carvana_ens.models"].items():
        module, attribute = target.split(":")
        loaded[name] = getattr(importlib.import_module(module), attribute)
    assert loaded == MODELS


@pytest.mark.parametrize(
    ("name", "millions"),
    [("unet11", 22.93), ("unet-vgg11-v1", 33.55), ("unet-vgg11-a", 22.93)],
)
def test_trainable_parameters_are_those_of_the_authors(name, millions):
    assert round(make(name).count_parameters() / 1e6, 2) == millions


def test_trainable_parameters_of_v2_are_those_of_its_layers():
    encoder = sum(9 * i * o + o for i, o in zip((3, 64, 128, 256, 256, 512, 512, 512), CHANNELS, strict=True))
    blocks = [(512, 1024, 512), (1024, 512, 512), (1024, 512, 256), (512, 256, 128), (256, 128, 64)]
    decoder = sum(9 * (i * m + m * o) + m + o for i, m, o in blocks)
    assert make("unet-vgg11-v2").count_parameters() == encoder + decoder + (9 * 128 * 64 + 64) + (64 + 1)


CHANNELS = (64, 128, 256, 256, 512, 512, 512, 512)


def torchvisions(images, weights):
    """torchvision's VGG-11: the features before each pooling, and after the last."""
    layers = make_layers(cfgs["A"])
    layers.load_state_dict({key.removeprefix("features_"): tensor for key, tensor in weights.items()})
    x, taps = images, []
    for layer in layers:
        if isinstance(layer, torch.nn.MaxPool2d):
            taps.append(x.clone())
        x = layer(x)
    return [*taps, x]


def test_the_encoder_is_torchvisions_with_taps_before_the_pooling():
    torch.manual_seed(0)
    encoder = make_encoder(3)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        taps = encoder(images)
        for ours, theirs in zip(taps, torchvisions(images, encoder.state_dict()), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    shapes = [(2, c, 64 // s, 96 // s) for c, s in ((64, 1), (128, 2), (256, 4), (512, 8), (512, 16), (512, 32))]
    assert [tap.shape for tap in taps] == shapes


def conv(x, parameters, name):
    return functional.conv2d(x, parameters[f"{name}.weight"], parameters[f"{name}.bias"], padding="same")


def learnt_twin(x, parameters, name):
    """A transposed convolution of stride 2, written as a convolution of pixels set apart by zeros."""
    x = conv(x, parameters, f"{name}.0").clamp(min=0)
    n, c, h, w = x.shape
    apart = x.new_zeros(n, c, 2 * h + 2, 2 * w + 2)
    apart[:, :, 1:-1:2, 1:-1:2] = x
    weight = parameters[f"{name}.2.weight"].flip(2, 3).transpose(0, 1)
    return functional.conv2d(apart, weight, parameters[f"{name}.2.bias"]).clamp(min=0)


def bilinear_twin(x, parameters, name):
    """Corners on corners: point k of the 2 n lies at k (n - 1) / (2 n - 1) of the n."""

    def doubling(n):
        rows = [np.interp(np.linspace(0, n - 1, 2 * n), range(n), unit) for unit in np.eye(n)]
        return torch.tensor(np.array(rows).T, dtype=torch.float32)

    x = torch.einsum("yh,nchw,xw->ncyx", doubling(x.shape[2]), x, doubling(x.shape[3]))
    return conv(conv(x, parameters, f"{name}.1").clamp(min=0), parameters, f"{name}.3").clamp(min=0)


@pytest.mark.parametrize(
    ("block", "twin"), [(learnt_doubling, learnt_twin), (bilinear_doubling, bilinear_twin)], ids=["learnt", "bilinear"]
)
def test_the_network_is_the_published_one(block, twin):
    torch.manual_seed(0)
    network = VggUnet(3, 4, (16, 8, 8, 4, 2), block)
    p = network.state_dict()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        weights = {key.removeprefix("encoder."): tensor for key, tensor in p.items() if key.startswith("encoder.")}
        *skips, x = torchvisions(images, weights)
        for number in range(5):
            x = torch.cat([twin(x, p, f"blocks.{number}"), skips[4 - number]], 1)
        expected = conv(conv(x, p, "last.0").clamp(min=0), p, "head")
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)
        assert expected.std() > 1e-3


WIDE = [(1024, 512), (512, 512), (512, 256), (256, 128), (128, 64)]
NARROW = [(512, 256), (512, 256), (512, 128), (256, 64), (128, 32)]


@pytest.mark.parametrize(
    ("name", "widths"),
    [("unet-vgg11-v1", WIDE), ("unet-vgg11-v2", WIDE), ("unet11", NARROW), ("unet-vgg11-a", NARROW)],
)
def test_widths_are_those_of_the_authors(name, widths):
    with torch.device("meta"):
        network = make(name).build()
    outputs = [[layer.out_channels for layer in block if hasattr(layer, "out_channels")] for block in network.blocks]
    assert [tuple(channels) for channels in outputs] == widths


def test_input_rules_are_those_of_the_authors():
    rules = {name: make(name).options for name in MODELS}
    assert {(o.colour, o.normalise) for o in rules.values()} == {("rgb", "imagenet")}
    assert (rules["unet11"].pad, rules["unet11"].pad_sides, Unet11.size, Unet11.divisor) == (
        "reflect",
        "both",
        None,
        32,
    )
    for name in ("unet-vgg11-v1", "unet-vgg11-v2", "unet-vgg11-a"):
        assert (rules[name].pad, MODELS[name].size) == ("none", Size(1024, 1024))


def test_colour_decides_the_input_channels():
    for colour, channels in (("rgb", 3), ("gray", 1)):
        with torch.device("meta"):
            network = make("unet11", colour=colour).build()
        assert network.encoder.features_0.in_channels == channels


@pytest.mark.parametrize("name", MODELS)
def test_a_training_step_lowers_the_loss_and_the_checkpoint_predicts_alike(name, tmp_path):
    model = make(name)
    network = model.fresh_network(0).train()
    images, masks = drawn(1, 32, 64)
    photos = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    truth = torch.from_numpy(masks)[:, None].float()

    def loss():
        return functional.binary_cross_entropy_with_logits(model.forward(network, photos), truth)

    before = loss()
    before.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    with torch.no_grad():
        assert loss() < 0.99 * before

    save_file(network.state_dict(), tmp_path / "net.safetensors")
    model.load(tmp_path / "net.safetensors", "cpu")
    with torch.inference_mode():
        expected = model.forward(network.eval().to(memory_format=torch.channels_last), photos)[:, 0].numpy()
    maps = model.predict(Batch(images, ("a_01",), ("a",)))
    assert maps.shape == (1, 32, 64)
    np.testing.assert_array_equal(maps, expected)
    saved = load_file(tmp_path / "net.safetensors")
    assert saved.keys() == network.state_dict().keys()
    assert all(torch.equal(saved[key], tensor) for key, tensor in network.state_dict().items())


def torchvision_file(path, encoder, change=lambda tensors: tensors):
    """VGG-11 as torchvision's file names it, with its classifier (made small)."""
    tensors = {key.replace("_", "."): tensor for key, tensor in encoder.state_dict().items()}
    tensors = change({**tensors, "classifier.6.weight": torch.zeros(10, 4)})
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)


@pytest.mark.parametrize("name", ["vgg11.pth", "vgg11.safetensors"])
def test_training_starts_from_the_weights_that_are_named_and_predicting_needs_them_no_more(name, tmp_path):
    torch.manual_seed(5)
    source = make_encoder(3)
    torchvision_file(tmp_path / name, source)
    model = make("unet11", encoder_weights=str(tmp_path / name))
    network = model.fresh_network(0)
    images = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        for ours, theirs in zip(network.encoder(images), torchvisions(images, source.state_dict()), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    (tmp_path / name).unlink()
    model.load(tmp_path / "net.safetensors", "cpu")
    with pytest.raises(UsageError, match=rf"{name}, which is no file"):
        model.fresh_network(0)


def test_our_own_names_and_gray_photos(tmp_path):
    torch.manual_seed(6)
    source = make_encoder(3)
    save_file(source.state_dict(), tmp_path / "ours.safetensors")
    gray = make_encoder(1)
    load_encoder(gray, tmp_path / "ours.safetensors")
    images = torch.rand(1, 1, 32, 64)
    with torch.no_grad():
        torch.testing.assert_close(gray(images)[-1], source(images.expand(-1, 3, -1, -1))[-1])


def without_one(tensors):
    return {key: tensor for key, tensor in tensors.items() if key != "features.8.bias"}


def one_transposed(tensors):
    return {**tensors, "features.0.weight": tensors["features.0.weight"].transpose(0, 1).contiguous()}


def one_not_finite(tensors):
    return {**tensors, "features.18.bias": torch.full((512,), float("nan"))}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_one, "features_8.bias is not in it"),
        (one_transposed, r"features_0.weight is \(3, 64, 3, 3\), not \(64, 3, 3, 3\)"),
        (one_not_finite, "features_18.bias has values that are not finite"),
    ],
)
def test_files_that_do_not_fit_are_refused_and_change_nothing(change, words, tmp_path):
    path = tmp_path / "w.safetensors"
    torchvision_file(path, make_encoder(3), change)
    encoder = make_encoder(3)
    before = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}
    with pytest.raises(TrainingError, match=words):
        load_encoder(encoder, path)
    assert all(torch.equal(tensor, before[key]) for key, tensor in encoder.state_dict().items())


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_files_that_would_run_code_are_refused(tmp_path):
    torch.save({"features.0.weight": RunsCode(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(TrainingError, match=r"evil\.pth"):
        make("unet11", encoder_weights=str(tmp_path / "evil.pth")).fresh_network(0)
    assert not (tmp_path / "ran").exists()


def test_a_hub_that_cannot_be_reached_is_one_clear_error(monkeypatch, tmp_path):
    huggingface = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(huggingface.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(TrainingError, match=r"vgg11 from the hub .* set encoder_weights to a") as caught:
        make("unet11", encoder_weights="hub").fresh_network(0)
    assert "\n" not in str(caught.value)
