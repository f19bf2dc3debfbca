from __future__ import annotations

import pytest
import torch
from carvana_ens_timm import TimmLinknetModel
from carvana_ens_timm.encoder import make_encoder
from safetensors.torch import save_file

from carvana_ens import MemberConfig, TrainingError


def make(**options):
    return TimmLinknetModel(MemberConfig(name="m", model="timm-linknet", options=options))


def test_a_gray_backbone_sums_the_colours_of_the_first_layer(tmp_path):
    colour = make_encoder("test_efficientnet").backbone
    save_file(colour.state_dict(), tmp_path / "colour.safetensors")
    model = make(encoder="test_efficientnet", encoder_weights=str(tmp_path / "colour.safetensors"), colour="gray")
    gray = model.fresh_network(0).encoder.backbone.eval()
    images = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(gray(images)[-1], colour.eval()(images.expand(-1, 3, -1, -1))[-1])


def test_the_hub_is_asked_for_the_weights_of_the_backbone(empty_hub):
    with pytest.raises(TrainingError, match="no weights of encoder resnet18 from the hub"):
        make(encoder="resnet18", encoder_weights="hub").fresh_network(0)
