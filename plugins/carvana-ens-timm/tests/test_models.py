from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from carvana_ens_timm import TimmFpnModel, TimmLinknetModel, TimmUnetModel
from safetensors.torch import load_file, save_file
from torch.nn import functional

from carvana_ens import Batch, MemberConfig, Size, UsageError
from carvana_ens.testing import declared_models, draw_photos

MODELS = {"timm-fpn": TimmFpnModel, "timm-linknet": TimmLinknetModel, "timm-unet": TimmUnetModel}
SMALL = {"timm-fpn": {"pyramid_channels": 16, "branch_channels": 8}, "timm-linknet": {}, "timm-unet": {}}


def make(name, **options):
    return MODELS[name](MemberConfig(name="m", model=name, options=options))


def make_tiny(name, **options):
    return make(name, **{"encoder": "test_efficientnet", **SMALL[name], **options})


def test_every_entry_point_is_a_model_here():
    assert declared_models(Path(__file__).parents[1] / "pyproject.toml") == MODELS


def backbone_parameters(encoder):
    return sum(p.numel() for p in timm.create_model(encoder, features_only=True).parameters())


def test_parameters_of_the_default_unet():
    widths, below, skips = (96, 64, 32, 16, 8), 320, (96, 32, 24, 16, 0)
    decoder = 0
    for width, skip in zip(widths, skips, strict=True):
        decoder += 9 * (below + skip) * width + 9 * width * width + 4 * width
        below = width
    expected = backbone_parameters("mobilenetv2_100") + decoder + 9 * 8 + 1
    assert make("timm-unet").count_parameters() == expected == 2_411_113


def test_parameters_of_the_default_fpn():
    laterals = sum(inputs * 256 + 256 for inputs in (24, 32, 96, 320))
    smooth = 4 * (9 * 256 * 256 + 256)
    norms = 2 * 128
    first, further = 9 * 256 * 128 + norms, 9 * 128 * 128 + norms
    branches = 4 * first + (0 + 0 + 1 + 2) * further  # strides 4, 8, 16 and 32
    expected = backbone_parameters("mobilenetv2_100") + laterals + smooth + branches + 128 + 1
    assert make("timm-fpn").count_parameters() == expected == 5_917_825


def test_a_linknet_on_resnet34_has_the_winners_21_64_million_parameters():
    count = make("timm-linknet", encoder="resnet34").count_parameters()
    decoder = 0
    for inputs, outputs in ((512, 256), (256, 128), (128, 64), (64, 64)):
        quarter = inputs // 4
        decoder += inputs * quarter + 9 * quarter**2 + quarter * outputs + 2 * (2 * quarter + outputs)
    head = 9 * 64 * 32 + 32 + 9 * 32 * 32 + 32 + 4 * 32 + 1
    resnet34_without_classifier = 21_797_672 - (512 * 1000 + 1000)  # torchvision's own count
    assert count == resnet34_without_classifier + decoder + head == 21_641_409
    assert round(count / 1e6, 2) == 21.64


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("encoder", "output_stride", "divisor", "colour"),
    [
        ("test_efficientnet", 0, 32, "gray"),
        ("test_efficientnet", 8, 8, "rgb"),
        ("test_convnext", 16, 16, "gray"),
        ("efficientvit_m0", 0, 64, "rgb"),
    ],
)
def test_photos_of_any_size_are_predicted_on_their_own_grid(name, encoder, output_stride, divisor, colour):
    doublings = divisor.bit_length() - 1
    widths = {"decoder_channels": ",".join("987654"[-doublings:])} if name == "timm-unet" else {}
    model = make_tiny(name, encoder=encoder, output_stride=output_stride, colour=colour, **widths)
    assert model.divisor == divisor  # before any network is made, for the host pads training photos to it
    model.load(None, "cpu")
    assert model.divisor == max(model.build().encoder.channels) == divisor
    for height, width in ((128, 192), (37, 53)):
        images, _ = draw_photos(2, Size(height, width))
        maps = model.predict(Batch(images, ("a_01", "a_02"), ("a", "a")))
        assert (maps.shape, maps.dtype) == ((2, height, width), np.float32)
        assert np.isfinite(maps).all()
        assert maps.std() > 0


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("timm-unet", {"encoder": "mobilnetv2_100"}, "did you mean mobilenetv2_100"),
        ("timm-fpn", {"encoder": "hf-hub:somebody/net"}, "does not know"),
        ("timm-linknet", {"encoder": ""}, "does not know"),
        ("timm-unet", {"decoder_channels": "96;64"}, "decoder_channels"),
        ("timm-unet", {"decoder_channels": "96,64,32,16,0"}, "decoder_channels"),
        ("timm-fpn", {"pyramid_channels": 0}, "pyramid_channels is 0: it must be from 1 to 4096"),
        ("timm-fpn", {"branch_channels": 5000}, "branch_channels is 5000"),
        ("timm-linknet", {"output_stride": 4}, "output_stride takes one of 0, 8, 16"),
        ("timm-linknet", {"dropout": 1.0}, "dropout"),
        ("timm-linknet", {"epochs": 0}, "epochs"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(name, options, words):
    with pytest.raises(UsageError, match=words):
        make(name, **options)


def test_widths_that_do_not_fit_a_dilated_backbone_are_refused():
    with pytest.raises(UsageError, match=r"has 5 widths.*16 pixels apart: give 4"):
        make_tiny("timm-unet", output_stride=16).build()


@pytest.mark.parametrize("name", MODELS)
def test_training_steps_lower_the_loss(name):
    model = make_tiny(name, dropout=0.1)
    network = model.fresh_network(0).train()
    images, masks = draw_photos(2, Size(64, 64))
    photos = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    truth = torch.from_numpy(masks)[:, None].float()
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        loss = functional.binary_cross_entropy_with_logits(model.forward(network, photos), truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", MODELS)
def test_dropout_is_on_in_training_only(name):
    model = make_tiny(name, dropout=0.5)
    network = model.fresh_network(0).eval()
    images = torch.rand(1, 3, 32, 64)
    dropped = next(module for module in network.modules() if isinstance(module, torch.nn.Dropout2d))
    with torch.no_grad():
        torch.testing.assert_close(network(images), network(images), rtol=0, atol=0)
        dropped.train()
        assert not torch.equal(network(images), network(images))


@pytest.mark.parametrize("name", MODELS)
def test_a_checkpoint_needs_no_encoder_weights(name, tmp_path, check_round_trip):
    weights = tmp_path / "encoder.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), weights)
    model = make_tiny(name, encoder_weights=str(weights))
    network = model.fresh_network(1).eval()
    started, given = network.encoder.backbone.state_dict(), load_file(weights)
    assert all(torch.equal(tensor, given[key]) for key, tensor in started.items())
    weights.unlink()
    check_round_trip(model, network, draw_photos(1, Size(32, 64))[0])
    with pytest.raises(UsageError, match=r"encoder\.safetensors, which is no file"):
        model.fresh_network(1)
