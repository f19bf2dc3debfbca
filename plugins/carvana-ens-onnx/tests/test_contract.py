from __future__ import annotations

import tempfile
from pathlib import Path
from typing import ClassVar

import onnx
from onnx import TensorProto, helper

from carvana_ens.testing import ModelTests


class OnnxTests(ModelTests):
    """A file of one convolution."""

    model = "onnx"
    nodes: ClassVar = ()
    shape: ClassVar = ("n", 3, "h", "w")

    @classmethod
    def setup_class(cls):
        super().setup_class()
        cls._files = tempfile.TemporaryDirectory()
        cls.checkpoint = Path(cls._files.name) / "net.onnx"
        weights = [(index % 7 - 3) / 9 for index in range(27)]
        graph = helper.make_graph(
            [helper.make_node("Conv", ["x", "w", "b"], ["z"], pads=[1, 1, 1, 1]), *cls.nodes],
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, cls.shape)],
            [helper.make_tensor_value_info(cls.nodes[-1].output[0] if cls.nodes else "z", TensorProto.FLOAT, None)],
            [
                helper.make_tensor("w", TensorProto.FLOAT, [1, 3, 3, 3], weights),
                helper.make_tensor("b", TensorProto.FLOAT, [1], [0.1]),
            ],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(proto, cls.checkpoint)

    @classmethod
    def teardown_class(cls):
        super().teardown_class()
        cls._files.cleanup()


class TestLogits(OnnxTests):
    options: ClassVar = {"normalise": "imagenet"}


class TestProbabilitiesOnePhotoAtATime(OnnxTests):
    options: ClassVar = {"normalise": "signed", "multiple": 16, "threads": 1}
    nodes: ClassVar = (helper.make_node("Sigmoid", ["z"], ["p"]),)
    shape: ClassVar = (1, 3, "h", "w")
