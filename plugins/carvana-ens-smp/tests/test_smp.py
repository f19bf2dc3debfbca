from __future__ import annotations

import inspect
from pathlib import Path

import carvana_ens_smp
import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import save_file

from carvana_ens import MemberConfig, Size, TrainingError, UsageError
from carvana_ens.testing import declared_models, draw_photos

MODELS = {f"smp-{name}": kind for name, kind in smp.MODEL_ARCHITECTURES_MAPPING.items()}
VIT = "tu-vit_tiny_patch16_224"


def make(name, **options):
    options = ({"encoder": VIT} if name == "smp-dpt" else {"encoder": "resnet18"}) | options
    kind = getattr(carvana_ens_smp, f"Smp{MODELS[name].__name__}")
    return kind(MemberConfig(name=name, model=name, options=options))


def theirs(name, encoder=None, **arguments):
    """The network as a user of smp makes it."""
    if name == "smp-dpt":
        encoder, arguments = encoder or VIT, {"dynamic_img_size": True} | arguments
    return MODELS[name](encoder or "resnet18", encoder_weights=None, classes=1, **arguments)


def test_every_architecture_of_smp_is_a_model():
    declared = declared_models(Path(__file__).parents[1] / "pyproject.toml")
    assert {name: model.architecture for name, model in declared.items()} == MODELS
    assert all(vars(carvana_ens_smp)[model.__name__] is model for model in declared.values())
    assert all(model.__doc__ and model.__module__ == "carvana_ens_smp" for model in declared.values())


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_those_of_smp(name):
    network = theirs(name)
    assert make(name).count_parameters() == sum(p.numel() for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_smp_with_the_same_parameters(name):
    side = 128 if name == "smp-pan" else 64
    network = theirs(name).eval()
    model = make(name)
    own = model.build()
    own.load_state_dict(network.state_dict())
    images = torch.rand(1, 3, side, side + 32)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        logits = network((images - mean) / std)
        torch.testing.assert_close(model.forward(own.eval(), images), logits, rtol=1e-3, atol=1e-3)
    assert logits.shape == (1, 1, side, side + 32)


@pytest.mark.parametrize(
    ("name", "stride"), [("smp-unet", 32), ("smp-pspnet", 8), ("smp-deeplabv3", 8), ("smp-deeplabv3plus", 16)]
)
def test_odd_sides_are_padded_to_what_the_architecture_takes(name, stride):
    model = make(name)
    assert model.divisor == stride
    network = model.build().eval()
    seen = []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[2:]))
    with torch.inference_mode():
        assert model.forward(network, torch.rand(1, 3, 37, 53)).shape == (1, 1, 37, 53)
    assert seen == [(37 + -37 % stride, 53 + -53 % stride)]


def test_sides_that_are_too_short_are_refused():
    model = make("smp-pan")
    with pytest.raises(UsageError, match=r"smp\.PAN takes no photos of 64x160: give the member a --size of 128x128"):
        model.forward(model.build().eval(), torch.rand(1, 3, 64, 160))


@pytest.mark.parametrize("name", ["smp-unet", "smp-deeplabv3plus", "smp-segformer"])
def test_a_training_step_lowers_the_loss_and_the_checkpoint_predicts_alike(name, check_training_step, check_round_trip):
    model = make(name)
    network = model.fresh_network(0)
    images, masks = draw_photos(2, Size(64, 64))
    check_training_step(model, network, images, masks)
    check_round_trip(model, network, images)


def test_arguments_reach_smp():
    text = '{"decoder_channels": [64, 32, 32, 16, 16], "decoder_attention_type": "scse"}'
    expected = theirs("smp-unet", decoder_channels=[64, 32, 32, 16, 16], decoder_attention_type="scse")
    own = make("smp-unet", arguments=text).build()
    assert {k: v.shape for k, v in own.state_dict().items()} == {k: v.shape for k, v in expected.state_dict().items()}


