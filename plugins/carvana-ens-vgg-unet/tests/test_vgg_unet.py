from __future__ import annotations

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
    make_encoder,
)
from safetensors.torch import save_file
from torch.nn import functional
from torchvision.models.vgg import cfgs, make_layers

from carvana_ens import MemberConfig, Size, TrainingError, UsageError
from carvana_ens.testing import declared_models, draw_photos

MODELS = {
    "unet11": Unet11,
    "unet-vgg11-v1": UnetVgg11V1,
    "unet-vgg11-v2": UnetVgg11V2,
    "unet-vgg11-a": UnetVgg11A,
}


def make(name, **options):
    return MODELS[name](MemberConfig(name=name, model=name, options=options))


def test_every_entry_point_is_a_model_here():
    assert declared_models(Path(__file__).parents[1] / "pyproject.toml") == MODELS


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
def test_a_training_step_lowers_the_loss_and_the_checkpoint_predicts_alike(name, check_training_step, check_round_trip):
    model = make(name)
    network = model.fresh_network(0)
    images, masks = draw_photos(1, Size(32, 64))
    check_training_step(model, network, images, masks)
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())
    check_round_trip(model, network, images)


def torchvision_file(path, encoder):
    """VGG-11 as torchvision's file names it, with its classifier (made small)."""
    tensors = {key.replace("_", "."): tensor for key, tensor in encoder.state_dict().items()}
    tensors["classifier.6.weight"] = torch.zeros(10, 4)
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
    source = make_encoder(3).state_dict()
    save_file(source, tmp_path / "ours.safetensors")
    network = make("unet11", encoder_weights=str(tmp_path / "ours.safetensors"), colour="gray").fresh_network(0)
    got = network.encoder.state_dict()
    torch.testing.assert_close(got["features_0.weight"], source["features_0.weight"].sum(1, keepdim=True))
    torch.testing.assert_close(got["features_18.bias"], source["features_18.bias"], rtol=0, atol=0)


def test_the_hub_is_asked_for_the_weights_of_the_author(empty_hub):
    with pytest.raises(TrainingError, match="no weights of encoder vgg11 from the hub"):
        make("unet11", encoder_weights="hub").fresh_network(0)
