from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def reference():
    """The module of slow twins beside this file."""
    spec = importlib.util.spec_from_file_location("core_reference", Path(__file__).with_name("reference.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def real_masks():
    """The masks of the real photos, bool (1280, 1918), by file stem."""
    if "CARVANA_ENS_DATA" not in os.environ:
        pytest.skip("the real photos are not here: set CARVANA_ENS_DATA")
    files = sorted((Path(os.environ["CARVANA_ENS_DATA"]) / "carvana" / "train_masks").iterdir())
    masks = {}
    for file in files:
        with Image.open(file) as image:
            masks[file.stem] = np.array(image.convert("L")) > 127
    return masks
