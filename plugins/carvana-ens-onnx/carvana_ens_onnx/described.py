"""What an ONNX file says of itself: metadata, the form of its input, and what its outputs are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from carvana_ens import TrainingError, UsageError

KEY = "carvana_ens"
"""Metadata whose value is a JSON object of options, for files that are to say everything."""
FORMATS = {"gray8": "gray", "rgb8": "rgb", "bgr8": "bgr"}
RANGES = {"nominalrange_0_255": "levels", "normalized_0_1": "unit", "normalized_1_1": "signed"}
"""Values of ONNX's own metadata of images (its MetadataProps.md), in small letters, as options."""
UNCHANGED = {
    *("Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"),
    *("Slice", "Gather", "Split", "Resize", "Upsample"),
}
"""Operators that leave values what they are: probabilities or logits."""
PROBABILITIES = {"Sigmoid", "Softmax", "HardSigmoid"}
LOGITS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "BatchNormalization"}


def read_file(path: Path) -> Any:
    """The onnx.ModelProto of a file.

    Raises:
        TrainingError: it is no ONNX file, or its parameters lie in other files, which its sha256 does not cover.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        proto = onnx.load_model(path, format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise TrainingError(f"{path} is no ONNX file, or damaged: export it anew") from error
    if not proto.graph.node:
        raise TrainingError(f"{path} is no ONNX file: it has no network in it")
    for tensor in _tensors(proto.graph):
        if onnx.external_data_helper.uses_external_data(tensor):
            raise TrainingError(
                f"{path} keeps {tensor.name or 'a tensor'} in another file: its sha256 would not tell which parameters "
                "made a map; put all into one: onnx.save(onnx.load(OLD), NEW), or torch.onnx.export(..., "
                "external_data=False)"
            )
    return proto


def _tensors(graph: Any) -> Iterator[Any]:
    """All constants of a graph and of those inside its nodes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def options_in(proto: Any, path: Path) -> dict[str, Any]:
    """Options that the file's metadata has, in our own key or in those that ONNX defines for images.

    Raises:
        TrainingError: our own key has something else.
    """
    found = {entry.key.lower(): entry.value for entry in proto.metadata_props}
    options: dict[str, Any] = {}
    for key, option, known in (
        ("image.bitmappixelformat", "colour", FORMATS),
        ("image.nominalpixelrange", "normalise", RANGES),
    ):
        value = found.get(key, "").lower()
        if value in known:
            options[option] = known[value]
    try:
        own = json.loads(found.get(KEY, "{}"))
    except json.JSONDecodeError:
        own = None
    if not isinstance(own, dict):
        raise TrainingError(f"{path} has metadata {KEY} that is no JSON object of options: {found[KEY][:80]!r}")
    return options | own


def activation_of(proto: Any, output: str) -> str:
    """Whether an output is probabilities ("none") or "logits", by the last operator that makes its values.

    Raises:
        UsageError: that operator makes either, or something else.
    """
    makers = {name: node for node in proto.graph.node for name in node.output}
    node, name = makers.get(output), output
    while node is not None and node.op_type in UNCHANGED:
        name = node.input[0]
        node = makers.get(name)
    kind = "nothing" if node is None else node.op_type
    if kind in PROBABILITIES:
        return "none"
    if kind in LOGITS:
        return "logits"
    raise UsageError(
        f"output {output} ends in {kind}, which does not tell probabilities from logits: set activation to none (they "
        "are probabilities), sigmoid or softmax"
    )
