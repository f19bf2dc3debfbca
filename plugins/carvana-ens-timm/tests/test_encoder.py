from __future__ import annotations

import pytest
import timm
import torch
from carvana_ens_timm.encoder import Encoder, make_encoder, own_scale
from carvana_ens_timm.models import TimmLinknetModel
from torch import nn
from torch.nn import functional

from carvana_ens import MemberConfig, UsageError

# Of every kind: BatchNorm from a stride of 2, LayerNorm from 4, pixels of the photo itself, and one coarser than most.
STRIDES = {
    "test_efficientnet": [2, 4, 8, 16, 32],
    "test_convnext": [4, 8, 16, 32],
    "vgg11": [1, 2, 4, 8, 16, 32],
    "efficientvit_m0": [16, 32, 64],
}


@pytest.mark.parametrize("name", STRIDES)
def test_features_are_timms_by_their_stride(name):
    encoder = make_encoder(name).eval()
    twin = timm.create_model(name, features_only=True).eval()
    twin.load_state_dict(encoder.backbone.state_dict())
    images = torch.rand(1, 3, 128, 192)
    with torch.no_grad():
        features, expected = encoder(images), twin(images)
    assert list(features) == list(encoder.channels) == STRIDES[name]
    for (stride, ours), theirs in zip(features.items(), expected, strict=True):
        assert ours.shape == (1, encoder.channels[stride], 128 // stride, 192 // stride)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize(("output_stride", "strides"), [(16, [2, 4, 8, 16]), (8, [2, 4, 8])])
def test_a_dilated_backbone_sees_the_same_on_a_finer_grid(output_stride, strides):
    torch.manual_seed(0)
    whole = make_encoder("resnet18").eval()
    dilated = make_encoder("resnet18", output_stride=output_stride).eval()
    assert list(dilated.channels) == strides
    assert dilated.channels[output_stride] == whole.channels[32]
    dilated.load_state_dict(whole.state_dict())
    images = torch.rand(1, 3, 96, 128)
    step = 32 // output_stride
    with torch.no_grad():
        features, expected = dilated(images), whole(images)
    # Every step-th of the dilated features, each way, is what strides would have kept (M. Holschneider et al. 1989).
    torch.testing.assert_close(features[output_stride][:, :, ::step, ::step], expected[32])
    torch.testing.assert_close(features[4], expected[4], rtol=0, atol=0)


@pytest.mark.parametrize("output_stride", [0, 16])
def test_photos_of_other_sides_are_refused_with_the_size_to_use(output_stride):
    encoder = make_encoder("test_efficientnet", output_stride=output_stride)
    size = {0: "64x96", 16: "48x80"}[output_stride]
    with pytest.raises(UsageError, match=f"photos of 47x71 .* multiple of {output_stride or 32}: pad them to {size}"):
        encoder(torch.zeros(1, 3, 47, 71))


@pytest.mark.parametrize(
    ("name", "output_stride", "words"),
    [
        ("test_vit", 0, "test_vit .* no pyramid: choose"),
        ("swin_tiny_patch4_window7_224", 0, "swin_tiny.* any size .*: choose"),
        ("test_mambaout", 0, r"test_mambaout gives features of shapes .* not \(N, channels, H, W\): choose"),
        ("vgg11", 16, "vgg11 cannot be made with output_stride 16 .*: leave it at 0"),
        ("hgnetv2_b0", 8, "hgnetv2_b0 cannot be made with output_stride 8 .*unexpected keyword.*: leave it at 0"),
    ],
)
def test_backbones_that_cannot_be_used_are_refused(name, output_stride, words):
    with pytest.raises(UsageError, match=words):
        make_encoder(name, output_stride=output_stride)


class Backbone(nn.Module):
    """Means of squares of 2 and of 4 pixels, those of 4 without the last row and column."""

    class feature_info:  # noqa: N801 - timm's name
        reduction = staticmethod(lambda: [2, 4])
        channels = staticmethod(lambda: [3, 3])

    def forward(self, images):
        return [functional.avg_pool2d(images, 2), functional.avg_pool2d(images, 4)[:, :, :-1, :-1]]


def test_grids_that_lost_their_rim_are_brought_to_their_size():
    ramp = torch.arange(16.0).expand(1, 3, 12, 16)
    features = Encoder(Backbone())(ramp)
    assert features[4].shape == (1, 3, 3, 4)
    # The means 1.5, 5.5 and 9.5, drawn out to four pixels: their centres lie at -1/8, 5/8, 11/8 and 17/8 of the three.
    expected = torch.tensor([1.5, 1.5 + 4 * 0.625, 1.5 + 4 * 1.375, 9.5]).expand(1, 3, 3, 4)
    torch.testing.assert_close(features[4], expected)
    torch.testing.assert_close(features[2], functional.avg_pool2d(ramp, 2), rtol=0, atol=0)


def test_a_backbone_that_ignores_output_stride_is_refused(monkeypatch):
    made = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, output_stride, **others: made(name, **others))
    with pytest.raises(UsageError, match=r"test_resnet has its coarsest features 32 pixels apart in spite of .* 16"):
        make_encoder("test_resnet", output_stride=16)


