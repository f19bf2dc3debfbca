from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from carvana_ens.errors import TrainingError, UsageError
from carvana_ens.learn.encoders import EncoderOptions, load_encoder
from carvana_ens.model import path_options

NAME = "test_efficientnet"


def new(name=NAME, channels=3):
    return timm.create_model(name, features_only=True, in_chans=channels)


def stirred(network):
    """The network with normalisation that does something, in eval mode."""
    torch.manual_seed(1)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5)
    return network.eval()


def write(tensors, path):
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return str(path)


def without_counters(tensors):
    return {key: tensor for key, tensor in tensors.items() if not key.endswith("num_batches_tracked")}


def assert_same(encoder, expected):
    """All parameters and running statistics are these."""
    own = without_counters(encoder.state_dict())
    assert own
    for key, tensor in own.items():
        torch.testing.assert_close(tensor, expected[key], rtol=0, atol=0)


def kept(encoder):
    return {key: tensor.clone() for key, tensor in encoder.state_dict().items()}


@pytest.mark.parametrize(("name", "suffix"), [("test_convnext", ".safetensors"), (NAME, ".pth")])
def test_files_of_the_whole_network_match_by_name(name, suffix, tmp_path):
    whole = stirred(timm.create_model(name))
    tensors = whole.state_dict()
    # Another order and a wrapper: names alone decide.
    file = {"state_dict": dict(reversed(tensors.items()))} if suffix == ".pth" else tensors
    encoder = new(name)
    load_encoder(encoder, write(file, tmp_path / f"whole{suffix}"), name, 3)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = whole.forward_intermediates(images, intermediates_only=True)[-1]
        torch.testing.assert_close(encoder.eval()(images)[-1], expected)


def test_a_name_that_is_there_to_the_letter_goes_before_its_like(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.a_b = nn.Sequential(), nn.Linear(2, 2)
            self.a.add_module("b", nn.Linear(2, 2))

    source, encoder = Two(), Two()
    load_encoder(encoder, write(source.state_dict(), tmp_path / "two.safetensors"), "two", 3)
    assert_same(encoder, source.state_dict())


@pytest.mark.parametrize("name", [NAME, "repvgg_a0"])  # repvgg has two layers that see the colours
def test_for_gray_photos_layers_sum_the_colours(name, tmp_path):
    colour, gray = stirred(new(name)), new(name, 1)
    load_encoder(gray, write(colour.state_dict(), tmp_path / "colour.safetensors"), name, 1)
    images = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        expected = colour(images.expand(-1, 3, -1, -1))[-1]
        torch.testing.assert_close(gray.eval()(images)[-1], expected, rtol=1e-3, atol=1e-3 * expected.std().item())


def test_for_photos_in_colour_nothing_is_summed(tmp_path):
    path = write({"weight": torch.ones(6, 3, 3, 3)}, tmp_path / "grouped.safetensors")
    with pytest.raises(TrainingError, match="weight is 6x3x3x3, not 6x1x3x3"):
        load_encoder(nn.Conv2d(6, 6, 3, groups=6, bias=False), path, "grouped", 3)


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


def too_short(tensors):
    return dict(list(renamed(without_counters(tensors)).items())[:-1])


@pytest.mark.parametrize(
    ("change", "suffix", "words"),
    [
        (without_one, ".safetensors", "1 of .* first conv_stem.weight; give the file of this very network"),
        (without_one, ".pth", "1 of .* first conv_stem.weight"),  # in order only where no name agrees
        (one_transposed, ".safetensors", "conv_stem.weight is 3x.*x3x3, not .*x3x3x3"),
        (one_not_finite, ".safetensors", "bn1.running_var has values that are not finite"),
        (swapped_kinds, ".pth", "does not hold the weights"),
        (too_short, ".pth", "does not hold the weights"),
        (lambda tensors: renamed(one_transposed(tensors)), ".pth", "conv_stem.weight is 3x"),
        (renamed, ".safetensors", "does not hold the weights"),  # safetensors keeps names, no order
    ],
)
def test_files_that_do_not_fit_are_refused_and_change_nothing(change, suffix, words, tmp_path):
    path = write(change(new().state_dict()), tmp_path / f"w{suffix}")
    encoder = new()
    before = kept(encoder)
    with pytest.raises(TrainingError, match=words) as caught:
        load_encoder(encoder, path, NAME, 3)
    assert f"encoder {NAME}" in str(caught.value)
    assert path in str(caught.value)
    assert_same(encoder, before)


def test_renamed_files_without_counters_match_in_order(tmp_path):
    source = stirred(new()).state_dict()
    file = {**renamed(without_counters(source)), "classifier.weight": torch.zeros(10, 4)}
    encoder = new()
    load_encoder(encoder, write(file, tmp_path / "old.pth"), NAME, 3)
    assert_same(encoder, source)


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_files_that_would_run_code_are_refused(tmp_path):
    path = write({"conv_stem.weight": RunsCode(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(TrainingError, match=r"evil\.pth"):
        load_encoder(new(), path, NAME, 3)
    assert not (tmp_path / "ran").exists()


def test_paths_that_are_no_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "folder.pth").mkdir()
    for weights in ("~/lost.pth", str(tmp_path / "folder.pth"), "Hub"):
        with pytest.raises(UsageError, match=rf"{Path(weights).name}, which is no file: give its full path, or 'hub'"):
            load_encoder(new(), weights, NAME, 3)
    source = stirred(new())
    write(source.state_dict(), tmp_path / "home.safetensors")
    encoder = new()
    load_encoder(encoder, "~/home.safetensors", NAME, 3)
    assert_same(encoder, source.state_dict())


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """timm's hub, out of reach, and the empty folder of its cache."""
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_hub_that_cannot_be_reached_is_one_clear_error(hub):
    encoder = new()
    before = kept(encoder)
    with pytest.raises(
        TrainingError, match=rf"no weights of encoder {NAME} from the hub .* set encoder_weights to a"
    ) as e:
        load_encoder(encoder, "hub", NAME, 3)
    assert "\n" not in str(e.value)
    assert_same(encoder, before)


def test_names_without_weights_on_the_hub_are_refused(hub):
    bare = next(m for m in timm.list_models("*botnet*") if not timm.models.is_model_pretrained(m))
    for name in (bare, "no_such_network"):
        with pytest.raises(UsageError, match=f"timm has no weights for encoder {name}: give a file, or leave"):
            load_encoder(new(), "hub", name, 3)


@pytest.mark.parametrize("channels", [3, 1])
def test_weights_come_from_the_hubs_cache(channels, hub):
    whole = stirred(timm.create_model(NAME))
    folder = hub / f"models--{timm.get_pretrained_cfg(NAME).hf_hub_id.replace('/', '--')}"
    (folder / "snapshots" / "1").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("1")
    save_file(whole.state_dict(), folder / "snapshots" / "1" / "model.safetensors")
    encoder = new(channels=channels)
    load_encoder(encoder, "hub", NAME, channels)
    images = torch.rand(1, channels, 64, 64)
    with torch.no_grad():
        expected = whole.forward_intermediates(images.expand(-1, 3, -1, -1), intermediates_only=True)[-1]
        torch.testing.assert_close(encoder.eval()(images)[-1], expected, rtol=1e-4, atol=1e-4)


def test_without_weights_the_encoder_stays_as_it_is(hub):
    encoder = new()
    before = kept(encoder)
    load_encoder(encoder, EncoderOptions().encoder_weights, NAME, 3)
    assert_same(encoder, before)


def test_a_file_of_weights_is_known_as_a_path():
    assert path_options(EncoderOptions) == ["encoder_weights"]
