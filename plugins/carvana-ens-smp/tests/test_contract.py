from __future__ import annotations

from typing import ClassVar

import pytest

from carvana_ens.testing import ModelTests


class TestSmpUnet(ModelTests):
    model = "smp-unet"
    options: ClassVar = {
        "epochs": 1,
        "encoder": "resnet18",
        "arguments": '{"encoder_depth": 3, "decoder_channels": [16, 8, 8]}',
    }


@pytest.mark.slow
class TestSmpFpn(ModelTests):
    model = "smp-fpn"
    options: ClassVar = {
        "epochs": 1,
        "encoder": "tu-mobilenetv3_small_050",
        "arguments": '{"decoder_pyramid_channels": 32, "decoder_segmentation_channels": 32}',
    }
