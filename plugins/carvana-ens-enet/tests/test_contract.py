from __future__ import annotations

from typing import ClassVar

from carvana_ens.testing import ModelTests


class TestNearest(ModelTests):
    model = "enet"
    options: ClassVar = {"epochs": 1}


class TestUnpooling(ModelTests):
    model = "enet"
    options: ClassVar = {"epochs": 1, "upsampling": "unpooling"}
