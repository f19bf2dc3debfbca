from __future__ import annotations

from typing import ClassVar

from carvana_ens.testing import ModelTests


class TestTimmUnet(ModelTests):
    model = "timm-unet"
    options: ClassVar = {"epochs": 1}


class TestTimmFpn(ModelTests):
    model = "timm-fpn"
    options: ClassVar = {"epochs": 1, "encoder": "test_convnext", "pyramid_channels": 16, "branch_channels": 8}


class TestTimmLinknet(ModelTests):
    model = "timm-linknet"
    options: ClassVar = {"epochs": 1, "encoder": "test_efficientnet"}
