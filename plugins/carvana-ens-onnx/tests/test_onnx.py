from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
from carvana_ens_onnx import Onnx
from carvana_ens_onnx.model import _providers
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from carvana_ens import Batch, MemberConfig, Size, TrainingError, UsageError, open_store
from carvana_ens.testing import declared_models, draw_photos

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


@pytest.fixture
def file(tmp_path):
    return tmp_path / "net.onnx"


def test_the_entry_point_is_the_model():
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    assert declared_models(pyproject) == {"onnx": Onnx}
    assert not any("torch" in item for item in tomllib.loads(pyproject.read_text())["project"]["dependencies"])


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({"normalise": "unit"}, {}),
        ({"normalise": "levels"}, {"scale": 1}),
        ({"normalise": "signed"}, {"mean": 0.5, "std": 0.5}),
        ({"normalise": "imagenet"}, {"mean": np.array([0.485, 0.456, 0.406]), "std": np.array([0.229, 0.224, 0.225])}),
        ({"scale": 0.5}, {"scale": 0.5}),
        (
            {"scale": 1, "mean": "103.5,110,120", "std": "2"},
            {"scale": 1, "mean": np.array([103.5, 110, 120]), "std": 2},
        ),
        ({"normalise": "unit", "std": "0.3,0.4,0.5"}, {"std": np.array([0.3, 0.4, 0.5])}),
    ],
)
def test_levels_are_normalised_as_the_options_say(file, options, numbers):
    maps = predict(load(convolved(file), **options))
    np.testing.assert_allclose(maps, expected(**numbers)[0], rtol=1e-4, atol=1e-3)


def test_blue_comes_first_with_the_statistics_of_its_own_colour(file):
    maps = predict(load(convolved(file), colour="bgr", normalise="unit", mean="0.1,0.2,0.3"))
    rgb = (IMAGES.astype(np.float64) / 255 - [0.1, 0.2, 0.3])[..., ::-1]
    np.testing.assert_allclose(maps, rgb @ WEIGHTS[0] + BIAS[0], atol=1e-5)


def test_one_channel_is_luma(file):
    save(file, [node("Identity", ["x"], ["y"])], shape=("n", 1, "h", "w"))
    maps = predict(load(file, normalise="levels", activation="sigmoid"))
    gray = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in IMAGES])
    assert np.abs(maps - gray).max() <= 1  # Pillow's rounding of the same sum
    assert (maps == gray).mean() > 0.99


@pytest.mark.parametrize(("dtype", "off"), [(FLOAT, 1e-5), (HALF, 0.02)])
def test_inputs_of_single_and_half_precision(file, dtype, off):
    convolved(file, dtype=dtype, out=dtype)
    np.testing.assert_allclose(predict(load(file, normalise="unit")), expected()[0], atol=off)


@pytest.mark.parametrize(("dtype", "normalise"), [(DOUBLE, "unit"), (BYTES, "file")])
def test_an_input_of_bytes_or_of_double_precision(file, dtype, normalise):
    cast = [node("Cast", ["x"], ["f"], to=FLOAT), node("ReduceMean", ["f"], ["y"], axes=[1], keepdims=1)]
    maps = predict(load(save(file, cast, dtype=dtype), normalise=normalise, activation="sigmoid"))
    levels = IMAGES.mean(-1) / (255 if dtype == DOUBLE else 1)
    np.testing.assert_allclose(maps, levels, rtol=1e-5)


@pytest.mark.parametrize("last", [False, True])
def test_channels_last(file, last):
    """The input has its channels last; the output has them last too, or first as converters of TensorFlow may do."""
    turn = [node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]), node("Conv", ["t", "w", "b"], ["z" if last else "y"])]
    back = [node("Transpose", ["z"], ["y"], perm=[0, 2, 3, 1])] if last else []
    tensors = {"w": WEIGHTS[:2, :, None, None], "b": BIAS[:2]}
    save(file, [*turn, *back], shape=("n", "h", "w", 3), tensors=tensors)
    logits = expected(2)
    np.testing.assert_allclose(predict(load(file, normalise="unit")), logits[1] - logits[0], atol=1e-4)


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


@pytest.mark.parametrize("at_once", [1, 2, 3, 5])
def test_a_fixed_number_of_photos_at_once(file, at_once):
    convolved(file, shape=(at_once, 3, "h", "w"))
    np.testing.assert_allclose(predict(load(file, normalise="unit")), expected()[0], atol=1e-5)


