from __future__ import annotations

from pathlib import Path

import pytest

from carvana_ens.data.ids import DEFAULT_GROUP, check_id, groups, id_of
from carvana_ens.errors import DataError, UsageError


@pytest.mark.parametrize("text", ["a_01", "007", "NA", "x y", "a.b", "véhicule", "a,b", "車_01", "a\u00a0b"])
def test_ordinary_ids_pass_unchanged(text: str) -> None:
    assert check_id(text) == text


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", ".hidden", "a/b", "a\\b", "a..b", "a\nb", "a\x00b", "a\x7fb", "a\x85b", "a\u2028b", "a\udcffb"],
)
def test_an_id_that_could_harm_a_path_or_a_table_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="image id"):
        check_id(text)


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("a_01.jpg", "a_01"),
        ("a_01", "a_01"),
        ("A.JPEG", "A"),
        ("v1.2.png", "v1.2"),
        ("v1.2", "v1.2"),  # no picture's extension: part of the id
        ("folder/a_01.tif", "a_01"),
        (Path("some/folder/a_01.gif"), "a_01"),
        ("007.jpg", "007"),
    ],
)
def test_the_id_is_the_stem_of_the_file_name(name: str | Path, image_id: str) -> None:
    assert id_of(name) == image_id


@pytest.mark.parametrize("name", [".jpg", "folder/", "a\\b.jpg", ".a.jpg"])
def test_a_file_name_without_a_usable_stem_is_refused(name: str) -> None:
    with pytest.raises(DataError):
        id_of(name)


def test_by_default_the_group_is_all_up_to_the_last_underscore() -> None:
    ids = ["0cd_01", "0cd_16", "a_b_c", "single", "_01", "a_", "a__1"]
    expected = {i: i.rpartition("_")[0] or i for i in ids}
    assert groups(ids) == groups(ids, DEFAULT_GROUP) == expected


def test_a_pattern_names_the_group() -> None:
    assert groups(["p7-s3", "p7-s4"], r"p(\d+)-.*") == {"p7-s3": "7", "p7-s4": "7"}
    assert groups(["p7-s3"], r"(p)(?P<group>\d+)-s(\d)") == {"p7-s3": "7"}


@pytest.mark.parametrize("image_id", ["q7-s3", "p7-s3-more", "p-s3"])
def test_an_id_that_the_pattern_does_not_match_whole_is_named(image_id: str) -> None:
    with pytest.raises(DataError, match=image_id):
        groups(["p7-s3", image_id], r"p(\d*)-s3")


@pytest.mark.parametrize("pattern", ["(", r"p\d+", r"(p)(\d+)", r"(?P<car>p)(?P<view>\d)"])
def test_a_pattern_that_does_not_say_what_the_group_is_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="group pattern"):
        groups(["p7"], pattern)
