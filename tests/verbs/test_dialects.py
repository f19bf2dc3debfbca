"""blend, import and evaluate in every dialect of run lengths, and submissions decoded again."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools import mask as theirs

from carvana_ens.core import rle_dialects
from carvana_ens.output import submission

DIALECTS = ("carvana", "column-major", "relative", "coco-uncompressed", "coco-compressed")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def two(project):
    """A project with two imported members."""
    project.codes = project.kept("dialects", lambda: project.imported(("one", 2, 1, 4), ("two", 3, 0, 0)))
    return project


def decoded(dialect, text, size):
    """By pycocotools, or pixel by pixel."""
    height, width = size
    if dialect.startswith("coco"):
        counts = text if dialect == "coco-compressed" else list(map(int, text.split()))
        rle = {"size": list(size), "counts": counts}
        return theirs.decode(rle if isinstance(counts, str) else theirs.frPyObjects(rle, *size)).astype(bool)
    numbers = [] if text in ("", "-1") else list(map(int, text.split()))
    flat, place = np.zeros(height * width, bool), 0
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        place = place + start if dialect == "relative" else start - 1
        flat[place : place + length] = True
        place += length
    return flat.reshape(size) if dialect == "carvana" else flat.reshape(width, height).T


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("more", [(), ("--postprocess", "largest"), ("--masks",)])
def test_rows_are_the_blend(two, oracle, dialect, more):
    out = two.root / "out.csv"
    words = [*more, two.root / "made"] if "--masks" in more else more
    done = two.did("blend", "-o", out, "--dialect", dialect, "--check", *words)
    assert "decoded again: 6 of 6 rows are their masks" in done.out
    text = out.read_text()
    header = {"column-major": "id,rle_mask\n", "relative": "ImageId,EncodedPixels\n"}.get(dialect, "img,rle_mask\n")
    assert text.startswith(header)
    out.write_text(text.replace(header, "img,rle_mask\n"))
    rows = oracle.read_rows(out)
    assert len(rows) == 6
    for name, text in rows.items():
        maps = [two.codes[member][name.removesuffix(".jpg")].astype(int) for member in ("one", "two")]
        expected = sum(maps) >= 255
        assert np.array_equal(decoded(dialect, text, oracle.SIZE), expected), (name, more)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_evaluate_reads_what_blend_writes(two, dialect):
    out = two.root / "oof.csv"
    two.did("blend", "--split", "oof", "-o", out, "--dialect", dialect)
    plain = two.root / "plain.csv"
    two.did("blend", "--split", "oof", "-o", plain)
    found = json.loads(two.did("evaluate", out, "--dialect", dialect, "--json").out)
    assert found == json.loads(two.did("evaluate", plain, "--json").out)
    named = ("--masks", two.masks, "--images", two.images, "--json")
    assert found == json.loads(two.did("evaluate", out, "--dialect", dialect, *named).out)


def test_another_dialect_is_noticed(two):
    two.did("blend", "--split", "oof", "-o", two.root / "oof.csv", "--dialect", "coco-compressed")
    told = two.do("evaluate", two.root / "oof.csv").error
    assert "0a1_01" in told
    two.did("blend", "--split", "oof", "-o", two.root / "oof.csv", "--dialect", "relative")
    assert "0a1_01" in two.do("evaluate", two.root / "oof.csv", "--dialect", "coco-uncompressed").error


def test_a_row_that_is_not_its_mask_is_found(two, monkeypatch):
    plain = submission.submission_row

    def spoiled(image_id, rle, *more):
        return plain(image_id, rle.replace(b" ", b" 1", 1) if image_id == "c9d_02" else rle, *more)

    monkeypatch.setattr(submission, "submission_row", spoiled)
    told = two.do("blend", "-o", two.root / "out.csv", "--check").error
    assert "c9d_02" in told


def test_a_row_that_decodes_to_another_mask_is_found(two, monkeypatch):
    from carvana_ens.verbs import blend

    plain = blend.rle_encode_bits_bytes
    monkeypatch.setattr(
        blend, "rle_encode_bits_bytes", lambda bits, pixels: plain(bits, pixels).replace(b" ", b" 1", 1)
    )
    out = two.root / "out.csv"
    assert "differs from its mask" in two.do("blend", "-o", out, "--check").error
    assert not out.exists()


def test_a_sample_submission_says_header_and_names(two, oracle):
    two.did("blend", "-o", two.root / "plain.csv")
    rows = oracle.read_rows(two.root / "plain.csv")
    sample = two.root / "sample.csv"
    sample.write_text("".join(["ImageId,EncodedPixels\n", *(f"{name.replace('.jpg', '.png')},1 1\n" for name in rows)]))
    out = two.root / "out.csv"
    two.did("blend", "-o", out, "--sample-submission", sample, "--check")
    expected = "".join(f"{name.replace('.jpg', '.png')},{rle}\n" for name, rle in rows.items())
    assert out.read_text() == "ImageId,EncodedPixels\n" + expected
    two.did("diff", out, two.root / "plain.csv", "--size", f"{oracle.SIZE[0]}x{oracle.SIZE[1]}")
    told = two.do("blend", "-o", out, "--header", "a,b")
    assert (told.code, told.error.partition(":")[0]) == (2, "header 'a,b' is unknown")


@pytest.mark.parametrize("dialect", ["column-major", "relative"])
def test_masks_in_a_table_of_another_dialect(two, oracle, dialect):
    header = {"column-major": "id,rle_mask", "relative": "ImageId,EncodedPixels"}[dialect]
    table, words = two.root / "masks.csv", ("--images", two.images)
    encode = rle_dialects.find_dialect(dialect).encode
    table.write_text("\n".join([header, *(f"{i},{encode(oracle.ellipse(i))}" for i in oracle.TRAIN), ""]))
    two.did("blend", "--split", "oof", "-o", two.root / "plain.csv")
    two.did("blend", "--split", "oof", "-o", two.root / "oof.csv", "--dialect", dialect)
    expected = json.loads(two.did("evaluate", two.root / "plain.csv", "--json").out)
    named = ("--dialect", dialect, "--masks", table, *words, "--json")
    assert json.loads(two.did("evaluate", two.root / "oof.csv", *named).out) == expected

    other = two.root / "other"
    assert two.run("init", other, *words, "--masks", table, "--dialect", dialect).code == 0
    found = two.run("--project", other, "evaluate", two.root / "plain.csv", "--json")
    assert json.loads(found.out) == expected
    file = other / "ensemble.toml"
    file.write_text(file.read_text().replace(f'dialect = "{dialect}"', 'dialect = "carvana"'))
    again = two.run("--project", other, "evaluate", two.root / "plain.csv", "--json")
    assert again.code == 1 or json.loads(again.out) != expected  # the decoded masks were not those of another dialect


def test_a_dialect_is_for_tables(two):
    told = two.run("init", two.root / "other", "--images", two.images, "--masks", two.masks, "--dialect", "relative")
    assert (told.code, "is for RLE tables" in told.error) == (2, True)
    assert "--masks" in two.run("init", two.root / "other", "--images", two.images, "--dialect", "relative").error


def test_check_needs_a_submission(two):
    assert "-o" in two.do("blend", "--masks", two.root / "made", "--check").error


def test_the_dialect_is_part_of_the_run(two):
    two.did("blend", "-o", two.root / "a.csv", "--dialect", "relative")
    run = json.loads(max((two.cars / "runs").glob("*.json")).read_text())
    assert "relative" in json.dumps(run)


def test_the_text_of_workers_is_the_same(two):
    for name, words in (("here", ()), ("there", ("--workers", "1"))):
        two.did("blend", "-o", two.root / f"{name}.csv", "--dialect", "coco-compressed", "--check", *words)
    assert (two.root / "here.csv").read_bytes() == (two.root / "there.csv").read_bytes()
