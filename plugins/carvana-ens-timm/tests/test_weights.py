from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from carvana_ens_timm import TimmLinknetModel
from carvana_ens_timm.encoder import make_encoder
from carvana_ens_timm.weights import hub_weights, load_backbone
from safetensors.torch import save_file

from carvana_ens import MemberConfig, TrainingError, UsageError


def make(**options):
    return TimmLinknetModel(MemberConfig(name="m", model="timm-linknet", options=options))


def new_backbone(name="test_efficientnet"):
    return make_encoder(name).backbone


@pytest.mark.parametrize(("encoder", "suffix"), [("test_convnext", ".safetensors"), ("test_efficientnet", ".pth")])
def test_files_of_the_whole_backbone_match_by_name(encoder, suffix, tmp_path):
    whole = timm.create_model(encoder)
    path = tmp_path / f"whole{suffix}"
    if suffix == ".pth":
        # Another order and a wrapper: names alone decide.
        torch.save({"state_dict": dict(reversed(whole.state_dict().items()))}, path)
    else:
        save_file(whole.state_dict(), path)
    loaded = new_backbone(encoder)
    load_backbone(loaded, path, encoder)

    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = whole.eval().forward_intermediates(images, intermediates_only=True)[-1]
        torch.testing.assert_close(loaded.eval()(images)[-1], expected)


def test_a_gray_backbone_sums_the_colours_of_the_first_layer(tmp_path):
    colour = new_backbone()
    save_file(colour.state_dict(), tmp_path / "colour.safetensors")
    model = make(encoder="test_efficientnet", encoder_weights=str(tmp_path / "colour.safetensors"), colour="gray")
    gray = model.fresh_network(0).encoder.backbone.eval()
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
    tensors = change(new_backbone().state_dict())
    path = tmp_path / f"w{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    encoder = new_backbone()
    before = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}
    with pytest.raises(TrainingError, match=words):
        load_backbone(encoder, path, "test_efficientnet")
    for key, tensor in encoder.state_dict().items():
        torch.testing.assert_close(tensor, before[key], rtol=0, atol=0)


def test_renamed_files_without_counters_match_in_order(tmp_path):
    source = new_backbone().state_dict()
    path = tmp_path / "old.pth"
    old = {key: tensor for key, tensor in source.items() if not key.endswith("num_batches_tracked")}
    torch.save({**renamed(old), "classifier.weight": torch.zeros(10, 4)}, path)
    encoder = new_backbone()
    load_backbone(encoder, path, "test_efficientnet")
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
    with pytest.raises(UsageError, match=f"no weights for encoder {name}"):
        hub_weights(name, 3)
