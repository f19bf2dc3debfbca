from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from carvana_ens_linknet import LinkNet, LinkNet18, LinkNet34, LinkNet50, make_encoder
from safetensors.torch import save_file
from torch.nn import functional

from carvana_ens import MemberConfig, Size, TrainingError, UsageError
from carvana_ens.testing import declared_models, draw_photos

MODELS = {"linknet18": LinkNet18, "linknet34": LinkNet34, "linknet50": LinkNet50}
WIDTHS = {"linknet18": (64, 128, 256, 512), "linknet34": (64, 128, 256, 512), "linknet50": (256, 512, 1024, 2048)}


def make(name, **options):
    return MODELS[name](MemberConfig(name=name, model=name, options=options))


def stirred(network):
    """The network with normalisation layers that do something, in eval mode."""
    torch.manual_seed(1)
    for key, tensor in network.state_dict().items():
        if tensor.is_floating_point() and tensor.ndim == 1 and "head" not in key:
            tensor.uniform_(0.5, 1.5)
    return network.eval()


def test_every_entry_point_is_a_model_here():
    assert declared_models(Path(__file__).parents[1] / "pyproject.toml") == MODELS


def test_trainable_parameters_of_linknet34_are_those_of_the_authors():
    assert round(make("linknet34").count_parameters() / 1e6, 2) == 21.64


@pytest.mark.parametrize("name", MODELS)
def test_trainable_parameters_are_torchvisions_and_those_of_the_decoder(name):
    with torch.device("meta"):
        encoder = getattr(torchvision.models, name.replace("linknet", "resnet"))()
    count = sum(p.numel() for key, p in encoder.named_parameters() if not key.startswith("fc."))
    first, *rest = widths = WIDTHS[name]
    for before, after in zip(widths[::-1], [*rest[-2::-1], first, first], strict=True):
        quarter = before // 4
        count += before * quarter + 9 * quarter**2 + quarter * after + 3 * (2 * quarter + after)
    count += (9 * first * 32 + 32) + (9 * 32 * 32 + 32) + (4 * 32 + 1)
    assert make(name).count_parameters() == count
    assert make(name, output_conv=True).count_parameters() == count + 2


def torchvisions(name, weights, images):
    """The outputs of torchvision's four stages, with these weights."""
    resnet = getattr(torchvision.models, name.replace("linknet", "resnet"))()
    missing, unknown = resnet.load_state_dict(weights, strict=False)
    assert (sorted(missing), unknown) == (["fc.bias", "fc.weight"], [])
    resnet.eval()
    x, taps = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(images)))), []
    for stage in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
        x = stage(x)
        taps.append(x)
    return taps