@pytest.mark.parametrize(
    ("after", "count", "options", "space", "truth"),
    [
        ((), 1, {}, "logits", lambda z: z[0]),
        ((), 2, {}, "logits", lambda z: np.log(softmax(z)[1] / softmax(z)[0])),
        ((), 3, {"channel": 0, "activation": "sigmoid"}, "logits", lambda z: z[0]),
        (
            (),
            3,
            {"channel": 1, "activation": "softmax"},
            "logits",
            lambda z: np.log(softmax(z)[1] / (1 - softmax(z)[1])),
        ),
        ((node("Sigmoid", ["z"], ["y"]),), 1, {}, "probabilities", lambda z: sigmoid(z[0])),
        ((node("Sigmoid", ["z"], ["y"]),), 3, {"channel": 2}, "probabilities", lambda z: sigmoid(z[2])),
        ((node("Softmax", ["z"], ["y"], axis=1),), 2, {}, "probabilities", lambda z: softmax(z)[1]),
        ((node("Softmax", ["z"], ["y"], axis=1),), 3, {"channel": 0}, "probabilities", lambda z: softmax(z)[0]),
        (
            (node("Sigmoid", ["z"], ["p"]), node("Cast", ["p"], ["q"], to=FLOAT), node("Identity", ["q"], ["y"])),
            1,
            {},
            "probabilities",
            lambda z: sigmoid(z[0]),
        ),
        ((node("Clip", ["z"], ["y"]),), 1, {"activation": "sigmoid"}, "logits", lambda z: z[0]),
    ],
)
def test_what_an_output_needs_is_found_from_its_last_operator(file, after, count, options, space, truth):
    model = load(convolved(file, count, after), normalise="unit", **options)
    assert model.output == space
    np.testing.assert_allclose(predict(model), truth(expected(count)), rtol=1e-4, atol=1e-5)


def test_softmax_of_logits_is_the_hosts_sigmoid_of_one_of_them(file):
    model = load(convolved(file, 3), normalise="unit", channel=2, activation="softmax")
    np.testing.assert_allclose(sigmoid(predict(model).astype(float)), softmax(expected(3))[2], atol=1e-6)


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


@pytest.mark.parametrize(
    ("metadata", "truth"),
    [
        ({"Image.NominalPixelRange": "Normalized_0_1"}, {}),
        ({"image.nominalpixelrange": "NORMALIZED_1_1", "Image.BitmapPixelFormat": "Rgb8"}, {"mean": 0.5, "std": 0.5}),
        ({"Image.NominalPixelRange": "NominalRange_0_255"}, {"scale": 1}),
        ({"carvana_ens": json.dumps({"normalise": "unit", "std": "0.25"})}, {"std": 0.25}),
        ({"Image.NominalPixelRange": "Normalized_1_1", "carvana_ens": '{"normalise": "unit"}'}, {}),
    ],
)
def test_metadata_says_how_levels_are_normalised(file, metadata, truth):
    np.testing.assert_allclose(
        predict(load(convolved(file, metadata=metadata))), expected(**truth)[0], rtol=1e-5, atol=1e-5
    )


def test_metadata_says_that_blue_comes_first_and_options_go_before_it(file):
    convolved(file, metadata={"Image.NominalPixelRange": "Normalized_0_1", "Image.BitmapPixelFormat": "Bgr8"})
    np.testing.assert_allclose(predict(load(file)), expected(images=IMAGES[..., ::-1])[0], atol=1e-5)
    np.testing.assert_allclose(predict(load(file, colour="rgb")), expected()[0], atol=1e-5)


@pytest.mark.parametrize("text", ["[]", "{", '{"normalise": "none"}', '{"kolour": "rgb"}'])
def test_metadata_of_ours_that_is_wrong_is_refused(file, text):
    with pytest.raises((TrainingError, UsageError), match=r"JSON object|option normalise takes|option 'kolour'"):
        load(convolved(file, metadata={"carvana_ens": text}))


def test_a_fixed_size_becomes_the_members(file):
    convolved(file, shape=(1, 3, 24, 40))
    assert load(file, normalise="unit").size == Size(24, 40)
    model = load(file, size=Size(24, 40), normalise="unit")
    np.testing.assert_allclose(predict(model), expected()[0], atol=1e-5)
    with pytest.raises(UsageError, match=r"its input is 24x40 \(height x width\), and the member's size is 24x48"):
        load(file, size=Size(24, 48), normalise="unit")


