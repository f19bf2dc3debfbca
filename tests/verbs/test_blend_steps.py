"""blend --postprocess: masks go through the steps, and the run says so."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import PIL.Image
import pytest
from scipy import ndimage

MEMBERS = (("b_net", 1.5, -3, 60), ("a_net", 2.5, 4, 90), ("c_net", 1.0, 1, 120))


@pytest.fixture
def three(project):
    """A project with three imported members, and their codes."""
    project.codes = project.kept("three", lambda: project.imported(*MEMBERS))
    return project


def blended(three, oracle, image_id, names=("b_net", "a_net", "c_net")):
    return oracle.naive_blend([three.codes[n][image_id] for n in names], [Fraction(1)] * len(names), Fraction(1, 2))


def largest(mask):
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])


def filled(mask):
    return ndimage.binary_fill_holes(mask)


@pytest.mark.parametrize("threads", [1, 2])
def test_rows_and_mask_files_are_mended(three, oracle, threads):
    words = ["--postprocess", "largest,fill-holes", "--threads", threads, "--masks", three.root / "made"]
    done = three.did("blend", *words, "-o", three.root / "out.csv")
    assert "threshold 0.5, then largest,fill-holes\n" in done.out
    rows = oracle.read_rows(three.root / "out.csv")
    assert list(rows) == [f"{image_id}.jpg" for image_id in oracle.TEST]
    changed = 0
    for image_id in oracle.TEST:
        plain = blended(three, oracle, image_id)
        expected = filled(largest(plain))
        changed += not np.array_equal(plain, expected)
        assert rows[f"{image_id}.jpg"] == oracle.naive_rle(expected)
        with PIL.Image.open(three.root / "made" / f"{image_id}.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture) > 0, expected)
    assert changed == len(oracle.TEST)


def test_the_order_of_steps_matters(three, oracle):
    for text, ways in (("largest,fill-holes", (largest, filled)), ("fill-holes,largest", (filled, largest))):
        three.did("blend", "--weights", "c_net=1", "--postprocess", text, "-o", three.root / "out.csv")
        rows = oracle.read_rows(three.root / "out.csv")
        for image_id in oracle.TEST:
            expected = blended(three, oracle, image_id, ["c_net"])
            for way in ways:
                expected = way(expected)
            assert rows[f"{image_id}.jpg"] == oracle.naive_rle(expected)


def test_a_member_without_a_weight_may_decide(three, oracle):
    """Everything is in doubt of a_net, whose hull fills the box."""
    steps = "roof-repair:member=a_net:low=0:high=256:erode=0:area=0:grow=0:inner=127"
    three.did("blend", "--weights", "b_net=1", "--postprocess", steps, "-o", three.root / "out.csv")
    with_it = (three.root / "out.csv").read_bytes()
    three.did("blend", "--weights", "b_net=1", "-o", three.root / "out.csv")
    assert (three.root / "out.csv").read_bytes() != with_it
    done = three.do("blend", "--postprocess", "roof-repair:member=a_nett", "-o", three.root / "other.csv")
    assert "'a_nett' is unknown" in done.error
    assert done.code == 2
    assert not (three.root / "other.csv").exists()


def test_what_a_run_records(three):
    out = three.root / "out.csv"
    done = three.did("blend", "--postprocess", " largest:connectivity=8, fill-holes:area=40", "-o", out, "--json")
    assert json.loads(done.out)["postprocess"] == "largest,fill-holes:area=40"
    three.did("blend", "-o", out, "--json")
    plain, mended = sorted(
        (json.loads(path.read_text()) for path in (three.cars / "runs").glob("*-blend.json")), key=len
    )
    assert mended["postprocess"] == "largest,fill-holes:area=40"
    assert [package.split()[0] for package in mended["packages"]] == ["carvana-ens-postprocess"]
    assert mended.keys() - plain.keys() == {"postprocess", "packages"}


@pytest.mark.parametrize(
    ("steps", "told", "code"),
    [
        ("larges", "step 'larges' is unknown: did you mean 'largest'?", 1),
        ("largest,", "without a name or with an empty option", 2),
        ("fill-holes:area=x", "option area takes a whole number, got 'x'", 2),
    ],
)
def test_steps_that_cannot_be_meant_are_refused_before_any_store_is_opened(project, steps, told, code):
    done = project.do("blend", "--postprocess", steps, "-o", project.root / "out.csv")
    assert told in done.error
    assert done.code == code


def test_show_draws_the_mended_mask(three, oracle):
    pictures = []
    for words in ([], ["--postprocess", "largest"]):
        three.did("show", oracle.TEST[0], *words, "-o", three.root / "look.png")
        with PIL.Image.open(three.root / "look.png") as picture:
            pictures.append(np.asarray(picture.convert("RGB")))
    assert not np.array_equal(*pictures)