def test_arguments_of_timms_encoders_reach_timm():
    own = make("smp-unet", encoder="tu-resnet18", arguments='{"act_layer": "silu"}').build()
    assert any(isinstance(module, torch.nn.SiLU) for module in own.encoder.modules())


def test_gray_photos_have_one_channel():
    assert make("smp-fpn", colour="gray").build().encoder.conv1.in_channels == 1


def test_an_encoder_that_cannot_be_made_unallocated_is_counted():
    network = theirs("smp-segformer", encoder="mit_b0")
    assert make("smp-segformer", encoder="mit_b0").count_parameters() == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("smp-unet", {"encoder": "resnet35"}, "option encoder is 'resnet35'.*did you mean .*resnet34"),
        ("smp-unet", {"encoder": "tu-resnet35"}, "option encoder is 'tu-resnet35'"),
        ("smp-unet", {"arguments": "[1]"}, r"option arguments is '\[1\]': write a JSON object"),
        ("smp-unet", {"arguments": "a=1"}, "write a JSON object"),
        ("smp-unet", {"arguments": '{"classes": 2}'}, "option arguments has classes"),
        ("smp-unet", {"arguments": '{"decoder_depth": 2}'}, "'decoder_depth', and smp.Unet takes encoder_depth, "),
        ("smp-unet", {"arguments": '{"encoder_depth": 4}'}, "smp.Unet cannot be made on encoder resnet18"),
        ("smp-deeplabv3", {"arguments": '{"encoder_output_stride": 4}'}, "smp.DeepLabV3 cannot be made"),
        ("smp-dpt", {"encoder": "resnet18"}, "smp.DPT"),
    ],
)
def test_what_smp_does_not_take_is_refused(name, options, words):
    with pytest.raises(UsageError, match=words):
        make(name, **options).build()


@pytest.mark.parametrize(("encoder", "inner"), [("resnet18", "encoder"), ("tu-resnet18", "encoder.model")])
def test_training_starts_from_the_file_that_is_named(encoder, inner, tmp_path):
    source = theirs("smp-unet", encoder=encoder)
    tensors = source.get_submodule(inner).state_dict()
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / "weights.safetensors")
    model = make("smp-unet", encoder=encoder, encoder_weights=str(tmp_path / "weights.safetensors"))
    own = model.fresh_network(0).get_submodule(inner).state_dict()
    assert all(torch.equal(own[key], tensor) for key, tensor in tensors.items() if "num_batches" not in key)


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18"])
def test_the_hub_is_asked_for_smps_weights(encoder, empty_hub):
    with pytest.raises(TrainingError, match=f"no weights of encoder {encoder} from the hub"):
        make("smp-unet", encoder=encoder, encoder_weights="hub").fresh_network(0)


def test_weights_that_smp_has_not_are_refused():
    with pytest.raises(UsageError, match=r"no weights 'noisy' for encoder resnet18: use hub:NAME of imagenet, ssl"):
        make("smp-unet", encoder_weights="hub:noisy").fresh_network(0)


def test_weights_of_the_hub_become_the_encoders(monkeypatch):
    """smp's constructor stands for the hub: what it would have loaded is what the new network starts from."""
    model = make("smp-unet", encoder_weights="hub")
    asked, constructor = [], model.architecture

    def made(encoder, **named):
        asked.append(named["encoder_weights"])
        network = constructor(encoder, **named | {"encoder_weights": None})
        if named["encoder_weights"]:
            torch.nn.init.constant_(network.encoder.conv1.weight, 0.5)
        return network

    made.__signature__ = inspect.signature(constructor)
    made.__name__ = "Unet"
    monkeypatch.setattr(type(model), "architecture", staticmethod(made))
    network = model.fresh_network(0)
    assert asked == [None, "imagenet"]
    assert (network.encoder.conv1.weight == 0.5).all()
    assert np.ptp(network.decoder.blocks[0].conv1[0].weight.detach().numpy()) > 0
