from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from carvana_ens.data.dataset import LabelledImages, matched_ids
from carvana_ens.data.images import ImageFolder
from carvana_ens.data.masks import open_masks
from carvana_ens.errors import DataError
from carvana_ens.model import Samples
from carvana_ens.types import Size

Save = Callable[..., Path]
SIZES = {"a_01": Size(4, 6), "b_01": Size(9, 3), "c": Size(1, 1)}


@pytest.fixture
def arrays() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return {i: (rng.integers(0, 256, (*size, 3), dtype=np.uint8), rng.random(size) < 0.5) for i, size in SIZES.items()}


@pytest.fixture
def folders(save: Save, tmp_path: Path, arrays: dict[str, tuple[np.ndarray, np.ndarray]]) -> tuple[Path, Path]:
    for image_id, (image, mask) in arrays.items():
        save(f"images/{image_id}.png", image)
        save(f"masks/{image_id}_mask.gif", np.uint8(255) * mask)
    return tmp_path / "images", tmp_path / "masks"


def test_photos_of_any_size_come_with_their_masks(
    folders: tuple[Path, Path], arrays: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    samples: Samples = LabelledImages(ImageFolder(folders[0]), open_masks(folders[1]), ["c", "a_01"])
    assert tuple(samples.ids) == ("c", "a_01")
    for image_id in samples.ids:
        np.testing.assert_array_equal(samples.image(image_id), arrays[image_id][0])
        np.testing.assert_array_equal(samples.mask(image_id), arrays[image_id][1])


def test_all_photos_and_masks_match(folders: tuple[Path, Path]) -> None:
    assert matched_ids(ImageFolder(folders[0]), open_masks(folders[1])) == ("a_01", "b_01", "c")


def test_a_photo_without_a_mask_is_named(folders: tuple[Path, Path], save: Save) -> None:
    for number in range(5):
        save(f"images/new_{number}.png", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(DataError, match=r"5 of 8 images have no mask in .*'new_0', 'new_1', 'new_2', [.]{3};"):
        matched_ids(ImageFolder(folders[0]), open_masks(folders[1]))


def test_a_mask_without_a_photo_is_named(folders: tuple[Path, Path]) -> None:
    (folders[0] / "b_01.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 images have no photo in .*: 'b_01'; "):
        matched_ids(ImageFolder(folders[0]), open_masks(folders[1]))


def test_a_mask_of_another_size_is_refused_when_it_is_read(folders: tuple[Path, Path], save: Save) -> None:
    save("masks/b_01_mask.gif", np.zeros((3, 9), np.uint8))
    samples = LabelledImages(ImageFolder(folders[0]), open_masks(folders[1]), ["a_01", "b_01"])
    assert samples.mask("a_01").shape == (4, 6)
    with pytest.raises(DataError, match=r"'b_01' .* is 3x9, its photo is 9x3"):
        samples.mask("b_01")


@pytest.mark.parametrize(
    ("ids", "reason"), [(["a_01", "x"], "no photo in .*'x'"), (["c", "a_01", "c"], "'c' is listed twice")]
)
def test_ids_that_cannot_be_meant_are_refused(folders: tuple[Path, Path], ids: list[str], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        LabelledImages(ImageFolder(folders[0]), open_masks(folders[1]), ids)


def test_a_selection_without_its_mask_is_refused(folders: tuple[Path, Path]) -> None:
    (folders[1] / "b_01_mask.gif").unlink()
    assert LabelledImages(ImageFolder(folders[0]), open_masks(folders[1]), ["a_01"]).ids == ("a_01",)
    with pytest.raises(DataError, match=r"no mask in .*'b_01'"):
        LabelledImages(ImageFolder(folders[0]), open_masks(folders[1]), ["a_01", "b_01"])


def test_masks_from_a_table_and_from_coco_join_just_as_well(
    folders: tuple[Path, Path], tmp_path: Path, arrays: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    (tmp_path / "masks.csv").write_text("img,rle_mask\na_01.jpg,1 24\nb_01.jpg,\nc.jpg,1 1\n")
    images = [
        {"id": number, "file_name": f"{i}.png", "height": size.height, "width": size.width}
        for number, (i, size) in enumerate(SIZES.items())
    ]
    shapes = [[0, 0, 6, 0, 6, 4, 0, 4], None, [0, 0, 1, 0, 1, 1, 0, 1]]
    document = {
        "images": images,
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 1, "segmentation": [shape]}
            for number, shape in enumerate(shapes)
            if shape
        ],
    }
    (tmp_path / "masks.json").write_text(json.dumps(document))
    for name in ("masks.csv", "masks.json"):
        photos, masks = ImageFolder(folders[0]), open_masks(tmp_path / name)
        samples = LabelledImages(photos, masks, matched_ids(photos, masks))
        assert {i: samples.mask(i).sum() for i in samples.ids} == {"a_01": 24, "b_01": 0, "c": 1}


@pytest.mark.real
def test_the_real_car_parts_join(real: Path) -> None:
    images = ImageFolder(real / "carparts" / "JPEGImages")
    masks = open_masks(real / "carparts" / "annotations.json", ["wheel"])
    samples = LabelledImages(images, masks, matched_ids(images, masks))
    assert len(samples) == 400
    assert samples.image(samples.ids[0]).shape[:2] == samples.mask(samples.ids[0]).shape
