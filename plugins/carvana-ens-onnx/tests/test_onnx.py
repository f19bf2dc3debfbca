"""What is read of a file, and what its maps are."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from carvana_ens_onnx import Onnx
from onnx_nets import (
    BIAS,
    BYTES,
    DOUBLE,
    FLOAT,
    HALF,
    IMAGES,
    WEIGHTS,
    convolved,
    expected,
    load,
    node,
    predict,
    save,
    sigmoid,
    softmax,
)
from PIL import Image

from carvana_ens import Size, UsageError, open_store
from carvana_ens.testing import declared_models, draw_photos


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
