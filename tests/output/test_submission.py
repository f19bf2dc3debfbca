"""The submission's bytes, who can read them, and that a failure leaves the old file."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from carvana_ens.core.rle import mask_bits
from carvana_ens.core.rle_dialects import DIALECTS
from carvana_ens.data.rle_csv import HEADERS, rle_rows
from carvana_ens.errors import CarvanaEnsError, DataError, RLEError, UsageError
from carvana_ens.output.submission import (
    check_names,
    check_row,
    columns_of,
    compare_submission,
    row_digest,
    write_submission,
)
from carvana_ens.types import Size

ROWS = [("a_01", b"1 3 10 5"), ("a_02", b""), ("b_16", b"2455040 1")]
TEXT = b"img,rle_mask\na_01.jpg,1 3 10 5\na_02.jpg,\nb_16.jpg,2455040 1\n"


def test_the_text_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    assert write_submission(path, iter(ROWS)) == 3
    assert path.read_bytes() == TEXT


def test_a_gz_is_one_stream_without_time_or_name(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv.gz"
    assert write_submission(path, ROWS) == 3
    packed = path.read_bytes()
    assert packed[:3] == b"\x1f\x8b\x08"
    assert packed[3] == 0  # no flag: neither FNAME nor any other
    assert packed[4:8] == bytes(4)  # no time
    one = zlib.decompressobj(wbits=31)
    assert one.decompress(packed) == TEXT
    assert one.eof
    assert one.unused_data == b""


def many_rows(count: int = 3000) -> list[tuple[str, bytes]]:
    """Rows of all lengths, as many as fill a compressor's window many times."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        numbers = rng.integers(1, 2455040, 2 * rng.integers(0, 60))
        rows.append((f"{number:05}_01", b" ".join(b"%d" % value for value in numbers)))
    return rows


def text_of(rows: list[tuple[str, bytes]]) -> bytes:
    return b"img,rle_mask\n" + b"".join(b"%b.jpg,%b\n" % (image_id.encode(), rle) for image_id, rle in rows)


