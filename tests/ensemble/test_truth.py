"""The cache of true masks: equal to the masks, made anew exactly when they change."""

from __future__ import annotations

import numpy as np
import pytest

from carvana_ens.core.rle import mask_bits
from carvana_ens.data.masks import open_masks
from carvana_ens.ensemble.truth import TruthCache, cached_truth, source_hash
from carvana_ens.errors import CarvanaEnsError, DataError
from carvana_ens.types import Size

SIZES = {"a_1": Size(48, 71), "a_2": Size(1, 64), "b_1": Size(7, 9), "b_2": Size(1, 1)}


class Counted:
    """A folder of masks that remembers what was decoded."""

    def __init__(self, folder):
        self.masks, self.read_ids = open_masks(folder), []

    def read(self, image_id, size):
        self.read_ids.append(image_id)
        return self.masks.read(image_id, size)

    def taken(self):
        """Ids read since the last look, sorted."""
        found, self.read_ids = sorted(self.read_ids), []
        return found


@pytest.fixture
def folder(oracle, tmp_path):
    """Mask pictures of several sizes."""
    for image_id, size in SIZES.items():
        oracle.save_mask(tmp_path / "masks", image_id, oracle.ellipse(image_id, size))
    return tmp_path / "masks"


def made(folder, path, sizes=SIZES, threads=2):
    """(cache, ids that were decoded for it)."""
    masks = Counted(folder)
    return cached_truth(path, masks, source_hash(folder), sizes, threads=threads), masks.taken()


def test_masks_are_what_was_drawn_and_decoded_once(folder, tmp_path, oracle):
    path = tmp_path / "cache" / "truth"
    for expected in (sorted(SIZES), []):
        cache, read = made(folder, path)
        assert read == expected
        assert cache.sizes == SIZES
        for image_id, size in SIZES.items():
            bits = cache(image_id, size)
            assert bits.dtype == np.uint64
            assert bits.flags.writeable  # a second kind of array would be compiled for once more
            assert np.array_equal(bits, mask_bits(oracle.ellipse(image_id, size)))
    assert [file.name for file in path.parent.iterdir()] == ["truth"]
    other, _ = made(folder, tmp_path / "other", threads=1)
    assert other.path.read_bytes() == path.read_bytes()


def test_only_what_is_new_is_decoded(folder, tmp_path, oracle):
    some = {image_id: SIZES[image_id] for image_id in ("b_1", "a_1")}
    assert made(folder, tmp_path / "truth", some)[1] == ["a_1", "b_1"]
    cache, read = made(folder, tmp_path / "truth")
    assert read == ["a_2", "b_2"]
    assert made(folder, tmp_path / "truth", some)[1] == []
    for image_id, size in SIZES.items():
        assert np.array_equal(cache(image_id, size), mask_bits(oracle.ellipse(image_id, size)))


@pytest.mark.parametrize("change", ["content", "new", "gone"])
def test_a_changed_source_is_decoded_anew(folder, tmp_path, oracle, change):
    before = source_hash(folder)
    made(folder, tmp_path / "truth")
    sizes = dict(SIZES)
    if change == "content":
        oracle.save_mask(folder, "a_1", ~oracle.ellipse("a_1", SIZES["a_1"]))
    elif change == "new":
        oracle.save_mask(folder, "c_1", oracle.ellipse("c_1", (3, 4)))
    else:
        (folder / "b_1_mask.gif").unlink()
        del sizes["b_1"]
    assert source_hash(folder) != before
    cache, read = made(folder, tmp_path / "truth", sizes)
    assert read == sorted(sizes)
    assert cache.sizes == sizes
    if change == "content":
        assert np.array_equal(cache("a_1", SIZES["a_1"]), mask_bits(~oracle.ellipse("a_1", SIZES["a_1"])))


def test_hashes_of_files_and_categories(tmp_path):
    table, other = tmp_path / "a.csv", tmp_path / "b.csv"
    table.write_text("img,rle_mask\na.jpg,1 2\n")
    other.write_text("img,rle_mask\na.jpg,1 3\n")
    hashes = {source_hash(table), source_hash(other), source_hash(table, ["car"]), source_hash(table, ["car", "van"])}
    assert len(hashes) == 4
    assert source_hash(table, ["van", "car"]) in hashes
    with pytest.raises(DataError, match=r"nowhere\.csv cannot be read: No such file"):
        source_hash(tmp_path / "nowhere.csv")


@pytest.mark.parametrize("damage", ["empty", "cut", "end", "table", "schema"])
def test_a_file_that_cannot_be_read_is_made_anew(folder, tmp_path, damage):
    path = tmp_path / "truth"
    made(folder, path)
    good = path.read_bytes()
    bad = {
        "empty": b"",
        "cut": good[:-1],
        "end": good[:-1] + b"?",
        "table": good.replace(b'"images"', b'"imagez"'),
        "schema": good.replace(b'"schema": 1', b'"schema": 2'),
    }[damage]
    path.write_bytes(bad)
    with pytest.raises(DataError, match=r"truth cannot be read .*: remove it"):
        TruthCache(path)
    assert made(folder, path)[1] == sorted(SIZES)
    assert path.read_bytes() == good


def test_a_damaged_mask_is_noticed(folder, tmp_path):
    path = tmp_path / "truth"
    made(folder, path)
    octets = bytearray(path.read_bytes())
    octets[3] ^= 1
    path.write_bytes(octets)
    with pytest.raises(DataError, match="damaged at image 'a_1': remove it"):
        TruthCache(path)("a_1", SIZES["a_1"])


def test_what_is_not_there_or_cannot_be_made(folder, tmp_path, oracle):
    cache, _ = made(folder, tmp_path / "truth")
    for image_id, size in (("z_1", Size(1, 1)), ("a_1", Size(71, 48))):
        with pytest.raises(DataError, match=rf"no image '{image_id}' of {size}"):
            cache(image_id, size)
    with pytest.raises(DataError, match="a_1"):
        made(folder, tmp_path / "truth", {"a_1": Size(48, 70)})
    assert TruthCache(tmp_path / "truth").sizes == SIZES  # the old one is still there
    (tmp_path / "file").write_text("")
    with pytest.raises(CarvanaEnsError, match="cannot be written"):
        made(folder, tmp_path / "file" / "truth")