def test_one_fixed_side_needs_a_size_with_it(file):
    convolved(file, shape=(1, 3, 24, "w"))
    with pytest.raises(UsageError, match=r"its input is 24xany .*, and the member's size is None: set --size"):
        load(file, normalise="unit")
    assert predict(load(file, size=Size(24, 40), normalise="unit")).shape == (3, 24, 40)


def test_sides_are_padded_to_a_multiple_and_cut_back(file):
    """The network's mean over all pixels tells what it was given."""
    after = [node("ReduceMean", ["z"], ["m"], axes=[2, 3], keepdims=1), node("Add", ["z", "m"], ["y"])]
    images, _ = draw_photos(2, Size(21, 37))
    maps = predict(load(convolved(file, after=after), normalise="unit", multiple=16), images)
    logits = expected(images=np.pad(images, ((0, 0), (0, 11), (0, 11), (0, 0)), "edge"))[0]
    np.testing.assert_allclose(maps, (logits + logits.mean((1, 2), keepdims=True))[:, :21, :37], atol=1e-4)


def test_a_coarser_output_is_brought_to_the_photos_grid(file):
    pool = [node("AveragePool", ["z"], ["y"], kernel_shape=[4, 4], strides=[4, 4])]
    maps = predict(load(convolved(file, after=pool), normalise="unit", activation="sigmoid"))
    coarse = expected()[0].reshape(3, 6, 4, 10, 4).mean((2, 4)).astype(np.float32)
    for found, values in zip(maps, coarse, strict=True):
        resized = np.asarray(Image.fromarray(values).resize((40, 24), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(found, resized, atol=1e-5)


def test_an_output_without_a_channel_axis(file):
    after = [node("Squeeze", ["z", "axis"], ["y"])]
    convolved(file, after=after, tensors={"axis": np.array([1])})
    np.testing.assert_allclose(predict(load(file, normalise="unit")), expected()[0], atol=1e-5)


def test_of_several_outputs_one_is_named(file):
    after = [node("Sigmoid", ["z"], ["p"]), node("ReduceMax", ["z"], ["top"], axes=[1, 2, 3], keepdims=0)]
    outputs = [("z", ["n", 1, "h", "w"]), ("p", ["n", 1, "h", "w"]), ("top", ["n"])]
    convolved(file, after=after, outputs=outputs)
    with pytest.raises(UsageError, match=r"several outputs.*z \['n', 1, 'h', 'w'\], p .*set output"):
        load(file, normalise="unit")
    with pytest.raises(UsageError, match="option output is 'q', and its outputs are z, p, top"):
        load(file, normalise="unit", output="q")
    for name, truth in (("z", expected()[0]), ("p", sigmoid(expected()[0]))):
        np.testing.assert_allclose(predict(load(file, normalise="unit", output=name)), truth, atol=1e-5)
    convolved(file, after=after, outputs=outputs[1:])  # one map alone needs no name
    np.testing.assert_allclose(predict(load(file, normalise="unit")), sigmoid(expected()[0]), atol=1e-5)


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


def run(*words):
    command = [sys.executable, "-c", "from carvana_ens.cli import main; main()", *map(str, words)]
    subprocess.run(command, check=True, capture_output=True)


def test_from_add_model_to_the_store(file, tmp_path):
    """A file of fixed size predicts photos of another, and its sha256 is in the store."""
    images, _ = draw_photos(2, Size(48, 80))
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "photos" / f"c{number}_01.png")
    convolved(file, shape=(1, 3, 24, 40))
    project = tmp_path / "cars"
    run("init", project, "--test", tmp_path / "photos")
    run("--project", project, "add-model", "onnx", "--checkpoint", file, "--set", "normalise=unit", "--tta", "hflip")
    run("--project", project, "predict", "--device", "cpu")
    store = open_store(project / "stores" / "onnx" / "test.zarr")
    checksum = hashlib.sha256(file.read_bytes()).hexdigest()
    assert checksum in json.dumps(dict(store.provenance.checkpoints))
    for number, image in enumerate(images):
        small = np.asarray(Image.fromarray(image).resize((40, 24), Image.Resampling.BILINEAR))
        logits = expected(images=small[None])[0, 0].astype(np.float32)
        whole = np.asarray(Image.fromarray(logits).resize((80, 48), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(store.read(f"c{number}_01"), 255 * sigmoid(whole), atol=0.51)
