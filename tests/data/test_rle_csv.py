from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carvana_ens.data.masks import open_masks
from carvana_ens.data.rle_csv import read_rle_csv, rle_rows
from carvana_ens.errors import DataError, RLEError, UsageError
from carvana_ens.types import Size

ROWS = {"007": "1 2", "NA": "", "nan": "3 4 10 1", "a_01": "5 1"}
TEXT = "img,rle_mask\n" + "".join(f"{image_id}.jpg,{rle}\n" for image_id, rle in ROWS.items())


def _write(folder: Path, text: str | bytes, name: str = "masks.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.rstrip("\n"),
        TEXT + "\n\n",
        TEXT.replace("\n", "\r\n"),
        TEXT.replace("\n", "\r"),
        "\ufeff" + TEXT,
        TEXT.replace(".jpg", ""),
        TEXT.replace(".jpg", ".PNG"),
        '"img","rle_mask"\n' + "".join(f'"{image_id}.jpg","{rle}"\n' for image_id, rle in ROWS.items()),
    ],
)
def test_every_spelling_of_the_table_is_read_alike(tmp_path: Path, text: str) -> None:
    assert read_rle_csv(_write(tmp_path, text)) == ROWS
    assert list(read_rle_csv(tmp_path / "masks.csv")) == list(ROWS)


def test_compressed_tables_are_read(tmp_path: Path) -> None:
    assert read_rle_csv(_write(tmp_path, gzip.compress(TEXT.encode()), "a.csv.gz")) == ROWS
    for name in ("a.zip", "a.csv.zip"):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("folder/", "")
            archive.writestr("folder/train_masks.csv", TEXT)
            archive.writestr("__MACOSX/folder/._train_masks.csv", "shadow")
        assert read_rle_csv(tmp_path / name) == ROWS


def test_a_table_that_pandas_wrote_is_read(tmp_path: Path) -> None:
    ids = ["plain", "with,comma", 'with"quote', "007"]
    frame = pd.DataFrame({"img": [f"{i}.jpg" for i in ids], "rle_mask": ["1 2", "", "3 1", "4 4"]})
    for name in ("a.csv", "b.csv.gz", "c.csv.zip"):
        frame.to_csv(tmp_path / name, index=False)
        assert read_rle_csv(tmp_path / name) == dict(zip(ids, frame.rle_mask, strict=True))


_NAMES = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/\\."), min_size=1)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(_NAMES, st.text("0123456789 "), min_size=1), st.booleans())
def test_what_the_csv_writer_of_pandas_quotes_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[str, str], quote_all: bool
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    frame = pd.DataFrame({"img": [f"{i}.png" for i in rows], "rle_mask": list(rows.values())})
    frame.to_csv(path, index=False, quoting=1 if quote_all else 0)
    assert read_rle_csv(path) == rows


def test_a_field_of_any_length_is_read(tmp_path: Path) -> None:
    """Python's csv module stops at 131,072 characters."""
    rle = " ".join(f"{start} 1" for start in range(1, 100_000, 2))
    for text in (f"a.jpg,{rle}\n", f'"a.jpg","{rle}"\n'):
        assert read_rle_csv(_write(tmp_path, "img,rle_mask\n" + text)) == {"a": rle}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("b.jpg", "row 3 .* two fields"),  # a file that was cut off; pandas reads an empty mask
        ("b.jpg,1 2,3 4", "row 3 .* two fields"),  # pandas drops the third field
        ("b.jpg,1 2,", "row 3 .* two fields"),
        ('"b.jpg,1 2', "row 3 .* two fields"),
        ('"b"x.jpg,1 2', "row 3 .* two fields"),
        ("0,b.jpg,1 2", "row 3 .* two fields"),  # a frame written with its index
        (",1 2", "row 3 .* empty"),
        (".jpg,1 2", "row 3 .* dot"),
        ("train/b.jpg,1 2", "row 3 .* '/'"),
        ("b\x00.jpg,1 2", "row 3 .* control character"),
        ("a.jpg,1 2", "'a' twice"),
        ("a.png,7 1", "'a' twice"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, reason: str) -> None:
    path = _write(tmp_path, f"img,rle_mask\na.jpg,1 2\n007,\n{row}\nz,\n")
    with pytest.raises(DataError, match=reason) as caught:
        read_rle_csv(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "header", ["", "img", "rle_mask,img", "img,rle_mask,score", "ImageId,Pixels", ",img,rle_mask", "a_01,1 2"]
)
def test_another_header_is_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(DataError, match=r"none of the headers img,rle_mask; id,rle_mask; ImageId,EncodedPixels;"):
        read_rle_csv(_write(tmp_path, f"{header}\na.jpg,1 2\n"))


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        read_rle_csv(_write(tmp_path, "img,rle_mask\n"))
    with pytest.raises(DataError, match="header"):
        read_rle_csv(_write(tmp_path, ""))


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress((TEXT * 50).replace("img,rle_mask\n", "", 1).encode())
    whole = gzip.compress(TEXT.encode())
    flipped = bytearray(whole)
    flipped[-6] ^= 1
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.csv", TEXT)
        archive.writestr("b.csv", TEXT)
    cases = {
        "cut.csv.gz": whole[:-9],
        "flipped.csv.gz": bytes(flipped),
        "plain.csv.gz": TEXT.encode(),
        "cut.zip": packed[:40],
        "two.zip": buffer.getvalue(),
        "utf16.csv": TEXT.encode("utf-16"),
        "packed.csv": whole,
        "latin.csv": TEXT.replace("a_01", "é").encode("latin-1"),
    }
    for name, content in cases.items():
        with pytest.raises(DataError, match=name):
            read_rle_csv(_write(tmp_path, content, name))
    with pytest.raises(DataError, match="gone"):
        read_rle_csv(tmp_path / "gone.csv")
    with pytest.raises(UsageError, match=r"a\.txt"):
        read_rle_csv(_write(tmp_path, TEXT, "a.txt"))


def test_rows_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    rows = rle_rows(_write(tmp_path, "img,rle_mask\na,1 2\nb,3 4\nbad row\n"))
    assert [next(rows), next(rows)] == [("a", "1 2"), ("b", "3 4")]
    with pytest.raises(DataError, match="row 3"):
        next(rows)


def test_masks_are_decoded_from_the_table(tmp_path: Path) -> None:
    source = open_masks(_write(tmp_path, "img,rle_mask\nb.jpg,1 2 6 1\na.jpg,\n"))
    assert source.ids == ("a", "b")
    assert "2 run-length encodings" in source.describe
    np.testing.assert_array_equal(source.read("b", Size(2, 3)), np.array([[1, 1, 0], [0, 0, 1]], bool))
    assert not source.read("a", Size(2, 3)).any()
    with pytest.raises(DataError, match="'c' is not in"):
        source.read("c", Size(2, 3))


@pytest.mark.parametrize("rle", ["1 2 3", "0 1", "6 2", "3 1 1 1", "1 -2", "1.0 2", "x", "1 0"])
def test_an_encoding_that_breaks_the_rules_names_image_and_file(tmp_path: Path, rle: str) -> None:
    source = open_masks(_write(tmp_path, f"img,rle_mask\nok,1 1\nbroken_01.jpg,{rle}\n"))
    assert source.read("ok", Size(2, 3)).sum() == 1
    with pytest.raises(RLEError, match=r"'broken_01' in .*masks\.csv, for a photo of 2x3: "):
        source.read("broken_01", Size(2, 3))
