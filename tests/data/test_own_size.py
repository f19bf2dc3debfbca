from __future__ import annotations

import json

import numpy as np
import PIL.Image
import pytest

from carvana_ens.data.masks import open_masks
from carvana_ens.errors import DataError


def test_a_source_says_how_large_a_mask_is_when_it_knows(tmp_path):
    (tmp_path / "masks").mkdir()
    PIL.Image.fromarray(np.eye(3, 5, dtype=np.uint8) * 255).save(tmp_path / "masks/a_01.png")
    (tmp_path / "masks.csv").write_text("img,rle_mask\na_01.jpg,1 1\n")
    coco = {
        "images": [{"id": 1, "file_name": "a_01.jpg", "width": 5, "height": 3}],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    for name, expected in (("masks", (3, 5)), ("masks.csv", None), ("coco.json", (3, 5))):
        source = open_masks(tmp_path / name)
        assert source.own_size("a_01") == expected
        with pytest.raises(DataError, match="a_02"):
            source.own_size("a_02")
