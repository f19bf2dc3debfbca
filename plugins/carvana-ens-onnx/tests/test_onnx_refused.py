"""What is asked for, and what is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from carvana_ens_onnx import Onnx
from carvana_ens_onnx.model import _providers
from onnx import TensorProto, helper
from onnx_nets import BYTES, FLOAT, convolved, expected, load, node, predict, save

from carvana_ens import MemberConfig, Size, TrainingError, UsageError
from carvana_ens.testing import draw_photos


def test_channels_that_could_be_a_side_are_asked_for(file):
    convolved(file, shape=(1, 3, 40, 3))
    with pytest.raises(
        UsageError, match=r"net\.onnx: input x is tensor\(float\) of \[1, 3, 40, 3\].*set layout to nchw"
    ):
        load(file, normalise="unit")
    model = load(file, normalise="unit", layout="nchw")
    assert model.size == Size(40, 3)
    images, _ = draw_photos(1, Size(40, 3))
    np.testing.assert_allclose(predict(model, images), expected(images=images)[0], atol=1e-5)
    with pytest.raises(UsageError, match="without one or three channels where layout=nhwc"):
        load(convolved(file), normalise="unit", layout="nhwc")


@pytest.mark.parametrize(
    ("count", "options", "words"),
    [
        (3, {}, "the output has 3 channels: set channel to the object's, from 0 to 2"),
        (3, {"channel": 1}, "the output has 3 channels of logits: set activation to softmax"),
        (2, {"activation": "sigmoid"}, "the output has 2 channels: set channel"),
        (1, {"channel": 1}, "option channel is 1, and the output has 1 channels"),
        (1, {"activation": "softmax"}, "the output has one channel, of which softmax makes 1 everywhere"),
    ],
)
def test_channels_that_are_not_told_are_asked_for(file, count, options, words):
    with pytest.raises(UsageError, match=rf"net\.onnx: {words}"):
        predict(load(convolved(file, count), normalise="unit", **options))


def test_an_operator_that_tells_nothing_is_asked_about(file):
    convolved(file, after=[node("Relu", ["z"], ["y"])])
    with pytest.raises(UsageError, match=r"output y ends in Relu.*set activation to none"):
        load(file, normalise="unit")
    np.testing.assert_allclose(
        predict(load(file, normalise="unit", activation="none")), np.maximum(expected()[0], 0), atol=1e-5
    )


def test_normalising_that_is_not_told_is_asked_for(file):
    with pytest.raises(UsageError, match=r"net\.onnx: the file does not say how levels.*set normalise to imagenet"):
        load(convolved(file))


@pytest.mark.parametrize("text", ["[]", "{", '{"normalise": "none"}', '{"kolour": "rgb"}'])
def test_metadata_of_ours_that_is_wrong_is_refused(file, text):
    with pytest.raises((TrainingError, UsageError), match=r"JSON object|option normalise takes|option 'kolour'"):
        load(convolved(file, metadata={"carvana_ens": text}))


def test_classes_in_place_of_maps_are_refused(file):
    convolved(file, 3, [node("ArgMax", ["z"], ["y"], axis=1)], out=TensorProto.INT64)
    with pytest.raises(TrainingError, match=r"answers photos of 24x40 with y: int64 of shape .*, which are no maps"):
        predict(load(file, normalise="unit", activation="none"))


def test_an_answer_about_the_whole_photo_is_no_map(file):
    convolved(file, 2, [node("GlobalAveragePool", ["z"], ["y"])])
    with pytest.raises(TrainingError, match=r"float32 of shape \(3, 2, 1, 1\), which are no maps"):
        predict(load(file, normalise="unit", activation="sigmoid"))


def test_a_size_that_the_network_does_not_take_is_one_error(file):
    convolved(file, after=[node("Reshape", ["z", "form"], ["y"])], tensors={"form": np.array([-1, 1, 16, 16])})
    with pytest.raises(TrainingError, match=r"net\.onnx fails on photos of 24x40: .*set multiple=32"):
        predict(load(file, normalise="unit"))


@pytest.mark.parametrize("content", [b"", b"no network", b"\x08\x07\x12\x04torc", b"PK\x03\x04" + bytes(99)])
def test_other_files_are_refused(file, content):
    file.write_bytes(content)
    with pytest.raises(TrainingError, match=r"net\.onnx is no ONNX file"):
        load(file, normalise="unit")


def test_a_torn_file_is_refused(file):
    whole = convolved(file).read_bytes()
    for length in range(1, len(whole) - 1, 7):
        file.write_bytes(whole[:length])
        with pytest.raises((TrainingError, UsageError), match=r"net\.onnx"):
            load(file, normalise="unit")


def test_an_operator_that_nobody_knows_is_one_error(file):
    convolved(file, after=[node("Segmentise", ["z"], ["y"])])
    with pytest.raises(TrainingError, match=r"net\.onnx cannot be loaded by ONNX Runtime .*Segmentise"):
        load(file, normalise="unit")


def test_parameters_in_another_file_are_refused(file):
    proto = onnx.load(convolved(file))
    onnx.save(proto, file, save_as_external_data=True, location="net.data", size_threshold=0)
    with pytest.raises(TrainingError, match=r"keeps w in another file: .*onnx\.save\(onnx\.load\(OLD\), NEW\)"):
        load(file, normalise="unit")
    whole = file.with_name("whole.onnx")
    onnx.save(onnx.load(file), whole)  # the message's own advice
    np.testing.assert_allclose(predict(load(whole, normalise="unit")), expected()[0], atol=1e-5)


def test_two_inputs_are_refused(file):
    graph = helper.make_graph(
        [node("Add", ["x", "s"], ["y"])],
        "net",
        [helper.make_tensor_value_info(name, FLOAT, ("n", 3, "h", "w")) for name in ("x", "s")],
        [helper.make_tensor_value_info("y", FLOAT, None)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    with pytest.raises(UsageError, match=r"it has 2 inputs \(x, s\), not one"):
        load(file, normalise="unit")


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"shape": ("n", 3, "l")}, "has not the four axes of photos"),
        ({"shape": ("n", 4, "h", "w")}, "channels cannot be told from sides"),
        ({"dtype": TensorProto.INT64}, r"input x is tensor\(int64\) of .*: export it with an input of"),
    ],
)
def test_inputs_that_are_no_photos_are_refused(file, form, words):
    with pytest.raises(UsageError, match=words):
        load(save(file, [node("Identity", ["x"], ["y"])], out=form.get("dtype", FLOAT), **form), normalise="unit")


@pytest.mark.parametrize(
    ("shape", "dtype", "options", "words"),
    [
        (("n", 1, "h", "w"), FLOAT, {"normalise": "imagenet"}, "one channel, and mean or std three numbers"),
        (("n", 1, "h", "w"), FLOAT, {"normalise": "unit", "colour": "bgr"}, "option colour is bgr: leave it out"),
        (("n", 3, "h", "w"), FLOAT, {"normalise": "unit", "colour": "gray"}, "option colour is gray: leave it out"),
        (("n", 3, "h", "w"), BYTES, {"normalise": "unit"}, "the input takes bytes, levels 0..255 as they are"),
    ],
)
def test_options_that_the_input_refuses(file, shape, dtype, options, words):
    save(file, [node("Identity", ["x"], ["y"])], shape=shape, dtype=dtype, out=dtype)
    with pytest.raises(UsageError, match=words):
        load(file, activation="none", **options)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("scale", -1.0), ("multiple", 0), ("channel", -2), ("threads", -1)),
        *(("mean", "1,2"), ("mean", "a"), ("std", "0"), ("std", "1,nan,2"), ("std", "1,0,1")),
    ],
)
def test_options_out_of_their_range(name, value):
    with pytest.raises(UsageError, match=f"option {name} is"):
        Onnx(MemberConfig("m", "onnx", options={name: value}))


def test_without_a_file_the_command_is_named():
    with pytest.raises(UsageError, match="add-model onnx --checkpoint FILE"):
        load(None)


CPU, CUDA, COREML = "CPUExecutionProvider", "CUDAExecutionProvider", "CoreMLExecutionProvider"


@pytest.mark.parametrize(
    ("device", "available", "asked"),
    [
        ("cpu", [CUDA, CPU], [CPU]),
        ("auto", [CPU], [CPU]),
        ("auto", [CUDA, CPU], [CUDA, CPU]),
        ("cuda", [CUDA, CPU], [(CUDA, {"device_id": "0"}), CPU]),
        ("cuda:1", [CUDA, CPU], [(CUDA, {"device_id": "1"}), CPU]),
        ("mps", [COREML, CPU], [(COREML, {}), CPU]),
    ],
)
def test_devices_are_providers(device, available, asked):
    assert _providers(device, available) == asked


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cuda", "device cuda is not there.*pip install onnxruntime-gpu"),
        ("mps", "device mps is not there"),
        ("tpu", "device 'tpu' is unknown"),
        ("cuda:x", "device 'cuda:x' is unknown"),
        ("cpu:1", "device 'cpu:1' is unknown"),
    ],
)
def test_devices_that_are_not_there(device, words):
    with pytest.raises(UsageError, match=words):
        _providers(device, [CPU])


def test_a_device_that_does_not_start_is_refused(file, monkeypatch):
    """ONNX Runtime lists providers that it was built with, and goes on with the CPU where one does not start."""
    import onnxruntime

    class OnCpu:
        def __init__(self, *given, providers):
            assert providers[0] == (CUDA, {"device_id": "0"})

        def get_providers(self):
            return [CPU]

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", OnCpu)
    with pytest.raises(UsageError, match="cannot start device cuda here"):
        load(convolved(file), device="cuda", normalise="unit")
