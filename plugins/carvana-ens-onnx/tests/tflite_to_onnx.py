"""MediaPipe's selfie segmentation as an ONNX file: python tflite_to_onnx.py selfie_segmentation.tflite selfie.onnx.

tf2onnx leaves one of its operators as it is, Convolution2DTransposeBias (onnx/tensorflow-onnx, issue 2389). Only the
operators and forms of this one network are known here. The maps that it gives of scikit-image's astronaut are within
4e-5 of LiteRT's (ai-edge-litert 2.3.0).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from flatbuffers.number_types import Int8Flags, Int32Flags, Uint8Flags, Uint32Flags
from flatbuffers.table import Table
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

# by number in the schema of TensorFlow Lite
AVERAGE_POOL, CONV, DEPTHWISE_CONV, DEQUANTIZE, RESIZE, CUSTOM = 1, 3, 4, 6, 23, 32
SIMPLE = {0: "Add", 14: "Sigmoid", 18: "Mul", 19: "Relu", 117: "HardSwish"}


class Record:
    """A table of a FlatBuffer; fields are counted as in the schema."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def number(self, field: int, kind: Any = Uint32Flags) -> int:
        offset = self._table.Offset(4 + 2 * field)
        return int(self._table.Get(kind, self._table.Pos + offset)) if offset else 0

    def numbers(self, field: int, kind: Any = Int32Flags) -> NDArray[Any]:
        offset = self._table.Offset(4 + 2 * field)
        return self._table.GetVectorAsNumpy(kind, offset) if offset else np.zeros(0, np.int32)

    def records(self, field: int) -> list[Record]:
        offset = self._table.Offset(4 + 2 * field)
        first = self._table.Vector(offset)
        return [
            Record(Table(self._table.Bytes, self._table.Indirect(first + 4 * number)))
            for number in range(self._table.VectorLen(offset))
        ]


def to_onnx(content: bytes) -> onnx.ModelProto:
    """The network of a file: photo (1, 3, H, W) float32 in [0, 1] to probabilities (1, 1, H, W).

    Raises:
        ValueError: an operator that this network does not have.
    """
    model = Record(Table(bytearray(content), int.from_bytes(content[:4], "little")))
    codes = [max(code.number(0, Int8Flags), code.number(3, Int32Flags)) for code in model.records(1)]
    graph, buffers = model.records(2)[0], model.records(4)
    tensors = graph.records(0)
    shapes = [tuple(map(int, tensor.numbers(0))) for tensor in tensors]
    source, target = int(graph.numbers(1)[0]), int(graph.numbers(2)[0])
    names = {source: "photo", target: "mask"}
    halves: dict[int, int] = {}  # float32 tensor -> the constant in float16 that it is made of
    constants: dict[str, NDArray[Any]] = {}
    nodes = []

    def constant(name: str, values: NDArray[Any]) -> str:
        constants[name] = np.ascontiguousarray(values, np.float32)
        return name

    def parameters(tensor: int) -> NDArray[Any]:
        half = halves[tensor]
        values = buffers[tensors[half].number(2)].numbers(0, Uint8Flags)
        return np.frombuffer(values.tobytes(), np.float16).reshape(shapes[half])

    def node(kind: str, operator: Record, *more: str, **attributes: object) -> None:
        first, last = (names.get(int(operator.numbers(field)[0]), f"t{operator.numbers(field)[0]}") for field in (1, 2))
        nodes.append(helper.make_node(kind, [first, *more], [last], **attributes))

    for operator in graph.records(3):
        code = codes[operator.number(0)]
        inputs, output = [int(number) for number in operator.numbers(1)], int(operator.numbers(2)[0])
        before, after = shapes[inputs[0]], shapes[output]
        if code == DEQUANTIZE:
            halves[output] = inputs[0]
        elif code in (CONV, DEPTHWISE_CONV, CUSTOM):
            values, bias = parameters(inputs[1]), constant(f"b{output}", parameters(inputs[2]))
            axes = (0, 3, 1, 2) if code == CONV else (3, 0, 1, 2)
            weights = constant(f"w{output}", values.transpose(axes))
            if code == CUSTOM:  # Convolution2DTransposeBias of 2x2
                node("ConvTranspose", operator, weights, bias, strides=[2, 2])
                continue
            group = values.shape[3] if code == DEPTHWISE_CONV else 1
            node(
                "Conv", operator, weights, bias, strides=[before[1] // after[1]] * 2, group=group, auto_pad="SAME_UPPER"
            )
        elif code == AVERAGE_POOL and after[1:3] == (1, 1):
            node("GlobalAveragePool", operator)
        elif code == RESIZE:
            scales = constant(f"s{output}", np.array([1, 1, after[1] / before[1], after[2] / before[2]]))
            node("Resize", operator, "", scales, mode="linear", coordinate_transformation_mode="half_pixel")
        elif code in SIMPLE:
            node(SIMPLE[code], operator, *(f"t{tensor}" for tensor in inputs[1:]))
        else:
            raise ValueError(f"operator {code} is not one of this network's: only its file can be converted")
    form = ["photo", 3, *shapes[source][1:3]], ["mask", 1, *shapes[target][1:3]]
    made = helper.make_graph(
        nodes,
        "selfie",
        *([helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *axes])] for name, *axes in form),
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


if __name__ == "__main__":
    onnx.save(to_onnx(Path(sys.argv[1]).read_bytes()), sys.argv[2])
