"""Small ONNX files of known numbers, and their models; ``conftest.py`` makes this module ``onnx_nets``."""

from __future__ import annotations

import numpy as np
import onnx
from carvana_ens_onnx import Onnx
from onnx import TensorProto, helper, numpy_helper

from carvana_ens import Batch, MemberConfig, Size
from carvana_ens.testing import draw_photos

FLOAT, HALF, DOUBLE, BYTES = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8
IMAGES, _ = draw_photos(3, Size(24, 40))
WEIGHTS = np.array([[0.5, -1.5, 2.0], [-0.25, 1.0, 0.5], [1.0, 1.0, -2.0]], np.float32)
"""Of three output channels, by red, green and blue."""
BIAS = np.array([0.2, -0.3, 0.1], np.float32)


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs, outputs, **attributes)


def save(path, nodes, *, shape=("n", 3, "h", "w"), dtype=FLOAT, outputs=("y",), tensors=(), metadata=None, out=FLOAT):
    """An ONNX file with the input ``x``. outputs: names, or (name, shape) where the shape is declared."""
    declared = [item if isinstance(item, tuple) else (item, None) for item in outputs]
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info(name, out, form) for name, form in declared],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in dict(tensors).items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(proto, metadata or {})
    onnx.save(proto, path)
    return path


def convolved(path, count=1, after=(), **form):
    """A 1x1 convolution to the first ``count`` output channels, named y, or z where ``after`` goes on to y."""
    values = np.float16 if form.get("dtype") == HALF else np.float32
    nodes = [node("Conv", ["x", "w", "b"], ["z" if after else "y"]), *after]
    tensors = {"w": WEIGHTS[:count, :, None, None].astype(values), "b": BIAS[:count].astype(values)}
    return save(path, nodes, tensors={**tensors, **form.pop("tensors", {})}, **form)


def expected(count=1, images=IMAGES, scale=1 / 255, mean=0.0, std=1.0):
    """(count, N, H, W) float64 logits of ``convolved``, in numpy."""
    inputs = (images.astype(np.float64) * scale - mean) / std
    return np.moveaxis(inputs @ WEIGHTS[:count].astype(np.float64).T + BIAS[:count], -1, 0)


def softmax(logits):
    powers = np.exp(logits - logits.max(0))
    return powers / powers.sum(0)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def load(path, size=None, device="cpu", **options):
    model = Onnx(MemberConfig("m", "onnx", size=size, options=options))
    model.load(path, device)
    return model


def predict(model, images=IMAGES):
    ids = tuple(f"c{number}_01" for number in range(len(images)))
    maps = model.predict(Batch(images, ids, ids))
    assert maps.dtype == np.float32
    assert maps.shape == images.shape[:3]
    return maps