@pytest.mark.parametrize("name", MODELS)
def test_the_encoder_is_torchvisions(name):
    encoder = stirred(make_encoder(name.replace("linknet", "resnet"), 3))
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        taps = encoder(images)
        for ours, theirs in zip(taps, torchvisions(name, encoder.state_dict(), images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    shapes = [(2, c, 64 // s, 96 // s) for c, s in zip(WIDTHS[name], (4, 8, 16, 32), strict=True)]
    assert [tap.shape for tap in taps] == shapes


def conv(x, parameters, name, padding=0):
    return functional.conv2d(x, parameters[f"{name}.weight"], parameters[f"{name}.bias"], padding=padding)


def transposed(x, parameters, name, before, after):
    """A 3x3 transposed convolution of stride 2, written as a convolution of pixels set apart by zeros.

    before, after: zeros left and right (above and below) of these pixels.
    """
    n, c, h, w = x.shape
    apart = x.new_zeros(n, c, 2 * h - 1, 2 * w - 1)
    apart[:, :, ::2, ::2] = x
    weight = parameters[f"{name}.weight"].flip(2, 3).transpose(0, 1)
    return functional.conv2d(functional.pad(apart, (before, after, before, after)), weight, parameters[f"{name}.bias"])


def normed(x, parameters, name):
    mean, var, scale, shift = (
        parameters[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return ((x - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=0)


@pytest.mark.parametrize("name", MODELS)
def test_the_network_is_the_published_one(name):
    network = stirred(LinkNet(name.replace("linknet", "resnet"), 3))
    p = network.state_dict()
    images = torch.randn(1, 3, 64, 96)

    def decoded(x, number):
        x = normed(conv(x, p, f"blocks.{number}.0"), p, f"blocks.{number}.1")
        x = normed(transposed(x, p, f"blocks.{number}.3", 1, 2), p, f"blocks.{number}.4")
        return normed(conv(x, p, f"blocks.{number}.6"), p, f"blocks.{number}.7")

    with torch.no_grad():
        weights = {key.removeprefix("encoder."): tensor for key, tensor in p.items() if key.startswith("encoder.")}
        e1, e2, e3, e4 = torchvisions(name, weights, images)
        d4 = decoded(e4, 0) + e3
        d3 = decoded(d4, 1) + e2
        d2 = decoded(d3, 2) + e1
        d1 = decoded(d2, 3)
        assert d1.shape[2:] == (32, 48)
        x = transposed(d1, p, "head.0", 2, 2).clamp(min=0)
        assert x.shape[2:] == (65, 97)
        x = conv(x, p, "head.2").clamp(min=0)
        assert x.shape[2:] == (63, 95)
        expected = conv(x, p, "head.4", padding=1)
        torch.testing.assert_close(network(images), expected, rtol=1e-3, atol=1e-3 * expected.std().item())
        assert expected.std() > 1e-3


def test_the_keras_solutions_last_layer_is_one_factor_and_one_offset():
    plain, more = (make("linknet18", output_conv=added).build().eval() for added in (False, True))
    more.load_state_dict(plain.state_dict(), strict=False)
    scale, shift = more.head[-1].weight.item(), more.head[-1].bias.item()
    images = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        torch.testing.assert_close(more(images), plain(images) * scale + shift)


@pytest.mark.parametrize("name", MODELS)
def test_the_input_rule_is_that_of_the_authors(name):
    model = make(name)
    options = model.options
    assert (options.colour, options.normalise, options.pad, options.pad_sides) == ("bgr", "unit", "zero", "after")
    assert (model.size, model.divisor) == (None, 32)


def test_the_network_sees_blue_first_and_no_mean():
    model = make("linknet18")
    seen = []
    images, _ = draw_photos(1, Size(32, 64))
    network = model.build().eval()
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        model.forward(network, torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    np.testing.assert_allclose(seen[0][0].permute(1, 2, 0).numpy(), images[0, :, :, ::-1] / 255, atol=1e-6)


def test_colour_decides_the_input_channels():
    for colour, channels in (("bgr", 3), ("gray", 1)):
        with torch.device("meta"):
            network = make("linknet34", colour=colour).build()
        assert network.encoder.conv1.in_channels == channels


@pytest.mark.parametrize("name", MODELS)
def test_a_training_step_lowers_the_loss_and_the_checkpoint_predicts_alike(name, check_training_step, check_round_trip):
    model = make(name)
    network = model.fresh_network(0)
    images, masks = draw_photos(2, Size(64, 64))
    check_training_step(model, network, images, masks)
    check_round_trip(model, network, images)


def torchvision_file(path, encoder):
    """A ResNet as torchvision's old files have it: with a classifier (made small), without counters."""
    tensors = {key: tensor for key, tensor in encoder.state_dict().items() if not key.endswith("num_batches_tracked")}
    tensors["fc.weight"] = torch.zeros(10, 4)
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)


@pytest.mark.parametrize("name", ["resnet.pth", "resnet.safetensors"])
def test_training_starts_from_the_weights_that_are_named_and_predicting_needs_them_no_more(name, tmp_path):
    source = stirred(make_encoder("resnet18", 3))
    torchvision_file(tmp_path / name, source)
    model = make("linknet18", encoder_weights=str(tmp_path / name))
    network = model.fresh_network(0).eval()
    images = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        for ours, theirs in zip(network.encoder(images), source(images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    (tmp_path / name).unlink()
    model.load(tmp_path / "net.safetensors", "cpu")
    with pytest.raises(UsageError, match=rf"{name}, which is no file"):
        model.fresh_network(0)


def test_a_gray_encoder_takes_weights_of_colours(tmp_path):
    torchvision_file(tmp_path / "resnet18.pth", make_encoder("resnet18", 3))
    network = make("linknet18", encoder_weights=str(tmp_path / "resnet18.pth"), colour="gray").fresh_network(0)
    expected = torch.load(tmp_path / "resnet18.pth", weights_only=True)["conv1.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(network.encoder.conv1.weight.detach(), expected)


def test_another_resnets_file_is_refused(tmp_path):
    torchvision_file(tmp_path / "resnet18.pth", make_encoder("resnet18", 3))
    with pytest.raises(TrainingError, match=r"resnet18\.pth does not hold .* encoder resnet34.*: .* first layer1\.2"):
        make("linknet34", encoder_weights=str(tmp_path / "resnet18.pth")).fresh_network(0)


def test_the_hub_is_asked_for_the_weights_of_the_author(empty_hub):
    with pytest.raises(TrainingError, match=r"no weights of encoder resnet34\.tv_in1k from the hub"):
        make("linknet34", encoder_weights="hub").fresh_network(0)