def test_others_read_the_gz(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv.gz"
    rows = many_rows()
    assert write_submission(path, rows) == len(rows)
    with gzip.open(path, "rb") as file:
        assert file.read() == text_of(rows)
    table = pd.read_csv(path, keep_default_na=False, dtype=str)
    assert list(table.columns) == ["img", "rle_mask"]
    assert list(table["img"]) == [f"{image_id}.jpg" for image_id, _ in rows]
    assert list(table["rle_mask"]) == [rle.decode() for _, rle in rows]
    assert list(rle_rows(path)) == [(image_id, rle.decode()) for image_id, rle in rows]
    assert path.stat().st_size < 1.1 * len(zlib.compress(text_of(rows), 6))


@pytest.mark.parametrize("program", ["zcat", "gzip -t", "gzip -cd"])
def test_programs_read_the_gz(tmp_path: Path, program: str) -> None:
    words = program.split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"no {words[0]} on this machine")
    path = tmp_path / "submission.csv.gz"
    write_submission(path, many_rows())
    done = subprocess.run([*words, str(path)], check=True, capture_output=True)
    assert done.stderr == b""
    assert done.stdout == (b"" if "-t" in words else text_of(many_rows()))


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv.gz"
    write_submission(path, ROWS)
    before = path.read_bytes()
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from carvana_ens.output.submission import write_submission\n"
        "def rows():\n"
        "    for number in range(5000):\n"
        "        yield str(number), b'1 1'\n"
        "    os.kill(os.getpid(), 9)\n"
        "write_submission(Path(sys.argv[1]), rows())\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert killed.returncode == -9
    assert path.read_bytes() == before


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_the_text_is_not_held(tmp_path: Path, suffix: str) -> None:
    rle = b"1234567 8 " * 900 + b"2455040 1"
    tracemalloc.start()
    try:
        write_submission(tmp_path / f"s{suffix}", ((f"{number:05}", rle) for number in range(3000)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000  # of 27 MB of text; the ids are kept, to see one that comes twice


def test_equal_rows_give_equal_bytes_under_any_name(tmp_path: Path) -> None:
    rows = [(f"{number:05}", b"1 2 " * (number % 50) + b"900 7") for number in range(500)]
    write_submission(tmp_path / "one.csv.gz", rows)
    write_submission(tmp_path / "another name.csv.gz", rows)
    assert (tmp_path / "one.csv.gz").read_bytes() == (tmp_path / "another name.csv.gz").read_bytes()


def test_names_with_commas_and_quotes_are_quoted(tmp_path: Path) -> None:
    names = ["a,b", 'say "car"', "Škoda 1", '"', "007", "NA"]
    path = tmp_path / "submission.csv"
    write_submission(path, [(name, b"1 1") for name in names])
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert list(table["img"]) == [f"{name}.jpg" for name in names]
    assert b"\n007.jpg,1 1\n" in path.read_bytes()


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_an_error_in_the_rows_leaves_the_old_file_and_no_other(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"submission{suffix}"
    path.write_bytes(b"old")

    def rows() -> Iterator[tuple[str, bytes]]:
        yield "a_01", b"1 1"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_submission(path, rows())
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_the_old_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "submission.csv"
    write_submission(path, [("a", b"1 1"), ("b", b"1 1")])
    write_submission(path, [("c", b"2 2")])
    assert path.read_bytes() == b"img,rle_mask\nc.jpg,2 2\n"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["submission", "submission.txt", "submission.gz", "submission.csv.zip", "s.CSV"])
def test_another_suffix_is_refused_before_any_row_is_made(tmp_path: Path, name: str) -> None:
    def rows() -> Iterator[tuple[str, bytes]]:
        pytest.fail("a row was made")
        yield "a", b""

    with pytest.raises(UsageError, match=r"neither \.csv nor \.csv\.gz"):
        write_submission(tmp_path / name, rows())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no row to write"),
        ([("a", b"1 1"), ("b", b""), ("a", b"1 1")], "'a' comes twice"),
        ([("a\nb", b"1 1")], "control character"),
        ([("a\x00", b"1 1")], "control character"),
        ([("", b"1 1")], "is empty"),
        ([("a", b"1 1\n")], "'a' has other characters"),
        ([("a", b"1,1")], "'a' has other characters"),
        ([("a", b"-1 1")], "'a' has other characters"),
    ],
)
def test_rows_that_cannot_be_meant(tmp_path: Path, rows: list[tuple[str, bytes]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        write_submission(tmp_path / "submission.csv", rows)
    assert not list(tmp_path.iterdir())


def test_a_path_that_cannot_be_replaced_is_named(tmp_path: Path) -> None:
    (tmp_path / "submission.csv").mkdir()
    with pytest.raises(CarvanaEnsError, match=r"submission\.csv cannot be written"):
        write_submission(tmp_path / "submission.csv", ROWS)
    assert [entry.name for entry in tmp_path.iterdir()] == ["submission.csv"]


MASKS = {
    "a": np.array([[1, 1, 0], [0, 1, 1]], dtype=np.bool_),
    "b,2": np.zeros((2, 3), dtype=np.bool_),
    "c": np.ones((4, 1), dtype=np.bool_),
}
ENCODED = [("a", b"1 2 5 2"), ("b,2", b""), ("c", b"1 4")]


DIGESTS = [(image_id, row_digest(rle)) for image_id, rle in ENCODED]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_rows_are_decoded_and_compared_with_their_masks(dialect: str) -> None:
    for mask in (*MASKS.values(), np.arange(99).reshape(9, 11) % 3 == 0):
        rle = DIALECTS[dialect].encode(mask).encode()
        check_row("a", rle, mask_bits(mask), Size(*mask.shape), dialect)
        other = ~mask
        with pytest.raises(DataError, match=rf"'a' differs .* in {mask.size} pixels, first at row 0, column 0:"):
            check_row("a", rle, mask_bits(other), Size(*mask.shape), dialect)


def test_the_first_pixel_that_differs_is_named() -> None:
    mask = np.array([[0, 0, 0], [0, 1, 1]], dtype=np.bool_)
    with pytest.raises(DataError, match=r"'b,2' differs .* in 2 pixels, first at row 1, column 1:"):
        check_row("b,2", b"", mask_bits(mask), Size(2, 3))
    with pytest.raises(RLEError, match=r"^the row of image 'b,2', for a mask of 2x3: "):
        check_row("b,2", b"7 1", mask_bits(mask), Size(2, 3))


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_a_written_file_is_read_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"submission{suffix}"
    write_submission(path, ENCODED)
    assert compare_submission(path, DIGESTS) == 3


def test_rows_that_are_missing_other_or_too_many(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    write_submission(path, ENCODED)
    with pytest.raises(DataError, match=r"ends before image 'd' \(row 4\)"):
        compare_submission(path, [*DIGESTS, ("d", DIGESTS[2][1])])
    with pytest.raises(DataError, match=r"row 2 of .* is image 'b,2' where 'c' is due"):
        compare_submission(path, [DIGESTS[0], DIGESTS[2]])
    with pytest.raises(DataError, match=r"a row too many after 2, image 'c'"):
        compare_submission(path, DIGESTS[:2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"img,rle\na.jpg,1 2 5 2\n", "none of the headers"),
        (b"img,rle_mask\na.jpg;1 2 5 2\n", "row 1 "),
        (b"img,rle_mask\na.jpg,1 2 5 1", "'a' .* differs"),
        (b"img,rle_mask\na.jpg,1 2 5\n", "'a' .* differs"),
    ],
)
def test_a_file_that_cannot_be_what_was_written_is_refused(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "submission.csv"
    path.write_bytes(text)
    with pytest.raises(DataError, match=message):
        compare_submission(path, DIGESTS[:1])


def test_a_damaged_or_missing_gz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv.gz"
    write_submission(path, ENCODED)
    whole = path.read_bytes()
    for damaged in (whole[:-6], whole[:20], b"plain text", whole[:30] + bytes([whole[30] ^ 255]) + whole[31:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"submission\.csv\.gz"):
            compare_submission(path, DIGESTS)
    path.unlink()
    with pytest.raises(DataError, match="is not there"):
        compare_submission(path, DIGESTS)


@pytest.mark.parametrize(
    ("dialect", "lines"),
    [
        ("carvana", ["img,rle_mask", "a.jpg,1 1"]),
        ("column-major", ["id,rle_mask", "a,1 1"]),
        ("relative", ["ImageId,EncodedPixels", "a,1 1"]),
        ("coco-uncompressed", ["img,rle_mask", "a.jpg,1 1"]),
    ],
)
def test_a_dialect_has_the_columns_of_its_competition(tmp_path: Path, dialect: str, lines: list[str]) -> None:
    path = tmp_path / "submission.csv"
    write_submission(path, [("a", b"1 1")], dialect)
    assert path.read_text().splitlines() == lines
    assert list(rle_rows(path)) == [("a", "1 1")]


@pytest.mark.parametrize("header", HEADERS)
def test_a_sample_says_header_and_names(tmp_path: Path, header: str) -> None:
    sample, path = tmp_path / "sample.csv", tmp_path / "submission.csv"
    sample.write_text(f"{header}\nb.png,\na,1 1\n")
    write_submission(path, [("a", b"1 1"), ("b", b"")], columns=columns_of("column-major", sample=sample))
    assert path.read_text() == f"{header}\na,1 1\nb.png,\n"


def test_headers_that_cannot_be_meant(tmp_path: Path) -> None:
    sample = tmp_path / "sample.csv"
    sample.write_text("id,rle\na,1 1\n")
    assert columns_of("relative", "id,rle", sample).header == "id,rle"
    with pytest.raises(UsageError, match="has the header id,rle: leave out --header img,rle_mask"):
        columns_of("relative", "img,rle_mask", sample)
    with pytest.raises(UsageError, match="header 'img,rle' is unknown: there are img,rle_mask; "):
        columns_of("carvana", "img,rle")
    sample.write_text("id,rle\n")
    with pytest.raises(DataError, match="no rows"):
        columns_of("carvana", None, sample)


def test_the_names_of_a_sample_in_its_order(tmp_path: Path) -> None:
    text = b"img,rle_mask\nb_02.jpg,1 1\nb_01.jpg,1 1\nNA.jpg,\n007.jpg,1 1\n"
    (tmp_path / "sample.csv").write_bytes(text)
    (tmp_path / "sample.csv.gz").write_bytes(gzip.compress(text))
    with zipfile.ZipFile(tmp_path / "sample.csv.zip", "w") as archive:
        archive.writestr("sample_submission.csv", text)
    for name in ("sample.csv", "sample.csv.gz", "sample.csv.zip"):
        assert tuple(columns_of("carvana", sample=tmp_path / name).names) == ("b_02", "b_01", "NA", "007")


def test_a_sample_with_an_image_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sample.csv").write_bytes(b"img,rle_mask\na.jpg,1 1\nb.jpg,1 1\na.jpg,1 1\n")
    with pytest.raises(DataError, match="'a' twice"):
        columns_of("carvana", sample=tmp_path / "sample.csv")


def test_equal_names_pass_in_any_order() -> None:
    check_names(["a", "b", "c"], ("c", "a", "b"))
    check_names(iter(["a"]), iter(["a"]))


@pytest.mark.parametrize(
    ("ids", "sample", "message"),
    [
        (["a", "b"], ["a", "b", "c"], "the 2 images are not the 3 of the sample submission: 1 missing (c); "),
        (["x", "a"], ["a"], "the 2 images are not the 1 of the sample submission: 1 not in the sample (x); "),
        (
            ["v", "w", "x", "y"],
            ["a", "b", "c", "d", "e"],
            ": 5 missing (a, b, c, ...), 4 not in the sample (v, w, x, ...); ",
        ),
        ([], ["a", "b", "c"], ": 3 missing (a, b, c); "),
    ],
)
def test_other_names_are_told_apart(ids: list[str], sample: list[str], message: str) -> None:
    with pytest.raises(DataError) as caught:
        check_names(ids, sample)
    assert message in str(caught.value)