def test_building_leaves_no_trace_in_running_statistics():
    fresh = timm.create_model("test_efficientnet", features_only=True).state_dict()
    built = make_encoder("test_efficientnet").backbone
    assert built.training
    for key, tensor in built.state_dict().items():
        if "running" in key or "num_batches" in key:
            torch.testing.assert_close(tensor, fresh[key], rtol=0, atol=0)


def seen_by_the_backbone(photos, **options):
    """What reaches the backbone of a model, of photos (N, 3, H, W) in [0, 1]."""
    model = TimmLinknetModel(MemberConfig(name="m", model="timm-linknet", options=options))
    network = model.fresh_network(0).eval()
    seen = []
    network.encoder.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model.forward(network, photos)
    return seen[0]


@pytest.mark.parametrize("encoder", ["tf_efficientnet_lite0", "test_efficientnet"])
@pytest.mark.parametrize("colour", ["rgb", "bgr", "gray"])
def test_a_backbone_sees_photos_as_it_was_trained(encoder, colour):
    trained = timm.get_pretrained_cfg(encoder)
    photos = torch.rand(2, 3, 32, 64)
    order = photos if colour == "rgb" else photos.flip(1)
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (trained.mean, trained.std))
    if colour == "gray":
        luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        order, mean, deviation = ((values * luma).sum(1, keepdim=True) for values in (photos, mean, deviation))
    elif colour == "bgr":
        mean, deviation = mean.flip(1), deviation.flip(1)
    assert (trained.mean == (0.5, 0.5, 0.5)) == (encoder == "tf_efficientnet_lite0")
    seen = seen_by_the_backbone(photos, encoder=encoder, colour=colour)
    torch.testing.assert_close(seen, (order - mean) / deviation, rtol=1e-4, atol=1e-5)


def test_other_normalisations_reach_the_backbone_as_they_are():
    photos = torch.rand(1, 3, 32, 32)
    seen = seen_by_the_backbone(photos, encoder="tf_efficientnet_lite0", normalise="unit")
    torch.testing.assert_close(seen, photos, rtol=0, atol=0)


@pytest.mark.parametrize("colour", ["rgb", "bgr", "gray", "mean"])
def test_scales_of_uneven_colours(colour):
    mean, deviation = torch.tensor([0.48, 0.46, 0.41]), torch.tensor([0.27, 0.26, 0.28])
    given_mean, given_deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    parts = {"gray": [0.299, 0.587, 0.114], "mean": [1 / 3] * 3}
    if colour in parts:
        mean, deviation, given_mean, given_deviation = (
            (values * torch.tensor(parts[colour])).sum(0, keepdim=True)
            for values in (mean, deviation, given_mean, given_deviation)
        )
    elif colour == "bgr":
        mean, deviation, given_mean, given_deviation = (
            values.flip(0) for values in (mean, deviation, given_mean, given_deviation)
        )
    factor, summand = own_scale((0.48, 0.46, 0.41), (0.27, 0.26, 0.28), colour)
    x = torch.linspace(0, 1, 7)[:, None]
    torch.testing.assert_close((x - given_mean) / given_deviation * factor + summand, (x - mean) / deviation)
